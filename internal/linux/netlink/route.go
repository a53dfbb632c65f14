package netlink

import (
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is one route of the main table. Dst of a default route has no bits; Via is invalid where the destination is on the link.
type Route struct {
	Dst   netip.Prefix
	Via   netip.Addr
	Index int // of the device
}

// Main returns the routes of the namespace's main table, default routes included.
func (h *Handle) Main() ([]Route, error) {
	var out []Route
	for family, zero := range map[int]netip.Addr{unix.AF_INET: netip.IPv4Unspecified(), unix.AF_INET6: netip.IPv6Unspecified()} {
		rs, err := whole(func() ([]vnl.Route, error) { return h.h.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range rs {
			dst, ok := prefixOf(r.Dst)
			if !ok {
				dst = netip.PrefixFrom(zero, 0)
			}
			via, _ := netip.AddrFromSlice(r.Gw)
			if family == unix.AF_INET {
				via = via.Unmap()
			}
			out = append(out, Route{Dst: dst, Via: via, Index: r.LinkIndex})
		}
	}
	return out, nil
}
