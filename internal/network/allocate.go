package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// allocator decides a container's addresses, routes and host ports, and takes them, in memory only.
type allocator struct{ *core }

// allocate decides everything about a container's network and takes the addresses and ports, in memory.
func (d allocator) allocate(req Request) (*record, []string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return nil, nil, errdef.New(errdef.Unavailable, "the network service is closed")
	}
	if d.boxes[req.ContainerID] != nil {
		return nil, nil, errdef.New(errdef.Conflict, "container %s is connected already", id.Short(req.ContainerID))
	}
	r := &record{Container: req.ContainerID, Name: req.Name, Hostname: req.Hostname}
	warnings, err := d.decide(req, r)
	if err != nil {
		d.release(r)
		return nil, nil, err
	}
	d.boxes[req.ContainerID] = r
	return r, warnings, nil
}

// decide fills in r; what it took before an error stands in r. mu is held.
func (d allocator) decide(req Request, r *record) ([]string, error) {
	var as []plan.Attachment
	for i, e := range req.Endpoints {
		a, err := d.place(r, e, i, hostLink(req.ContainerID))
		if err != nil {
			return nil, err
		}
		as = append(as, a)
	}
	d.routeBy(r, as)
	pubs, warnings, err := d.publications(r, req.Ports)
	if err != nil {
		return nil, err
	}
	r.Plan = plan.Build(req.ContainerID, as, pubs, req.Sysctls)
	return warnings, nil
}

// release gives addresses and ports back; mu is held.
func (d allocator) release(r *record) {
	for _, e := range r.Endpoints {
		if n := d.nets[e.NetworkID]; n != nil {
			n.release(e.IPv4.Addr())
			n.release(e.IPv6.Addr())
		}
	}
	for _, b := range r.Ports {
		d.ports.release(r.Container, b)
	}
}

// place takes addresses for one endpoint; mu is held.
func (d allocator) place(r *record, q EndpointRequest, i int, link string) (plan.Attachment, error) {
	n, err := d.find(q.Network)
	if err != nil {
		return plan.Attachment{}, err
	}
	if n.Driver != DriverBridge {
		return plan.Attachment{}, errdef.New(errdef.InvalidArgument, "network %s: cannot be combined with other networks", n.Name)
	}
	for _, e := range r.Endpoints {
		if e.NetworkID == n.ID {
			return plan.Attachment{}, errdef.New(errdef.InvalidArgument, "network %s: named twice", n.Name)
		}
	}
	if n.Predefined && (len(q.Aliases) > 0 || q.IPv4.IsValid() || q.IPv6.IsValid()) {
		return plan.Attachment{}, errdef.New(errdef.InvalidArgument, "network %s: aliases and chosen addresses need a user-defined network", n.Name)
	}
	prefix := n.Options[optPrefix]
	if prefix == "" {
		prefix = "eth"
	}
	e := Endpoint{ID: id.New(), NetworkID: n.ID, NetworkName: n.Name, Interface: prefix + strconv.Itoa(i), HostLink: link}
	e.IPv4, e.Gateway4, err = n.take(q.IPv4, false)
	if err != nil {
		return plan.Attachment{}, err
	}
	r.Endpoints = append(r.Endpoints, e) // from here on release gives back what was taken
	p := &r.Endpoints[len(r.Endpoints)-1]
	if p.IPv6, p.Gateway6, err = n.take(q.IPv6, true); err != nil {
		return plan.Attachment{}, err
	}
	mac := q.MAC
	if mac == nil {
		v4 := p.IPv4.Addr().As4()
		mac = net.HardwareAddr{0x02, 0x42, v4[0], v4[1], v4[2], v4[3]}
	}
	p.MAC = mac.String()
	if !n.Predefined {
		p.Names = slices.Concat([]string{r.Name, id.Short(r.Container), r.Hostname}, q.Aliases)
		r.Resolver = true
	}
	return plan.Attachment{
		Network: n.Name, Bridge: n.Device, HostLink: link, Ifname: p.Interface, MAC: mac, MTU: d.mtu(n.Network),
		Isolated: !boolOption(n.Options, optICC, true), IPv4: p.IPv4, IPv6: p.IPv6,
	}, nil
}

// routeBy lets the first network that leads out carry the default route, per family.
func (d allocator) routeBy(r *record, as []plan.Attachment) {
	done4, done6 := false, false
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		n := d.nets[e.NetworkID]
		if n.Internal {
			e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
			continue
		}
		if !done4 && e.Gateway4.IsValid() {
			as[i].Gateway4, done4, e.Default = e.Gateway4, true, true
		}
		if !done6 && e.Gateway6.IsValid() {
			as[i].Gateway6, done6 = e.Gateway6, true
		}
	}
}

// publications reserves the host ports; mu is held.
func (d allocator) publications(r *record, ports []Port) (out []plan.Publication, warnings []string, err error) {
	var to4, to6 netip.Addr
	var n *netState
	for _, e := range r.Endpoints {
		if e.Default {
			to4, n = e.IPv4.Addr(), d.nets[e.NetworkID]
		}
		if !to6.IsValid() && e.Gateway6.IsValid() {
			to6 = e.IPv6.Addr()
		}
	}
	if len(ports) > 0 && n == nil {
		return nil, []string{"published ports are discarded: no network of the container leads out"}, nil
	}
	for _, p := range ports {
		proto, _ := plan.ProtoNumber(p.Proto)
		addrs, err := d.hostAddrs(p, n, to6.IsValid())
		if err != nil {
			return nil, nil, err
		}
		port, err := d.ports.publish(r.Container, proto, p, addrs)
		if err != nil {
			return nil, nil, err
		}
		for _, a := range addrs {
			to := netip.AddrPortFrom(to4, p.ContainerPort)
			if a.Is6() {
				to = netip.AddrPortFrom(to6, p.ContainerPort)
			}
			r.Ports = append(r.Ports, Bound{plan.ProtoName(proto), a, port, p.ContainerPort})
			out = append(out, plan.Publication{Proto: proto, HostIP: a, HostPort: port, To: to, Why: "-p " + p.String()})
		}
	}
	return out, nil, nil
}

// hostAddrs says on which addresses of the host a port appears.
func (d allocator) hostAddrs(p Port, n *netState, has6 bool) ([]netip.Addr, error) {
	ip := p.HostIP
	if !ip.IsValid() && n.Options[optHostIP] != "" {
		ip = netip.MustParseAddr(n.Options[optHostIP]) // checked by Create
	}
	if !ip.IsValid() {
		ip = d.cfg.PublishAddr
	}
	ip = ip.Unmap()
	switch {
	case ip.IsValid() && ip.Is6() && !has6:
		return nil, errdef.New(errdef.InvalidArgument, "-p %s: the container has no IPv6 address: use a network with --ipv6", p)
	case ip.IsValid():
		return []netip.Addr{ip}, nil
	case has6:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	}
	return []netip.Addr{netip.IPv4Unspecified()}, nil
}

// extend takes addresses for one more endpoint and plans it; mu is held.
func (d allocator) extend(containerID string, q EndpointRequest) (*record, plan.Plan, error) {
	r := d.boxes[containerID]
	if r == nil {
		return nil, plan.Plan{}, errdef.New(errdef.NotFound, "container %s has no network", id.Short(containerID))
	}
	n, err := d.find(q.Network)
	if err != nil {
		return nil, plan.Plan{}, err
	}
	next := 0
	out, out6 := false, false
	for _, e := range r.Endpoints {
		if e.NetworkID == n.ID {
			return nil, plan.Plan{}, errdef.New(errdef.Conflict, "container %s is on network %s already", id.Short(containerID), n.Name)
		}
		var i int
		if _, err := fmt.Sscanf(strings.TrimLeft(e.Interface, "abcdefghijklmnopqrstuvwxyz"), "%d", &i); err == nil {
			next = max(next, i+1)
		}
		out, out6 = out || e.Default, out6 || e.Gateway6.IsValid()
	}
	known := len(r.Endpoints)
	a, err := d.place(r, q, next, hostLink(containerID))
	if err != nil {
		for _, e := range r.Endpoints[known:] {
			n.release(e.IPv4.Addr())
		}
		r.Endpoints = r.Endpoints[:known]
		return nil, plan.Plan{}, err
	}
	e := &r.Endpoints[known]
	if n.Internal {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	if !out && e.Gateway4.IsValid() {
		e.Default, a.Gateway4 = true, e.Gateway4
	}
	if !out6 {
		a.Gateway6 = e.Gateway6
	}
	p := plan.Build(containerID, []plan.Attachment{a}, nil, nil)
	if a.IPv6.IsValid() { // the namespace may have been made without
		p.Sysctls = append(p.Sysctls, plan.Sysctl{Key: "net/ipv6/conf/default/disable_ipv6", Value: "0", Why: "--network " + n.Name})
	}
	return r, p, nil
}

// hostLink names a container's link on the host: findable by ID, and within the 15 characters that there are.
func hostLink(containerID string) string { return "dh" + containerID[:10] }
