package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Join adds a connected, running container to one more network; pid is a process in its namespace. Calls about one
// container must not overlap. Its published ports stay where they are.
func (s *Service) Join(ctx context.Context, containerID string, pid int, q EndpointRequest) (Endpoint, error) {
	if err := errors.Join(checkRequest(Request{ContainerID: containerID, Endpoints: []EndpointRequest{q}}), canceled(ctx)); err != nil {
		return Endpoint{}, err
	}
	ns, err := netlink.OpenNetns(pid)
	if err != nil {
		return Endpoint{}, err
	}
	defer ns.Close()
	s.mu.Lock()
	r, p, err := s.extend(containerID, q)
	s.mu.Unlock()
	if err != nil {
		return Endpoint{}, err
	}
	e := r.Endpoints[len(r.Endpoints)-1]
	if err = apply.Attach(s.host, ns, &p); err == nil {
		s.mu.Lock()
		r.Endpoints[len(r.Endpoints)-1].HostLink = p.Links[0].Name
		r.Plan.Links, r.Plan.Addrs, r.Plan.Routes = append(r.Plan.Links, p.Links...), append(r.Plan.Addrs, p.Addrs...), append(r.Plan.Routes, p.Routes...)
		e = r.Endpoints[len(r.Endpoints)-1]
		s.mu.Unlock()
		err = s.cfg.Records.Put(keySandbox+containerID, r)
	}
	if err == nil && r.Resolver && !s.serving(containerID) {
		var socks resolverSockets
		if err = netlink.Inside(ns, func() (err error) { socks, err = listenDNS(); return err }); err == nil {
			s.serveDNS(r, socks)
		}
	}
	if err != nil {
		return Endpoint{}, errors.Join(fmt.Errorf("join container %s to network %s: %w", id.Short(containerID), q.Network, err), s.detach(r, e))
	}
	return e, nil
}

// extend takes addresses for one more endpoint and plans it; mu is held.
func (s *Service) extend(containerID string, q EndpointRequest) (*record, plan.Plan, error) {
	r := s.boxes[containerID]
	if r == nil {
		return nil, plan.Plan{}, errdef.New(errdef.NotFound, "container %s has no network", id.Short(containerID))
	}
	n, err := s.find(q.Network)
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
	a, err := s.place(r, q, next, hostLink(containerID))
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

// Leave takes a running container off a network. Ports that led to its address there are closed, and when its way out went
// there, another network of it takes that over.
func (s *Service) Leave(ctx context.Context, containerID string, pid int, ref string) error {
	s.mu.Lock()
	r, n, err := s.boxes[containerID], (*netState)(nil), error(nil)
	if n, err = s.find(ref); err != nil {
		s.mu.Unlock()
		return err
	}
	i := -1
	if r != nil {
		i = slices.IndexFunc(r.Endpoints, func(e Endpoint) bool { return e.NetworkID == n.ID })
	}
	if i < 0 {
		s.mu.Unlock()
		return errdef.New(errdef.NotFound, "container %s is not on network %s", id.Short(containerID), n.Name)
	}
	e := r.Endpoints[i]
	s.mu.Unlock()
	if err := s.detach(r, e); err != nil {
		return err
	}
	if err := s.reroute(r, pid, e); err != nil {
		return err
	}
	return s.cfg.Records.Put(keySandbox+containerID, r)
}

// detach removes one endpoint from kernel and tables. Here the veth is deleted and waited for: the container lives on, so
// nothing else would take it away, and its address must not be given out while it still answers.
func (s *Service) detach(r *record, e Endpoint) error {
	mine := func(a netip.Addr) bool { return a == e.IPv4.Addr() || a == e.IPv6.Addr() }
	var es []apply.Owned
	for _, o := range owned(r) {
		if mine(o.To.Addr()) {
			es = append(es, o)
		}
	}
	s.rules.Lock()
	err := apply.Unpublish(s.table, es)
	s.rules.Unlock()
	if err == nil {
		err = s.host.Delete(e.HostLink)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range es {
		b := Bound{Proto: plan.ProtoName(o.Proto), HostIP: o.HostIP, HostPort: o.HostPort, ContainerPort: o.To.Port()}
		s.ports.release(r.Container, b)
		r.Ports = slices.DeleteFunc(r.Ports, func(x Bound) bool { return x == b })
	}
	p := &r.Plan
	p.Elements = slices.DeleteFunc(p.Elements, func(x plan.Element) bool { return mine(x.To.Addr()) })
	p.Links = slices.DeleteFunc(p.Links, func(l plan.Link) bool { return l.Peer == e.Interface })
	p.Addrs = slices.DeleteFunc(p.Addrs, func(a plan.Addr) bool { return a.Link == e.Interface })
	p.Routes = slices.DeleteFunc(p.Routes, func(x plan.Route) bool { return x.Link == e.Interface })
	r.Endpoints = slices.DeleteFunc(r.Endpoints, func(x Endpoint) bool { return x.ID == e.ID })
	if n := s.nets[e.NetworkID]; n != nil {
		n.release(e.IPv4.Addr())
		n.release(e.IPv6.Addr())
	}
	return nil
}

// reroute gives the way out to another endpoint when the one that left had it.
func (s *Service) reroute(r *record, pid int, left Endpoint) error {
	if !left.Default {
		return nil
	}
	s.mu.Lock()
	i := slices.IndexFunc(r.Endpoints, func(e Endpoint) bool { return e.Gateway4.IsValid() })
	if i < 0 {
		s.mu.Unlock()
		return nil
	}
	r.Endpoints[i].Default = true
	e := r.Endpoints[i]
	route := plan.Route{Link: e.Interface, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: e.Gateway4, Why: "--network " + e.NetworkName + ": way out"}
	r.Plan.Routes = append(r.Plan.Routes, route)
	s.mu.Unlock()
	ns, err := netlink.OpenNetns(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.OpenAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.Link(e.Interface)
	if err != nil {
		return err
	}
	return h.AddRoute(l.Index, route.Dst, route.Via)
}
