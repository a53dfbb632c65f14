// Package plan owns what a container's network shall be, as data: links, addresses, routes, sysctls and nft elements.
//
// It promises that the same input gives the same plan, that every object carries the flag that asked for it, and that a plan
// prints one object per line. It is pure: it must never look at the host or change it; package apply does.
package plan

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// The nft maps that published ports live in: by family, and by whether a host address was named.
const (
	Publish4     = "publish4"
	Publish6     = "publish6"
	Publish4Addr = "publish4addr"
	Publish6Addr = "publish6addr"
)

// Attachment is one network that the container joins, with everything already decided.
type Attachment struct {
	Network  string // its name, for Why
	Bridge   string
	HostLink string
	Ifname   string
	MAC      net.HardwareAddr
	MTU      int
	Isolated bool         // containers of the network must not reach each other
	IPv4     netip.Prefix // invalid: none
	IPv6     netip.Prefix
	Gateway4 netip.Addr // valid when the default route goes this way
	Gateway6 netip.Addr
}

// Publication is one host port that leads to the container. An unspecified HostIP means every address of its family.
type Publication struct {
	Proto    uint8
	HostIP   netip.Addr
	HostPort uint16
	To       netip.AddrPort
	Why      string
}

// Plan is everything that the kernel has to hold for one container.
type Plan struct {
	Container string    `json:"container"`
	Sysctls   []Sysctl  `json:"sysctls,omitempty"`
	Links     []Link    `json:"links,omitempty"`
	Addrs     []Addr    `json:"addrs,omitempty"`
	Routes    []Route   `json:"routes,omitempty"`
	Elements  []Element `json:"elements,omitempty"`
}

// Sysctl is a file under /proc/sys of the container's namespace.
type Sysctl struct {
	Key   string `json:"key"` // net/ipv6/conf/default/accept_ra
	Value string `json:"value"`
	Why   string `json:"why"`
}

// Link is a veth pair: Name on the host in Bridge, Peer in the container.
type Link struct {
	Name     string `json:"name"`
	Peer     string `json:"peer"`
	Bridge   string `json:"bridge"`
	MAC      string `json:"mac"`
	MTU      int    `json:"mtu"`
	Isolated bool   `json:"isolated,omitempty"`
	Why      string `json:"why"`
}

// Addr is an address of a link inside the container.
type Addr struct {
	Link   string       `json:"link"`
	Prefix netip.Prefix `json:"prefix"`
	Why    string       `json:"why"`
}

// Route is a route inside the container.
type Route struct {
	Link string       `json:"link"`
	Dst  netip.Prefix `json:"dst"`
	Via  netip.Addr   `json:"via"`
	Why  string       `json:"why"`
}

// Element is an entry of a publishing map on the host.
type Element struct {
	Map      string         `json:"map"`
	Proto    uint8          `json:"proto"`
	HostIP   netip.Addr     `json:"host_ip"`
	HostPort uint16         `json:"host_port"`
	To       netip.AddrPort `json:"to"`
	Why      string         `json:"why"`
}

// Build makes the plan of a container. extra are sysctls that the user asked for; they come last, so they win.
func Build(container string, as []Attachment, ps []Publication, extra map[string]string) Plan {
	p := Plan{Container: container}
	p.Sysctls = sysctls(as, extra)
	for _, a := range as {
		why := "--network " + a.Network
		p.Links = append(p.Links, Link{Name: a.HostLink, Peer: a.Ifname, Bridge: a.Bridge, MAC: a.MAC.String(), MTU: a.MTU, Isolated: a.Isolated, Why: why})
		for _, x := range []netip.Prefix{a.IPv4, a.IPv6} {
			if x.IsValid() {
				p.Addrs = append(p.Addrs, Addr{a.Ifname, x, why})
			}
		}
		if a.Gateway4.IsValid() {
			p.Routes = append(p.Routes, Route{a.Ifname, netip.PrefixFrom(netip.IPv4Unspecified(), 0), a.Gateway4, why + ": way out"})
		}
		if a.Gateway6.IsValid() {
			p.Routes = append(p.Routes, Route{a.Ifname, netip.PrefixFrom(netip.IPv6Unspecified(), 0), a.Gateway6, why + ": way out"})
		}
	}
	for _, x := range ps {
		p.Elements = append(p.Elements, Element{mapOf(x.HostIP), x.Proto, x.HostIP, x.HostPort, x.To, x.Why})
	}
	return p
}

// sysctls decides about IPv6: router advertisements are never believed, and where no network has IPv6 new devices get none.
func sysctls(as []Attachment, extra map[string]string) []Sysctl {
	var out []Sysctl
	v6 := false
	for _, a := range as {
		v6 = v6 || a.IPv6.IsValid()
	}
	switch {
	case v6:
		out = append(out, Sysctl{"net/ipv6/conf/default/accept_ra", "0", "router advertisements are not believed"})
	case len(as) > 0:
		out = append(out, Sysctl{"net/ipv6/conf/default/disable_ipv6", "1", "no network of the container has IPv6"})
	}
	for _, k := range sorted(extra) {
		out = append(out, Sysctl{strings.ReplaceAll(k, ".", "/"), extra[k], "--sysctl " + k})
	}
	return out
}

func mapOf(host netip.Addr) string {
	switch {
	case host.Is4() && host.IsUnspecified():
		return Publish4
	case host.Is4():
		return Publish4Addr
	case host.IsUnspecified():
		return Publish6
	}
	return Publish6Addr
}

// String prints one object per line with its reason behind a #.
func (p Plan) String() string {
	var b strings.Builder
	line := func(why, format string, args ...any) {
		fmt.Fprintf(&b, "%-72s # %s\n", fmt.Sprintf(format, args...), why)
	}
	for _, s := range p.Sysctls {
		line(s.Why, "sysctl %s = %s", s.Key, s.Value)
	}
	for _, l := range p.Links {
		isolated := ""
		if l.Isolated {
			isolated = " isolated"
		}
		line(l.Why, "veth %s port of %s, peer %s mac %s mtu %d%s", l.Name, l.Bridge, l.Peer, l.MAC, l.MTU, isolated)
	}
	for _, a := range p.Addrs {
		line(a.Why, "address %s on %s", a.Prefix, a.Link)
	}
	for _, r := range p.Routes {
		line(r.Why, "route %s via %s on %s", r.Dst, r.Via, r.Link)
	}
	for _, e := range p.Elements {
		line(e.Why, "element %s %s %s -> %s", e.Map, ProtoName(e.Proto), netip.AddrPortFrom(e.HostIP, e.HostPort), e.To)
	}
	return b.String()
}
