package create

import (
	"encoding/csv"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// netFlags are the networks, names and ports of the container.
type netFlags struct {
	networks   attachments
	aliases    []string
	ip, ip6    string
	linkLocal  []string
	links      []string
	mac        string
	publish    []string
	publishAll bool
	expose     []string
	dns        []string
	dnsOptions []string
	dnsSearch  []string
	hosts      []string
}

func (n *netFlags) add(fs *pflag.FlagSet) {
	fs.Var(&n.networks, "network", "Connect to a network (bridge, host, none, container:NAME, NAME, or name=NAME,ip=...)")
	fs.Var(&n.networks, "net", "Connect to a network")
	fs.MarkHidden("net")
	fs.StringArrayVar(&n.aliases, "network-alias", nil, "Add a name for the container in its network")
	fs.StringArrayVar(&n.aliases, "net-alias", nil, "Add a name for the container in its network")
	fs.MarkHidden("net-alias")
	fs.StringVar(&n.ip, "ip", "", "IPv4 address, e.g. 172.30.100.104")
	fs.StringVar(&n.ip6, "ip6", "", "IPv6 address, e.g. 2001:db8::33")
	fs.StringArrayVar(&n.linkLocal, "link-local-ip", nil, "Link-local addresses")
	fs.StringArrayVar(&n.links, "link", nil, "Add a link to another container (name[:alias])")
	fs.StringVar(&n.mac, "mac-address", "", "MAC address, e.g. 92:d0:c6:0a:29:33")
	fs.StringArrayVarP(&n.publish, "publish", "p", nil, "Publish a port ([[ip:]host port:]container port[/protocol], ranges allowed)")
	fs.BoolVarP(&n.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.StringArrayVar(&n.expose, "expose", nil, "Expose a port or a range of ports")
	fs.StringArrayVar(&n.dns, "dns", nil, "DNS servers")
	fs.StringArrayVar(&n.dnsOptions, "dns-option", nil, "DNS options")
	fs.StringArrayVar(&n.dnsOptions, "dns-opt", nil, "DNS options")
	fs.MarkHidden("dns-opt")
	fs.StringArrayVar(&n.dnsSearch, "dns-search", nil, "DNS search domains")
	fs.StringArrayVar(&n.hosts, "add-host", nil, "Add a host name to /etc/hosts (host:ip)")
}

func (n *netFlags) apply(b *request) error {
	h := b.host
	h.Links, h.PublishAllPorts, h.DNSOptions = n.links, n.publishAll, n.dnsOptions
	h.DNSSearch = n.dnsSearch
	for _, s := range n.dns {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--dns %q: not an IP address", s)
		}
		h.DNS = append(h.DNS, a)
	}
	for _, s := range n.hosts {
		e, err := extraHost(s)
		if err != nil {
			return err
		}
		h.ExtraHosts = append(h.ExtraHosts, e)
	}
	if err := n.ports(b); err != nil {
		return err
	}
	h.NetworkMode = network.NetworkDefault
	if len(n.networks) > 0 {
		h.NetworkMode = container.NetworkMode(n.networks[0].target)
	}
	return n.endpoints(b)
}

// extraHost reads name:ip and name=ip; the address may be in brackets, or the word host-gateway.
func extraHost(s string) (string, error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("--add-host %q: want host:ip", s)
	}
	if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
		addr = addr[1 : len(addr)-1]
	}
	if addr != "host-gateway" {
		if _, err := netip.ParseAddr(addr); err != nil {
			return "", fmt.Errorf("--add-host %q: %q is not an IP address", s, addr)
		}
	}
	return name + ":" + addr, nil
}

func (n *netFlags) ports(b *request) error {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, s := range n.publish {
		spec, err := longPublish(s)
		if err != nil {
			return fmt.Errorf("--publish %q: %w", s, err)
		}
		maps, err := nat.ParsePortSpec(spec)
		if err != nil {
			return fmt.Errorf("--publish %q: %w", s, err)
		}
		for _, m := range maps {
			port, err := network.ParsePort(string(m.Port))
			if err != nil {
				return fmt.Errorf("--publish %q: %w", s, err)
			}
			bind := network.PortBinding{HostPort: m.Binding.HostPort}
			if m.Binding.HostIP != "" {
				if bind.HostIP, err = netip.ParseAddr(m.Binding.HostIP); err != nil {
					return fmt.Errorf("--publish %q: %q is not an IP address", s, m.Binding.HostIP)
				}
			}
			exposed[port] = struct{}{}
			bound[port] = append(bound[port], bind)
		}
	}
	for _, s := range n.expose {
		r, err := network.ParsePortRange(s)
		if err != nil {
			return fmt.Errorf("--expose %q: %w", s, err)
		}
		switch r.Proto() {
		case network.TCP, network.UDP, network.SCTP:
		default:
			return fmt.Errorf("--expose %q: protocol %q is not tcp, udp or sctp", s, r.Proto())
		}
		for p := range r.All() {
			exposed[p] = struct{}{}
		}
	}
	b.config.ExposedPorts, b.host.PortBindings = exposed, bound
	return nil
}

// longPublish turns target=80,published=8080,protocol=tcp into the short notation.
func longPublish(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return "", err
	}
	v := map[string]string{"protocol": "tcp"}
	for _, f := range fields {
		k, val, ok := strings.Cut(f, "=")
		if !ok || val == "" {
			return "", fmt.Errorf("%q: want key=value", f)
		}
		switch k = strings.ToLower(k); k {
		case "target", "published":
			if _, err := strconv.ParseUint(strings.Split(val, "-")[0], 10, 16); err != nil {
				return "", fmt.Errorf("%s: %q is not a port", k, val)
			}
			v[k] = val
		case "protocol":
			v[k] = strings.ToLower(val)
		case "mode":
			if val != "ingress" && val != "host" {
				return "", fmt.Errorf("mode %q: want ingress or host", val)
			}
		default:
			return "", fmt.Errorf("unknown key %q", k)
		}
	}
	if v["target"] == "" {
		return "", fmt.Errorf("target is missing")
	}
	if v["published"] == "" {
		return v["target"] + "/" + v["protocol"], nil
	}
	return v["published"] + ":" + v["target"] + "/" + v["protocol"], nil
}

func (n *netFlags) endpoints(b *request) error {
	list := n.networks
	if len(list) == 0 {
		list = attachments{{target: network.NetworkDefault}}
	}
	for i, a := range list {
		ep := &network.EndpointSettings{
			Aliases: a.aliases, DriverOpts: a.opts, GwPriority: a.gwPriority, MacAddress: network.HardwareAddr(a.mac),
		}
		ipam := &network.EndpointIPAMConfig{IPv4Address: a.ip, IPv6Address: a.ip6, LinkLocalIPs: a.linkLocal}
		if i == 0 {
			if err := n.mergeFirst(a, ep, ipam); err != nil {
				return err
			}
			// The modes that have no endpoint of their own.
			if m := b.host.NetworkMode; m.IsHost() || m.IsContainer() || m.IsNone() {
				if len(ep.Aliases) > 0 && !m.IsNone() {
					return fmt.Errorf("--network-alias: network mode %q has no endpoint to name", m)
				}
			}
		}
		if len(n.networks) > 1 && (a.target == "host" || a.target == "none" || strings.HasPrefix(a.target, "container:")) {
			return fmt.Errorf("--network %s cannot be combined with another network", a.target)
		}
		if ipam.IPv4Address.IsValid() || ipam.IPv6Address.IsValid() || len(ipam.LinkLocalIPs) > 0 {
			ep.IPAMConfig = ipam
		}
		if _, twice := b.net.EndpointsConfig[a.target]; twice {
			return fmt.Errorf("--network %s is given twice", a.target)
		}
		b.net.EndpointsConfig[a.target] = ep
	}
	return nil
}

// mergeFirst gives the first network what --ip, --ip6, --mac-address, --network-alias, --link and --link-local-ip say.
func (n *netFlags) mergeFirst(a attachment, ep *network.EndpointSettings, ipam *network.EndpointIPAMConfig) error {
	addr := func(flag, s string, into *netip.Addr, is func(netip.Addr) bool) error {
		if s == "" {
			return nil
		}
		if into.IsValid() {
			return fmt.Errorf("--%s: the address is also in --network", flag)
		}
		v, err := netip.ParseAddr(s)
		if err != nil || !is(v) {
			return fmt.Errorf("--%s %q: not such an address", flag, s)
		}
		*into = v
		return nil
	}
	if err := addr("ip", n.ip, &ipam.IPv4Address, netip.Addr.Is4); err != nil {
		return err
	}
	if err := addr("ip6", n.ip6, &ipam.IPv6Address, netip.Addr.Is6); err != nil {
		return err
	}
	if len(n.aliases) > 0 {
		if len(a.aliases) > 0 {
			return fmt.Errorf("--network-alias: aliases are also in --network")
		}
		ep.Aliases = n.aliases
	}
	for _, s := range n.linkLocal {
		v, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("--link-local-ip %q: not an IP address", s)
		}
		ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, v)
	}
	if n.mac != "" {
		hw, err := net.ParseMAC(strings.TrimSpace(n.mac))
		if err != nil {
			return fmt.Errorf("--mac-address %q: not a MAC address", n.mac)
		}
		if a.mac != nil {
			return fmt.Errorf("--mac-address: the address is also in --network")
		}
		ep.MacAddress = network.HardwareAddr(hw)
	}
	if len(n.links) > 0 && a.target != network.NetworkDefault && a.target != network.NetworkBridge {
		ep.Links = n.links
	}
	return nil
}

// attachment is one --network.
type attachment struct {
	target     string
	aliases    []string
	opts       map[string]string
	ip, ip6    netip.Addr
	linkLocal  []netip.Addr
	mac        net.HardwareAddr
	gwPriority int
}

type attachments []attachment

func (v *attachments) Type() string   { return "network" }
func (v *attachments) String() string { return "" }

func (v *attachments) Set(s string) error {
	if !strings.Contains(s, "=") {
		*v = append(*v, attachment{target: s})
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	var a attachment
	for _, f := range fields {
		k, val, ok := strings.Cut(strings.TrimSpace(f), "=")
		if !ok {
			return fmt.Errorf("%q: want key=value", f)
		}
		if err := a.set(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val)); err != nil {
			return err
		}
	}
	if a.target == "" {
		return fmt.Errorf("name is missing")
	}
	*v = append(*v, a)
	return nil
}

func (a *attachment) set(k, val string) (err error) {
	switch k {
	case "name":
		a.target = val
	case "alias":
		a.aliases = append(a.aliases, val)
	case "ip":
		a.ip, err = netip.ParseAddr(val)
	case "ip6":
		a.ip6, err = netip.ParseAddr(val)
	case "link-local-ip":
		var ll netip.Addr
		ll, err = netip.ParseAddr(val)
		a.linkLocal = append(a.linkLocal, ll)
	case "mac-address":
		a.mac, err = net.ParseMAC(val)
	case "gw-priority":
		a.gwPriority, err = strconv.Atoi(val)
	case "driver-opt":
		ok, ov, found := strings.Cut(val, "=")
		if !found {
			return fmt.Errorf("driver-opt %q: want key=value", val)
		}
		if a.opts == nil {
			a.opts = map[string]string{}
		}
		a.opts[strings.ToLower(strings.TrimSpace(ok))] = strings.TrimSpace(ov)
	default:
		return fmt.Errorf("unknown key %q", k)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	return nil
}
