package netlink

import (
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flow selects tracked connections: of protocol Proto (IPPROTO_*), whose original destination port is Port, or (when Port is
// 0) whose reply comes from Addr.
type Flow struct {
	Proto uint8
	Port  uint16
	Addr  netip.Addr
}

// MatchConntrackFlow is the library's hook; it reports whether the flow is one of those selected.
func (f Flow) MatchConntrackFlow(c *vnl.ConntrackFlow) bool {
	if f.Proto != 0 && c.Forward.Protocol != f.Proto {
		return false
	}
	if f.Port != 0 {
		return c.Forward.DstPort == f.Port
	}
	src, ok := netip.AddrFromSlice(c.Reverse.SrcIP)
	return ok && src.Unmap() == f.Addr
}

// ForgetFlows drops tracked connections of the calling thread's namespace, so that the next packet of a datagram protocol
// meets the rules anew. It reads the whole table: use it for UDP, where no handshake starts a new entry.
func ForgetFlows(flows []Flow) error {
	h, err := vnl.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	defer h.Close()
	filters := make([]vnl.CustomConntrackFilter, len(flows))
	for i, f := range flows {
		filters[i] = f
	}
	for _, family := range []vnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := h.ConntrackDeleteFilters(vnl.ConntrackTable, family, filters...); err != nil {
			return fmt.Errorf("forget tracked flows: %w", err)
		}
	}
	return nil
}
