// Package ipam owns the arithmetic of addresses: which are free in a subnet, which subnet is free on a host.
//
// It promises that an address just released is the last to be given out again, so that neighbours' caches and tracked
// connections do not find a stranger behind it. It is pure: it must never look at the host or store anything; callers bring
// what is taken. A Pool is not safe for concurrent use.
package ipam

import (
	"fmt"
	"net/netip"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Subnet describes one subnet of a network. Range, when valid, confines automatic addresses; Gateway belongs to the bridge.
type Subnet struct {
	Prefix   netip.Prefix
	Range    netip.Prefix
	Gateway  netip.Addr
	Reserved []netip.Addr
}

// Validate tells what is wrong with s.
func (s Subnet) Validate() error {
	p := s.Prefix
	if !p.IsValid() || p.Masked() != p {
		return errdef.New(errdef.InvalidArgument, "subnet %s: want a network address such as %s", p, p.Masked())
	}
	if hostBits := p.Addr().BitLen() - p.Bits(); hostBits < 2 {
		return errdef.New(errdef.InvalidArgument, "subnet %s: no room for a gateway and a container", p)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() {
		return errdef.New(errdef.InvalidArgument, "subnet %s: not a unicast network", p)
	}
	if r := s.Range; r.IsValid() && (r.Bits() < p.Bits() || !p.Contains(r.Addr())) {
		return errdef.New(errdef.InvalidArgument, "ip range %s: not inside subnet %s", r, p)
	}
	if !p.Contains(s.Gateway) || s.Gateway == p.Addr() || s.Gateway == Last(p) && p.Addr().Is4() {
		return errdef.New(errdef.InvalidArgument, "gateway %s: not a host address of subnet %s", s.Gateway, p)
	}
	for _, a := range s.Reserved {
		if !p.Contains(a) {
			return errdef.New(errdef.InvalidArgument, "auxiliary address %s: not inside subnet %s", a, p)
		}
	}
	return nil
}

// FirstHost is the gateway that a subnet gets when none is asked for.
func FirstHost(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// Pool hands out the addresses of one subnet.
type Pool struct {
	subnet Subnet
	area   netip.Prefix // what automatic addresses come from
	used   map[netip.Addr]bool
	cursor netip.Addr // the next candidate; it only moves forward, and wraps
}

// New makes the pool of a valid subnet; the gateway and reserved addresses are taken already.
func New(s Subnet) *Pool {
	p := &Pool{subnet: s, area: s.Prefix, used: map[netip.Addr]bool{s.Gateway: true}}
	if s.Range.IsValid() {
		p.area = s.Range.Masked()
	}
	for _, a := range s.Reserved {
		p.used[a] = true
	}
	p.cursor = p.area.Addr()
	return p
}

// Take returns the next free address.
func (p *Pool) Take() (netip.Addr, error) {
	tries := len(p.used) + 3 // the used ones, the network and broadcast addresses, and one that is free
	for range tries {
		a := p.cursor
		p.cursor = a.Next()
		if !p.cursor.IsValid() || !p.area.Contains(p.cursor) {
			p.cursor = p.area.Addr()
		}
		if p.usable(a) && !p.used[a] {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, errdef.New(errdef.Unavailable, "no free address left in %s: remove containers or create a network with a larger --subnet", p.area)
}

// Claim takes a particular address.
func (p *Pool) Claim(a netip.Addr) error {
	switch {
	case !p.usable(a):
		return errdef.New(errdef.InvalidArgument, "address %s: not a host address of subnet %s", a, p.subnet.Prefix)
	case p.used[a]:
		return errdef.New(errdef.Conflict, "address %s: already in use", a)
	}
	p.used[a] = true
	return nil
}

// Release gives an address back; one that is not taken is ignored, the gateway and reserved ones stay taken.
func (p *Pool) Release(a netip.Addr) {
	if a == p.subnet.Gateway {
		return
	}
	for _, r := range p.subnet.Reserved {
		if a == r {
			return
		}
	}
	delete(p.used, a)
}

// Used counts the addresses in use, the gateway and reserved ones included.
func (p *Pool) Used() int { return len(p.used) }

func (p *Pool) usable(a netip.Addr) bool {
	n := p.subnet.Prefix
	return a.IsValid() && n.Contains(a) && a != n.Addr() && (a.Is6() || a != Last(n))
}

// Last returns the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Block is a stretch of addresses that subnets of Bits are cut from.
type Block struct {
	Base netip.Prefix
	Bits int
}

// DefaultBlocks are where networks without --subnet come from: the same ones that Docker uses.
func DefaultBlocks() []Block {
	var out []Block
	for i := 17; i < 32; i++ {
		out = append(out, Block{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16), 16})
	}
	return append(out, Block{netip.MustParsePrefix("192.168.0.0/16"), 20})
}

// FreeSubnet returns the first subnet of the blocks that overlaps nothing taken.
func FreeSubnet(blocks []Block, taken []netip.Prefix) (netip.Prefix, error) {
	for _, b := range blocks {
		for p := netip.PrefixFrom(b.Base.Masked().Addr(), b.Bits); p.Addr().IsValid() && b.Base.Contains(p.Addr()); {
			hit := overlapping(p, taken)
			if !hit.IsValid() {
				return p, nil
			}
			end := Last(p)
			if hit.Bits() < p.Bits() {
				end = Last(hit)
			}
			p = netip.PrefixFrom(end.Next(), b.Bits)
		}
	}
	return netip.Prefix{}, errdef.New(errdef.Unavailable, "every default address pool overlaps a network or a route of this host: give --subnet")
}

func overlapping(p netip.Prefix, taken []netip.Prefix) netip.Prefix {
	for _, t := range taken {
		if t.Overlaps(p) {
			return t
		}
	}
	return netip.Prefix{}
}

// Overlap returns an error naming the first of taken that p overlaps.
func Overlap(p netip.Prefix, taken []netip.Prefix) error {
	if hit := overlapping(p, taken); hit.IsValid() {
		return errdef.New(errdef.Conflict, "subnet %s: overlaps %s, which is in use on this host", p, hit)
	}
	return nil
}

// ULA cuts a unique local /48 out of 40 random bits (RFC 4193).
func ULA(random [5]byte) (netip.Prefix, error) {
	a := [16]byte{0xfd}
	copy(a[1:6], random[:])
	p, err := netip.AddrFrom16(a).Prefix(48)
	if err != nil {
		return p, fmt.Errorf("unique local prefix: %w", err)
	}
	return p, nil
}
