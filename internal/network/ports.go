package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
	"golang.org/x/sys/unix"
)

// portTable knows every published host port. For each it holds a bound socket that never listens: programs of the host that
// want the port are told at once that it is taken, and a packet that the rules miss is refused instead of swallowed.
type portTable struct {
	held map[portKey][]hold
	next uint16 // where the search for an ephemeral port goes on
}

type portKey struct {
	proto uint8
	port  uint16
}

type hold struct {
	addr  netip.Addr
	owner string
	fd    int // -1: not held (the engine was away when somebody took it, or the kernel lacks the protocol)
}

func newPortTable() portTable {
	return portTable{held: map[portKey][]hold{}, next: uint16(rand.Uint32())}
}

// reserve takes a port for owner; the error is a Conflict when it belongs to somebody.
func (t *portTable) reserve(owner string, proto uint8, addr netip.Addr, port uint16) error {
	k := portKey{proto, port}
	for _, h := range t.held[k] {
		if overlap(h.addr, addr) {
			return taken(proto, addr, port, "by container "+id.Short(h.owner)+", which publishes it")
		}
	}
	fd, err := bindPort(proto, addr, port)
	if err != nil {
		return err
	}
	t.held[k] = append(t.held[k], hold{addr, owner, fd})
	return nil
}

// readopt reserves a recorded port. It stays recorded even when the socket cannot be had.
func (t *portTable) readopt(owner string, b Bound) error {
	proto, _ := plan.ProtoNumber(b.Proto)
	k := portKey{proto, b.HostPort}
	fd, err := bindPort(proto, b.HostIP, b.HostPort)
	t.held[k] = append(t.held[k], hold{b.HostIP, owner, fd})
	return err
}

func (t *portTable) release(owner string, b Bound) {
	proto, _ := plan.ProtoNumber(b.Proto)
	k := portKey{proto, b.HostPort}
	var keep []hold
	for _, h := range t.held[k] {
		if h.owner == owner && h.addr == b.HostIP {
			closePort(h.fd)
			continue
		}
		keep = append(keep, h)
	}
	if keep == nil {
		delete(t.held, k)
		return
	}
	t.held[k] = keep
}

func (t *portTable) closeAll() {
	for _, list := range t.held {
		for _, h := range list {
			closePort(h.fd)
		}
	}
	t.held = map[portKey][]hold{}
}

// publish finds a host port for p on every one of addrs and reserves it.
func (t *portTable) publish(owner string, proto uint8, p Port, addrs []netip.Addr) (uint16, error) {
	first, last, start := p.HostPort, p.HostPort, p.HostPort
	switch {
	case p.HostPort == 0:
		lo, hi, err := ephemeral()
		if err != nil {
			return 0, err
		}
		first, last = lo, hi
		start = lo + t.next%(hi-lo+1)
	case p.HostPortEnd > p.HostPort:
		last = p.HostPortEnd
	}
	var err error
	count := int(last-first) + 1
	for i := range count {
		port := first + uint16((int(start-first)+i)%count)
		if err = t.reserveAll(owner, proto, port, addrs); err == nil {
			if p.HostPort == 0 {
				t.next = port - first + 1
			}
			return port, nil
		}
		if !errdef.Is(err, errdef.Conflict) {
			return 0, err
		}
	}
	if count > 1 {
		return 0, errdef.New(errdef.Conflict, "no port free in %d-%d: %w", first, last, err)
	}
	return 0, err
}

func (t *portTable) reserveAll(owner string, proto uint8, port uint16, addrs []netip.Addr) error {
	for i, a := range addrs {
		if err := t.reserve(owner, proto, a, port); err != nil {
			for _, b := range addrs[:i] {
				t.release(owner, Bound{Proto: plan.ProtoName(proto), HostIP: b, HostPort: port})
			}
			return err
		}
	}
	return nil
}

// overlap: a wildcard meets every address of its family.
func overlap(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// ephemeral is the host's own range for ports that nobody chose.
func ephemeral() (lo, hi uint16, err error) {
	v, err := apply.ReadSysctl("net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, err
	}
	if f := strings.Fields(v); len(f) == 2 {
		a, err1 := strconv.ParseUint(f[0], 10, 16)
		b, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && a > 0 && b >= a && b-a < 65535 {
			return uint16(a), uint16(b), nil
		}
	}
	return 0, 0, fmt.Errorf("sysctl net.ipv4.ip_local_port_range: %q is no range", v)
}

// bindPort binds a socket without SO_REUSEADDR, so that it keeps everybody else off. Connections in TIME_WAIT forbid that for
// a minute; they are told from a real owner by a second try with SO_REUSEADDR.
func bindPort(proto uint8, addr netip.Addr, port uint16) (int, error) {
	fd, err := tryBind(proto, addr, port, false)
	if errors.Is(err, unix.EADDRINUSE) && proto == plan.TCP {
		fd, err = tryBind(proto, addr, port, true)
	}
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return -1, nil
	case errors.Is(err, unix.EADDRINUSE):
		return -1, taken(proto, addr, port, "by a program of this host; see `ss -lnp`")
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return -1, errdef.New(errdef.InvalidArgument, "bind for %s/%s failed: this host has no address %s: %w", netip.AddrPortFrom(addr, port), plan.ProtoName(proto), addr, err)
	case err != nil:
		return -1, fmt.Errorf("bind for %s/%s failed: %w", netip.AddrPortFrom(addr, port), plan.ProtoName(proto), err)
	}
	return fd, nil
}

func tryBind(proto uint8, addr netip.Addr, port uint16, reuse bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if addr.Is6() {
		family = unix.AF_INET6
	}
	if proto == plan.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return -1, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(port), Addr: as4(addr)}
	if addr.Is6() {
		sa = &unix.SockaddrInet6{Port: int(port), Addr: addr.As16()}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && proto == plan.UDP {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // nothing is ever read from it
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

func closePort(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

func taken(proto uint8, addr netip.Addr, port uint16, who string) error {
	return errdef.New(errdef.Conflict, "Bind for %s failed: port is already allocated (%s, %s): stop that, or publish another port", netip.AddrPortFrom(addr, port), plan.ProtoName(proto), who)
}
