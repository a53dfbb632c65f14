package network

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/network/ipam"
)

func newState(n Network) *netState {
	st := &netState{Network: n}
	for _, sub := range n.Subnets {
		st.pools = append(st.pools, ipam.New(sub.ipam()))
	}
	return st
}

func (n Subnet) ipam() ipam.Subnet {
	return ipam.Subnet{Prefix: n.Prefix, Range: n.Range, Gateway: n.Gateway, Reserved: slices.Collect(maps.Values(n.Aux))}
}

// take finds an address of one family in the network's subnets: want, or the next free. A network without the family gives
// nothing, unless want asks for it.
func (n *netState) take(want netip.Addr, v6 bool) (netip.Prefix, netip.Addr, error) {
	var err error
	for i, sub := range n.Subnets {
		if sub.Prefix.Addr().Is6() != v6 || want.IsValid() && !sub.Prefix.Contains(want) {
			continue
		}
		a := want
		if want.IsValid() {
			err = n.pools[i].Claim(want)
		} else {
			a, err = n.pools[i].Take()
		}
		if err == nil {
			return netip.PrefixFrom(a, sub.Prefix.Bits()), sub.Gateway, nil
		}
	}
	if err == nil && want.IsValid() {
		err = errdef.New(errdef.InvalidArgument, "network %s: address %s is in none of its subnets", n.Name, want)
	}
	if err != nil {
		return netip.Prefix{}, netip.Addr{}, fmt.Errorf("network %s: %w", n.Name, err)
	}
	return netip.Prefix{}, netip.Addr{}, nil
}

func (n *netState) pool(a netip.Addr) *ipam.Pool {
	for i, sub := range n.Subnets {
		if sub.Prefix.Contains(a) {
			return n.pools[i]
		}
	}
	return nil
}

func (n *netState) claim(a netip.Addr) error {
	if p := n.pool(a); p != nil {
		return p.Claim(a)
	}
	return errdef.New(errdef.NotFound, "network %s: address %s is in none of its subnets", n.Name, a)
}

func (n *netState) release(a netip.Addr) {
	if p := n.pool(a); p != nil {
		p.Release(a)
	}
}
