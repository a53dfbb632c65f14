package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/ipam"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Connect gives a container its network: a namespace with its links, and its ports on the host. When it fails, nothing stays.
func (s *Service) Connect(ctx context.Context, req Request) (*Sandbox, error) {
	if err := errors.Join(checkRequest(req), canceled(ctx)); err != nil {
		return nil, err
	}
	r, warnings, err := s.allocate(req)
	if err != nil {
		return nil, err
	}
	box, err := s.carryOut(req, r)
	if err != nil {
		return nil, errors.Join(err, s.withdraw(r))
	}
	box.Warnings = warnings
	return box, nil
}

// carryOut makes kernel objects and the record of an allocated container.
func (s *Service) carryOut(req Request, r *record) (*Sandbox, error) {
	files, err := s.files(req, r)
	if err != nil {
		return nil, err
	}
	var listen func() error
	var socks resolverSockets
	if r.Resolver {
		listen = func() (err error) { socks, err = listenDNS(); return err }
	}
	ns, err := apply.Namespace(s.host, &r.Plan, listen)
	if err != nil {
		socks.close()
		return nil, fmt.Errorf("network of container %s: %w", id.Short(r.Container), err)
	}
	s.mu.Lock()
	for i, l := range r.Plan.Links {
		r.Endpoints[i].HostLink = l.Name
	}
	s.mu.Unlock()
	err = s.publish(r)
	if err == nil {
		err = s.cfg.Records.Put(keySandbox+r.Container, r)
	}
	if err != nil {
		socks.close()
		ns.Close()
		return nil, err
	}
	if r.Resolver {
		s.serveDNS(r, socks)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Sandbox{Netns: ns, Endpoints: slices.Clone(r.Endpoints), Ports: slices.Clone(r.Ports), Hosts: files.hosts, Resolv: files.resolv}, nil
}

func (s *Service) publish(r *record) error {
	s.rules.Lock()
	defer s.rules.Unlock()
	es := owned(r)
	if err := apply.Publish(s.table, es); err != nil {
		return err
	}
	return forgetDatagrams(r)
}

// forgetDatagrams drops tracked UDP flows to the container's ports: packets of a flow older than the rule would pass it by.
func forgetDatagrams(r *record) error {
	var flows []netlink.Flow
	for _, e := range r.Plan.Elements {
		if e.Proto == plan.UDP {
			flows = append(flows, netlink.Flow{Proto: plan.UDP, Port: e.HostPort})
		}
	}
	if len(flows) == 0 {
		return nil
	}
	return netlink.ForgetFlows(flows)
}

// Disconnect takes a container's ports and addresses back. It does not touch the namespace: the kernel removes that with its
// last holder. A container that is not connected is success.
func (s *Service) Disconnect(ctx context.Context, containerID string) error {
	s.mu.Lock()
	r := s.boxes[containerID]
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	return s.withdraw(r)
}

// withdraw undoes an allocation and whatever was carried out of it. The record goes last, so that a crash in between leaves
// something that Reconcile sees.
func (s *Service) withdraw(r *record) error {
	s.mu.Lock()
	res := s.dns[r.Container]
	delete(s.dns, r.Container)
	s.mu.Unlock()
	if res != nil {
		res.Close()
	}
	s.rules.Lock()
	err := apply.Unpublish(s.table, owned(r))
	s.rules.Unlock()
	if err != nil {
		return fmt.Errorf("take back ports of container %s: %w", id.Short(r.Container), err)
	}
	go func() { // ends with one pass over the kernel's table; whoever publishes the port next does not rely on it
		if err := forgetDatagrams(r); err != nil {
			s.log.Warn("tracked flows", "container", id.Short(r.Container), "err", err)
		}
	}()
	if err := s.cfg.Records.Delete(keySandbox + r.Container); err != nil {
		return fmt.Errorf("forget network of container %s: %w", id.Short(r.Container), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[r.Container] == r {
		delete(s.boxes, r.Container)
		s.release(r)
	}
	return nil
}

// release gives addresses and ports back; mu is held.
func (s *Service) release(r *record) {
	for _, e := range r.Endpoints {
		if n := s.nets[e.NetworkID]; n != nil {
			n.release(e.IPv4.Addr())
			n.release(e.IPv6.Addr())
		}
	}
	for _, b := range r.Ports {
		s.ports.release(r.Container, b)
	}
}

// allocate decides everything about a container's network and takes the addresses and ports, in memory.
func (s *Service) allocate(req Request) (*record, []string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, nil, errdef.New(errdef.Unavailable, "the network service is closed")
	}
	if s.boxes[req.ContainerID] != nil {
		return nil, nil, errdef.New(errdef.Conflict, "container %s is connected already", id.Short(req.ContainerID))
	}
	r := &record{Container: req.ContainerID, Name: req.Name, Hostname: req.Hostname}
	warnings, err := s.decide(req, r)
	if err != nil {
		s.release(r)
		return nil, nil, err
	}
	s.boxes[req.ContainerID] = r
	return r, warnings, nil
}

// decide fills in r; what it took before an error stands in r. mu is held.
func (s *Service) decide(req Request, r *record) ([]string, error) {
	var as []plan.Attachment
	for i, e := range req.Endpoints {
		a, err := s.place(r, e, i, hostLink(req.ContainerID))
		if err != nil {
			return nil, err
		}
		as = append(as, a)
	}
	s.routeBy(r, as)
	pubs, warnings, err := s.publications(r, req.Ports)
	if err != nil {
		return nil, err
	}
	r.Plan = plan.Build(req.ContainerID, as, pubs, req.Sysctls)
	return warnings, nil
}

// hostLink names a container's link on the host: findable by ID, and within the 15 characters that there are.
func hostLink(containerID string) string { return "dh" + containerID[:10] }

// place takes addresses for one endpoint; mu is held.
func (s *Service) place(r *record, q EndpointRequest, i int, link string) (plan.Attachment, error) {
	n, err := s.find(q.Network)
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
		Network: n.Name, Bridge: n.Device, HostLink: link, Ifname: p.Interface, MAC: mac, MTU: s.mtu(n.Network),
		Isolated: !boolOption(n.Options, optICC, true), IPv4: p.IPv4, IPv6: p.IPv6,
	}, nil
}

func boolOption(opts map[string]string, key string, otherwise bool) bool {
	if v, err := strconv.ParseBool(opts[key]); err == nil {
		return v
	}
	return otherwise
}

// routeBy lets the first network that leads out carry the default route, per family.
func (s *Service) routeBy(r *record, as []plan.Attachment) {
	done4, done6 := false, false
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		n := s.nets[e.NetworkID]
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
func (s *Service) publications(r *record, ports []Port) (out []plan.Publication, warnings []string, err error) {
	var to4, to6 netip.Addr
	var n *netState
	for _, e := range r.Endpoints {
		if e.Default {
			to4, n = e.IPv4.Addr(), s.nets[e.NetworkID]
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
		addrs, err := s.hostAddrs(p, n, to6.IsValid())
		if err != nil {
			return nil, nil, err
		}
		port, err := s.ports.publish(r.Container, proto, p, addrs)
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
func (s *Service) hostAddrs(p Port, n *netState, has6 bool) ([]netip.Addr, error) {
	ip := p.HostIP
	if !ip.IsValid() && n.Options[optHostIP] != "" {
		ip = netip.MustParseAddr(n.Options[optHostIP]) // checked by Create
	}
	if !ip.IsValid() {
		ip = s.cfg.PublishAddr
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

// String prints the port the way it was asked for.
func (p Port) String() string {
	var b strings.Builder
	if p.HostIP.Is6() {
		b.WriteString("[" + p.HostIP.String() + "]:")
	} else if p.HostIP.IsValid() {
		b.WriteString(p.HostIP.String() + ":")
	}
	if p.HostPort != 0 {
		b.WriteString(strconv.Itoa(int(p.HostPort)))
	}
	if p.HostPortEnd > p.HostPort {
		b.WriteString("-" + strconv.Itoa(int(p.HostPortEnd)))
	}
	if b.Len() > 0 {
		b.WriteString(":")
	}
	b.WriteString(strconv.Itoa(int(p.ContainerPort)))
	if p.Proto != "" && p.Proto != "tcp" {
		b.WriteString("/" + p.Proto)
	}
	return b.String()
}

// checkRequest refuses what can be seen to be wrong before anything is taken.
func checkRequest(q Request) error {
	if len(q.ContainerID) < 12 {
		return errdef.New(errdef.InvalidArgument, "container ID %q: too short", q.ContainerID)
	}
	for _, p := range q.Ports {
		if _, ok := plan.ProtoNumber(p.Proto); !ok {
			return errdef.New(errdef.InvalidArgument, "-p %s: unknown protocol %q: use tcp, udp or sctp", p, p.Proto)
		}
		if p.ContainerPort == 0 || p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort || p.HostPort == 0 && p.HostPortEnd != 0 {
			return errdef.New(errdef.InvalidArgument, "-p %s: no such port or range", p)
		}
	}
	for _, e := range q.Endpoints {
		if e.MAC != nil && (len(e.MAC) != 6 || e.MAC[0]&1 != 0) {
			return errdef.New(errdef.InvalidArgument, "mac address %s: want six bytes, not a multicast address", e.MAC)
		}
	}
	return nil
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

// OpenNetns returns the namespace of a process, for --network container:X.
func OpenNetns(pid int) (*os.File, error) { return netlink.OpenNetns(pid) }
