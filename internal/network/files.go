package network

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// ResolverAddr is where containers find the embedded DNS.
const ResolverAddr = "127.0.0.11"

// maxResolv bounds what is read of the host's resolv.conf.
const maxResolv = 64 << 10

// HostResolv returns the host's resolv.conf; where that names only a stub on loopback, the file the stub was made from.
func HostResolv() []byte {
	b := readBounded("/etc/resolv.conf")
	if len(outside(nameservers(b))) == 0 {
		if alt := readBounded("/run/systemd/resolve/resolv.conf"); len(outside(nameservers(alt))) > 0 {
			return alt
		}
	}
	return b
}

func readBounded(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, maxResolv)
	n, _ := f.Read(b)
	return b[:n]
}

// nameservers returns the addresses in a resolv.conf, in order.
func nameservers(conf []byte) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(string(conf)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}

// outside drops addresses that mean nothing in another namespace.
func outside(list []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return a.IsLoopback() || a.Zone() != "" })
}

// ResolvSpec is what a container's resolv.conf is made from. Servers, Search and Options replace the host's when not empty;
// Embedded puts dhow's resolver in place of the servers; IPv6 keeps servers of that family.
type ResolvSpec struct {
	Host     []byte
	Servers  []string
	Search   []string
	Options  []string
	Embedded bool
	IPv6     bool
}

// ResolvConf returns the content of /etc/resolv.conf.
func ResolvConf(s ResolvSpec) ([]byte, error) {
	if err := oneLine("--dns", s.Servers...); err != nil {
		return nil, err
	}
	if err := oneLine("--dns-search", s.Search...); err != nil {
		return nil, err
	}
	if err := oneLine("--dns-option", s.Options...); err != nil {
		return nil, err
	}
	servers := s.Servers
	for _, a := range servers {
		if _, err := netip.ParseAddr(a); err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "--dns %s: not an IP address", a)
		}
	}
	if len(servers) == 0 {
		for _, a := range outside(nameservers(s.Host)) {
			if a.Is4() || s.IPv6 {
				servers = append(servers, a.String())
			}
		}
	}
	if s.Embedded {
		servers = []string{ResolverAddr}
	}
	search, options := s.Search, s.Options
	for line := range strings.Lines(string(s.Host)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case (f[0] == "search" || f[0] == "domain") && len(s.Search) == 0:
			search = f[1:]
		case f[0] == "options" && len(s.Options) == 0:
			options = append(options, f[1:]...)
		}
	}
	if s.Embedded && !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		options = append(slices.Clone(options), "ndots:0")
	}
	var b strings.Builder
	for _, a := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(search) > 0 && !slices.Equal(search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return []byte(b.String()), nil
}

// HostsSpec is what a container's hosts file is made from. Extra are "name:address" as in --add-host.
type HostsSpec struct {
	Hostname   string
	Domainname string
	Addrs      []netip.Addr
	Extra      []string
	Gateway    netip.Addr // what the address host-gateway stands for
	IPv6       bool
}

// HostsFile returns the content of /etc/hosts.
func HostsFile(s HostsSpec) ([]byte, error) {
	if err := oneLine("--hostname", s.Hostname, s.Domainname); err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n")
	if s.IPv6 {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, x := range s.Extra {
		line, err := extraHost(x, s.Gateway)
		if err != nil {
			return nil, err
		}
		b.WriteString(line)
	}
	name := s.Hostname
	if s.Domainname != "" {
		name = s.Hostname + "." + s.Domainname + " " + s.Hostname
	}
	if s.Hostname != "" {
		for _, a := range s.Addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	return []byte(b.String()), nil
}

func extraHost(x string, gateway netip.Addr) (string, error) {
	if err := oneLine("--add-host", x); err != nil {
		return "", err
	}
	name, addr, ok := strings.Cut(x, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t#") {
		return "", errdef.New(errdef.InvalidArgument, "--add-host %s: want name:address", x)
	}
	if addr == "host-gateway" {
		if !gateway.IsValid() {
			return "", errdef.New(errdef.InvalidArgument, "--add-host %s: no network of the container has a gateway", x)
		}
		addr = gateway.String()
	}
	a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		return "", errdef.New(errdef.InvalidArgument, "--add-host %s: %q is not an IP address", x, addr)
	}
	return fmt.Sprintf("%s\t%s\n", a, name), nil
}

// HostnameFile returns the content of /etc/hostname.
func HostnameFile(hostname string) ([]byte, error) {
	return []byte(hostname + "\n"), oneLine("--hostname", hostname)
}

// oneLine refuses values that would add lines of their own to a file.
func oneLine(flag string, values ...string) error {
	for _, v := range values {
		if strings.ContainsAny(v, "\x00\n\r") {
			return errdef.New(errdef.InvalidArgument, "%s %q: contains a line end or NUL", flag, v)
		}
	}
	return nil
}
