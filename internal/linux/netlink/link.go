package netlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle is one routing socket, bound to the namespace in which it was opened. It is safe for concurrent use.
type Handle struct{ h *vnl.Handle }

// Link is what callers need to know about a network device.
type Link struct {
	Name   string
	Kind   string // "bridge", "veth", ...
	Index  int
	Master int // index of the bridge it is a port of, or 0
	MTU    int
	MAC    net.HardwareAddr
	Up     bool // wanted up
	Ready  bool // up, and a bridge forwards to it
}

// Veth describes a pair: Name stays here, as a port of the link Master; Peer appears in the namespace Netns.
type Veth struct {
	Name     string
	Peer     string
	PeerMAC  net.HardwareAddr
	MTU      int
	Master   int
	Hairpin  bool // the bridge may send a frame back to the port it came from
	Isolated bool // the bridge forwards nothing between isolated ports
	Netns    *os.File
}

// Open opens a handle in the calling thread's namespace.
func Open() (*Handle, error) {
	h, err := vnl.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Handle{h}, nil
}

// OpenAt opens a handle in the namespace ns.
func OpenAt(ns *os.File) (*Handle, error) {
	h, err := vnl.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in namespace: %w", err)
	}
	return &Handle{h}, nil
}

// Close releases the socket.
func (h *Handle) Close() { h.h.Close() }

// Bridge makes the bridge name, brings it up and returns its index; an existing bridge is taken as it is. A device of
// another kind under that name is an error.
func (h *Handle) Bridge(name string, mac net.HardwareAddr, mtu int) (int, error) {
	attrs := vnl.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = name, mac, mtu
	attrs.Flags = net.FlagUp
	err := h.h.LinkAdd(&vnl.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("create bridge %s: %w", name, err)
	}
	l, err := h.Link(name)
	if err != nil {
		return 0, err
	}
	if l.Kind != "bridge" {
		return 0, fmt.Errorf("create bridge %s: a %s device has that name: %w", name, l.Kind, unix.EEXIST)
	}
	return l.Index, h.SetUp(l.Index)
}

// AddVeth makes the pair; the host side comes up, the peer stays down until SetUp in its namespace.
func (h *Handle) AddVeth(v Veth) error {
	attrs := vnl.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = v.Name, v.MTU, v.Master
	attrs.Flags = net.FlagUp
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	link := &vnl.Veth{LinkAttrs: attrs, PeerName: v.Peer, PeerHardwareAddr: v.PeerMAC, PeerNamespace: vnl.NsFd(v.Netns.Fd())}
	if err := h.h.LinkAdd(link); err != nil {
		return fmt.Errorf("create veth %s: %w", v.Name, err)
	}
	if v.Hairpin {
		if err := h.h.LinkSetHairpin(link, true); err != nil {
			return fmt.Errorf("hairpin on bridge port %s: %w", v.Name, err)
		}
	}
	if v.Isolated {
		if err := h.h.LinkSetIsolated(link, true); err != nil {
			return fmt.Errorf("isolate bridge port %s: %w", v.Name, err)
		}
	}
	return nil
}

// Link returns the device name; the error is unix.ENODEV when there is none.
func (h *Handle) Link(name string) (Link, error) {
	l, err := h.h.LinkByName(name)
	if err != nil {
		if errors.As(err, new(vnl.LinkNotFoundError)) {
			err = unix.ENODEV
		}
		return Link{}, fmt.Errorf("link %s: %w", name, err)
	}
	return linkOf(l), nil
}

// Links returns every device of the namespace.
func (h *Handle) Links() ([]Link, error) {
	ls, err := whole(h.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := make([]Link, 0, len(ls))
	for _, l := range ls {
		out = append(out, linkOf(l))
	}
	return out, nil
}

// whole asks for a list again when what changed meanwhile left something out, as the kernel says then.
func whole[T any](list func() ([]T, error)) (out []T, err error) {
	for range 20 {
		if out, err = list(); !errors.Is(err, vnl.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func linkOf(l vnl.Link) Link {
	a := l.Attrs()
	return Link{Name: a.Name, Kind: l.Type(), Index: a.Index, Master: a.MasterIndex, MTU: a.MTU, MAC: a.HardwareAddr, Up: a.Flags&net.FlagUp != 0, Ready: a.OperState == vnl.OperUp}
}

func byIndex(i int) vnl.Link { return &vnl.Device{LinkAttrs: vnl.LinkAttrs{Index: i}} }

// SetUp brings a device up.
func (h *Handle) SetUp(index int) error {
	if err := h.h.LinkSetUp(byIndex(index)); err != nil {
		return fmt.Errorf("set link %d up: %w", index, err)
	}
	return nil
}

// SetMaster makes a device a port of the bridge with index master.
func (h *Handle) SetMaster(index, master int) error {
	if err := h.h.LinkSetMasterByIndex(byIndex(index), master); err != nil {
		return fmt.Errorf("set master of link %d: %w", index, err)
	}
	return nil
}

// Delete removes a device; none by that name is success. For a veth the call blocks for tens of milliseconds.
func (h *Handle) Delete(name string) error {
	l, err := h.Link(name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.h.LinkDel(byIndex(l.Index)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// DeleteIndex removes the device with that index, whatever it is called by now; none is success.
func (h *Handle) DeleteIndex(index int) error {
	if err := h.h.LinkDel(byIndex(index)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	return nil
}

// AddAddr gives a device an address, usable at once (no duplicate address detection); one that is there already is success.
func (h *Handle) AddAddr(index int, p netip.Prefix) error {
	a := &vnl.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.h.AddrAdd(byIndex(index), a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// Addrs returns the addresses of a device.
func (h *Handle) Addrs(index int) ([]netip.Prefix, error) {
	as, err := whole(func() ([]vnl.Addr, error) { return h.h.AddrList(byIndex(index), unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range as {
		if p, ok := prefixOf(a.IPNet); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// AddRoute adds a route by a gateway on a device; an equal one is success.
func (h *Handle) AddRoute(index int, dst netip.Prefix, via netip.Addr) error {
	r := &vnl.Route{LinkIndex: index, Gw: via.AsSlice(), Dst: ipNet(dst)}
	if err := h.h.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route %s via %s: %w", dst, via, err)
	}
	return nil
}

// DeleteRoute removes a route by a gateway on a device; none such is success.
func (h *Handle) DeleteRoute(index int, dst netip.Prefix, via netip.Addr) error {
	r := &vnl.Route{LinkIndex: index, Gw: via.AsSlice(), Dst: ipNet(dst)}
	if err := h.h.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route %s via %s: %w", dst, via, err)
	}
	return nil
}

// Routes returns the destinations of the namespace's main routing table, default routes excluded.
func (h *Handle) Routes() ([]netip.Prefix, error) {
	rs, err := whole(func() ([]vnl.Route, error) { return h.h.RouteList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range rs {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	bits, total := n.Mask.Size()
	if total == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), true
}
