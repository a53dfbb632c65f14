package apply

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/plan"
	"golang.org/x/sys/unix"
)

// generations bounds how many dead namesakes of a veth may linger while the kernel takes their namespaces down.
const generations = 100

// Namespace makes a network namespace with lo up and the plan's links, addresses, routes and sysctls in it. Where a veth of
// a former life of the container still lingers, p.Links says afterwards which name was taken. inside, when not nil, runs
// on a thread in the namespace once lo is up. On error nothing is left behind.
func Namespace(host *netlink.Handle, p *plan.Plan, inside func() error) (*os.File, error) {
	var h *netlink.Handle
	ns, err := netlink.NewNetns(func(*os.File) (err error) {
		if err := writeSysctls(p.Sysctls); err != nil {
			return err
		}
		if h, err = netlink.Open(); err != nil {
			return err
		}
		if err := h.SetUp(1); err != nil { // lo has index 1 in every namespace
			return err
		}
		if inside != nil {
			return inside()
		}
		return nil
	})
	if h != nil {
		defer h.Close()
	}
	if err != nil {
		return nil, err
	}
	if err := attach(host, h, ns, p); err != nil {
		ns.Close() // takes the pairs with it
		return nil, err
	}
	return ns, nil
}

// Attach adds the links, addresses, routes and sysctls of p to an existing namespace.
func Attach(host *netlink.Handle, ns *os.File, p *plan.Plan) error {
	h, err := netlink.OpenAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := netlink.Inside(ns, func() error { return writeSysctls(p.Sysctls) }); err != nil {
		return err
	}
	return attach(host, h, ns, p)
}

func attach(host, inner *netlink.Handle, ns *os.File, p *plan.Plan) error {
	for i := range p.Links {
		if err := addPair(host, inner, ns, &p.Links[i], *p); err != nil {
			return err
		}
	}
	return nil
}

func addPair(host, inner *netlink.Handle, ns *os.File, l *plan.Link, p plan.Plan) error {
	br, err := host.Link(l.Bridge)
	if err != nil {
		return fmt.Errorf("bridge of %s: %w", l.Why, err)
	}
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return fmt.Errorf("mac address of %s: %w", l.Why, err)
	}
	base := l.Name
	for n := 1; ; n++ {
		err = host.AddVeth(netlink.Veth{Name: l.Name, Peer: l.Peer, PeerMAC: mac, MTU: l.MTU, Master: br.Index, Hairpin: true, Isolated: l.Isolated, Netns: ns})
		if !errors.Is(err, unix.EEXIST) || n == generations {
			break
		}
		l.Name = fmt.Sprintf("%s-%d", base, n)
	}
	if err != nil {
		return err
	}
	peer, err := inner.Link(l.Peer)
	if err != nil {
		return err
	}
	for _, a := range p.Addrs {
		if a.Link == l.Peer {
			if err := inner.AddAddr(peer.Index, a.Prefix); err != nil {
				return err
			}
		}
	}
	if err := inner.SetUp(peer.Index); err != nil {
		return err
	}
	for _, r := range p.Routes {
		if r.Link == l.Peer {
			if err := inner.AddRoute(peer.Index, r.Dst, r.Via); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(AwaitReady(host, l.Name), AwaitReady(host, l.Bridge), AwaitReady(inner, l.Peer)); err != nil {
		return err
	}
	for _, a := range p.Addrs {
		if a.Link == l.Peer && a.Prefix.Addr().Is6() {
			if err := netlink.Inside(ns, func() error { return awaitGroup(a.Prefix.Addr()) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitGroup waits until the calling thread's namespace listens to the neighbour discovery group of an address (RFC 4291,
// 2.7.1), which the kernel joins in a worker; what is asked before stays unanswered for a second.
func awaitGroup(a netip.Addr) error {
	b := a.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%x", b[13:])
	for range 100 {
		list, err := os.ReadFile("/proc/thread-self/net/igmp6")
		if err != nil {
			return fmt.Errorf("read multicast groups: %w", err)
		}
		if strings.Contains(string(list), group) {
			return nil
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil // it will come
}

// AwaitReady waits until a link that just came up carries packets: the bridge forwards to the port, and on the bridge and in
// the container the IPv6 addresses count. The kernel does that in a worker (linkwatch); a container's first ARP request sent
// before is lost, and the next one comes a second later. Asking for the link makes newer kernels do the work at once. A
// link that stays silent is no error: it will come.
func AwaitReady(h *netlink.Handle, name string) error {
	for range 100 {
		l, err := h.Link(name)
		if err != nil || l.Ready {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil
}

// writeSysctls writes for the namespace of the calling thread; only net/ belongs to it.
func writeSysctls(list []plan.Sysctl) error {
	for _, s := range list {
		if !strings.HasPrefix(s.Key, "net/") || strings.Contains(s.Key, "..") {
			return errdef.New(errdef.InvalidArgument, "%s: %s is not a setting of a network namespace", s.Why, s.Key)
		}
		err := os.WriteFile("/proc/sys/"+s.Key, []byte(s.Value), 0)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.Key, "net/ipv6/") && !strings.HasPrefix(s.Why, "--sysctl") {
			continue // a kernel without IPv6 needs none of ours
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.Why, err)
		}
	}
	return nil
}

// BridgeSpec is a bridge as it shall be.
type BridgeSpec struct {
	Name  string
	MAC   net.HardwareAddr
	MTU   int
	Addrs []netip.Prefix // the gateways
}

// EnsureBridge makes the bridge, or puts right what is missing of an existing one.
func EnsureBridge(host *netlink.Handle, s BridgeSpec) error {
	index, err := host.Bridge(s.Name, s.MAC, s.MTU)
	if err != nil {
		return err
	}
	have, err := host.Addrs(index)
	if err != nil {
		return err
	}
	set := map[string]string{"net/ipv4/conf/" + s.Name + "/route_localnet": "1"}
	v6 := false
	for _, a := range s.Addrs {
		v6 = v6 || a.Addr().Is6()
	}
	set["net/ipv6/conf/"+s.Name+"/disable_ipv6"] = "1"
	if v6 {
		set["net/ipv6/conf/"+s.Name+"/disable_ipv6"] = "0"
		set["net/ipv6/conf/"+s.Name+"/accept_ra"] = "0"
	}
	for key, value := range set {
		if err := Sysctl(key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, a := range s.Addrs {
		if !contains(have, a) {
			if err := host.AddAddr(index, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(list []netip.Prefix, p netip.Prefix) bool {
	for _, x := range list {
		if x == p {
			return true
		}
	}
	return false
}

// Sysctl writes a setting of the calling thread's namespace when it differs.
func Sysctl(key, value string) error {
	have, err := ReadSysctl(key)
	if err != nil {
		return err
	}
	if have == value {
		return nil
	}
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

// ReadSysctl returns a setting without its line end.
func ReadSysctl(key string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + key)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}
