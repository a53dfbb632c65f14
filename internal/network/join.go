package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Join adds a connected, running container to one more network; pid is a process in its namespace. Calls about one
// container must not overlap. Its published ports stay where they are.
func (c connector) Join(ctx context.Context, containerID string, pid int, q EndpointRequest) (Endpoint, error) {
	if err := errors.Join(checkRequest(Request{ContainerID: containerID, Endpoints: []EndpointRequest{q}}), canceled(ctx)); err != nil {
		return Endpoint{}, err
	}
	ns, err := netlink.OpenNetns(pid)
	if err != nil {
		return Endpoint{}, err
	}
	defer ns.Close()
	c.mu.Lock()
	r, p, err := c.places.extend(containerID, q)
	c.mu.Unlock()
	if err != nil {
		return Endpoint{}, err
	}
	e := r.Endpoints[len(r.Endpoints)-1]
	if err = apply.Attach(c.host, ns, &p); err == nil {
		c.mu.Lock()
		r.Endpoints[len(r.Endpoints)-1].HostLink = p.Links[0].Name
		r.Plan.Links, r.Plan.Addrs, r.Plan.Routes = append(r.Plan.Links, p.Links...), append(r.Plan.Addrs, p.Addrs...), append(r.Plan.Routes, p.Routes...)
		e = r.Endpoints[len(r.Endpoints)-1]
		c.mu.Unlock()
		err = c.cfg.Records.Put(keySandbox+containerID, r)
	}
	if err == nil && r.Resolver && !c.names.serving(containerID) {
		var socks resolverSockets
		if err = netlink.Inside(ns, func() (err error) { socks, err = listenDNS(); return err }); err == nil {
			c.names.serve(r, socks)
		}
	}
	if err != nil {
		return Endpoint{}, errors.Join(fmt.Errorf("join container %s to network %s: %w", id.Short(containerID), q.Network, err), c.detach(r, e))
	}
	return e, nil
}

// Leave takes a running container off a network. Ports that led to its address there are closed, and when its way out went
// there, another network of it takes that over.
func (c connector) Leave(ctx context.Context, containerID string, pid int, ref string) error {
	c.mu.Lock()
	r, n, err := c.boxes[containerID], (*netState)(nil), error(nil)
	if n, err = c.find(ref); err != nil {
		c.mu.Unlock()
		return err
	}
	i := -1
	if r != nil {
		i = slices.IndexFunc(r.Endpoints, func(e Endpoint) bool { return e.NetworkID == n.ID })
	}
	if i < 0 {
		c.mu.Unlock()
		return errdef.New(errdef.NotFound, "container %s is not on network %s", id.Short(containerID), n.Name)
	}
	e, had := r.Endpoints[i], slices.Clone(r.Plan.Routes)
	c.mu.Unlock()
	if err := c.detach(r, e); err != nil {
		return err
	}
	if err := c.reroute(r, pid, e, had); err != nil {
		return err
	}
	return c.cfg.Records.Put(keySandbox+containerID, r)
}

// detach removes one endpoint from kernel and tables. Here the veth is deleted and waited for: the container lives on, so
// nothing else would take it away, and its address must not be given out while it still answers.
func (c connector) detach(r *record, e Endpoint) error {
	mine := func(a netip.Addr) bool { return a == e.IPv4.Addr() || a == e.IPv6.Addr() }
	var es []apply.Owned
	for _, o := range owned(r) {
		if mine(o.To.Addr()) {
			es = append(es, o)
		}
	}
	c.rules.Lock()
	err := apply.Unpublish(c.table, es)
	c.rules.Unlock()
	if err == nil {
		err = c.host.Delete(e.HostLink)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range es {
		b := Bound{Proto: plan.ProtoName(o.Proto), HostIP: o.HostIP, HostPort: o.HostPort, ContainerPort: o.To.Port()}
		c.ports.release(r.Container, b)
		r.Ports = slices.DeleteFunc(r.Ports, func(x Bound) bool { return x == b })
	}
	p := &r.Plan
	p.Elements = slices.DeleteFunc(p.Elements, func(x plan.Element) bool { return mine(x.To.Addr()) })
	p.Links = slices.DeleteFunc(p.Links, func(l plan.Link) bool { return l.Peer == e.Interface })
	p.Addrs = slices.DeleteFunc(p.Addrs, func(a plan.Addr) bool { return a.Link == e.Interface })
	p.Routes = slices.DeleteFunc(p.Routes, func(x plan.Route) bool { return x.Link == e.Interface })
	r.Endpoints = slices.DeleteFunc(r.Endpoints, func(x Endpoint) bool { return x.ID == e.ID })
	if n := c.nets[e.NetworkID]; n != nil {
		n.release(e.IPv4.Addr())
		n.release(e.IPv6.Addr())
	}
	return nil
}

// reroute gives the ways out to other endpoints when the one that left had them, per family.
func (c connector) reroute(r *record, pid int, left Endpoint, had []plan.Route) error {
	c.mu.Lock()
	var routes []plan.Route
	for _, old := range had {
		six := old.Dst.Addr().Is6()
		i := slices.IndexFunc(r.Endpoints, func(e Endpoint) bool { return six && e.Gateway6.IsValid() || !six && e.Gateway4.IsValid() })
		if old.Link != left.Interface || old.Dst.Bits() != 0 || i < 0 {
			continue
		}
		e := &r.Endpoints[i]
		via := e.Gateway6
		if !six {
			e.Default, via = true, e.Gateway4
		}
		routes = append(routes, plan.Route{Link: e.Interface, Dst: old.Dst, Via: via, Why: "--network " + e.NetworkName + ": way out"})
	}
	r.Plan.Routes = append(r.Plan.Routes, routes...)
	c.mu.Unlock()
	if len(routes) == 0 {
		return nil
	}
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
	for _, route := range routes {
		l, err := h.Link(route.Link)
		if err != nil {
			return err
		}
		if err := h.AddRoute(l.Index, route.Dst, route.Via); err != nil {
			return err
		}
	}
	return nil
}
