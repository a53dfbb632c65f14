// Package network owns the engine's view of networks: the Docker API's words for them, and a container's network for one run.
//
// It promises that what a container asks of its network is either carried out or refused by name. It must never touch a link or
// a rule itself.
package network

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	dnet "github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/network"
)

// Config says where networks are kept and what they are called on the host; "" are the network package's names.
type Config struct {
	Records       network.Records
	Log           *slog.Logger
	Table, Bridge string
	Events        *event.Bus
}

// Service implements api.Networks and container.Network.
type Service struct {
	Net    *network.Service
	Events *event.Bus
	// Find returns the record of a container by name or ID.
	Find func(ref string) (*api.Container, error)
}

// Open opens the networks of an engine. Find is set before the first call.
func Open(c Config) (*Service, error) {
	n, err := network.Open(network.Config{Records: c.Records, Log: c.Log, Table: c.Table, Bridge: c.Bridge})
	if err != nil {
		return nil, err
	}
	return &Service{Net: n, Events: c.Events}, nil
}

// Reconcile puts the kernel right for the containers that live, by ID, each with a process that is in its namespace.
func (s *Service) Reconcile(ctx context.Context, live map[string]int) error {
	var boxes []network.LiveContainer
	for id, pid := range live {
		boxes = append(boxes, network.LiveContainer{ID: id, Pid: pid})
	}
	return s.Net.Reconcile(ctx, boxes)
}

// Close lets the networks go; containers keep theirs.
func (s *Service) Close() { s.Net.Close() }

// Check implements container.Network.
func (s *Service) Check(c *api.Container) error {
	m := c.HostConfig.NetworkMode
	switch {
	case m.IsHost() || m.IsNone() || m.IsContainer():
		if m.IsContainer() && (len(c.HostConfig.PortBindings) > 0 || c.HostConfig.PublishAllPorts) {
			return errdef.New(errdef.InvalidArgument, "conflicting options: port publishing and the container type network mode")
		}
		if m.IsContainer() && len(c.HostConfig.ExtraHosts) > 0 {
			return errdef.New(errdef.InvalidArgument, "conflicting options: --add-host and the container type network mode")
		}
		if len(c.Networks) > 1 {
			return errdef.New(errdef.InvalidArgument, "conflicting options: network mode %s and other networks", m)
		}
		return nil
	}
	_, err := s.request(c)
	return err
}

// Connect implements container.Network.
func (s *Service) Connect(ctx context.Context, c *api.Container) (*container.Connection, error) {
	req, err := s.request(c)
	if err != nil {
		return nil, err
	}
	box, err := s.Net.Connect(ctx, req)
	if err != nil {
		return nil, err
	}
	out := &container.Connection{Netns: box.Netns, Hosts: box.Hosts, Resolv: box.Resolv, Ports: portMap(box.Ports), Endpoints: map[string]*dnet.EndpointSettings{}}
	for _, e := range box.Endpoints {
		out.Endpoints[e.NetworkName] = settings(e, asked(c, e))
	}
	if c.HostConfig.NetworkMode.IsNone() {
		out.Endpoints[dnet.NetworkNone] = s.plain(dnet.NetworkNone)
	}
	return out, nil
}

// portMap lists published ports in Docker's form.
func portMap(bound []network.Bound) dnet.PortMap {
	out := dnet.PortMap{}
	for _, b := range bound {
		if p, ok := dnet.PortFrom(b.ContainerPort, dnet.IPProtocol(b.Proto)); ok {
			out[p] = append(out[p], dnet.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))})
		}
	}
	return out
}

// Disconnect implements container.Network.
func (s *Service) Disconnect(ctx context.Context, id string) error { return s.Net.Disconnect(ctx, id) }

// asked finds what the user asked of the network of an endpoint.
func asked(c *api.Container, e network.Endpoint) *dnet.EndpointSettings {
	for n, a := range c.Networks {
		if n == e.NetworkName || n == e.NetworkID || n == dnet.NetworkDefault && e.NetworkName == dnet.NetworkBridge {
			return a
		}
	}
	return nil
}

func settings(e network.Endpoint, a *dnet.EndpointSettings) *dnet.EndpointSettings {
	out := &dnet.EndpointSettings{}
	if a != nil {
		out = a.Copy()
	}
	mac, _ := net.ParseMAC(e.MAC)
	out.NetworkID, out.EndpointID, out.MacAddress = e.NetworkID, e.ID, dnet.HardwareAddr(mac)
	out.IPAddress, out.IPPrefixLen, out.Gateway = e.IPv4.Addr(), bits(e.IPv4), e.Gateway4
	out.GlobalIPv6Address, out.GlobalIPv6PrefixLen, out.IPv6Gateway = e.IPv6.Addr(), bits(e.IPv6), e.Gateway6
	out.DNSNames = e.Names
	return out
}

func bits(p netip.Prefix) int {
	if !p.IsValid() {
		return 0
	}
	return p.Bits()
}

// plain is the endpoint on host or none, which have nothing but a name.
func (s *Service) plain(name string) *dnet.EndpointSettings {
	n, err := s.Net.Lookup(name)
	if err != nil {
		return &dnet.EndpointSettings{}
	}
	return &dnet.EndpointSettings{NetworkID: n.ID}
}

// request translates what was asked.
func (s *Service) request(c *api.Container) (network.Request, error) {
	h := c.HostConfig
	q := network.Request{
		ContainerID: c.ID, Name: c.Name, Hostname: c.Config.Hostname, Domainname: c.Config.Domainname,
		Search: h.DNSSearch, Options: h.DNSOptions, ExtraHosts: h.ExtraHosts,
	}
	for _, d := range h.DNS {
		q.DNS = append(q.DNS, d.String())
	}
	if h.NetworkMode.IsNone() {
		return q, nil
	}
	if err := s.endpoints(c, &q); err != nil {
		return q, err
	}
	ports, err := publications(c)
	q.Ports = ports
	return q, err
}

func (s *Service) endpoints(c *api.Container, q *network.Request) error {
	seen := map[string]bool{}
	for _, name := range places(c) {
		n, err := s.Net.Lookup(name)
		if err != nil {
			return err
		}
		if seen[n.ID] {
			continue
		}
		seen[n.ID] = true
		a := c.Networks[name]
		if a == nil && name == dnet.NetworkBridge {
			a = c.Networks[dnet.NetworkDefault]
		}
		e, err := endpoint(c, n, a)
		if err != nil {
			return err
		}
		q.Endpoints = append(q.Endpoints, e)
	}
	return nil
}

// endpoint translates what was asked of one network; a may be nil.
func endpoint(c *api.Container, n network.Network, a *dnet.EndpointSettings) (network.EndpointRequest, error) {
	e := network.EndpointRequest{Network: n.ID}
	if a != nil {
		if len(a.Links) > 0 || len(a.DriverOpts) > 0 || a.GwPriority != 0 {
			return e, errdef.New(errdef.NotImplemented, "network %s: Links, DriverOpts and GwPriority of an endpoint are not implemented", n.Name)
		}
		e.Aliases, e.MAC = a.Aliases, net.HardwareAddr(a.MacAddress)
		if i := a.IPAMConfig; i != nil {
			if len(i.LinkLocalIPs) > 0 {
				return e, errdef.New(errdef.NotImplemented, "network %s: LinkLocalIPs of an endpoint are not implemented", n.Name)
			}
			e.IPv4, e.IPv6 = i.IPv4Address, i.IPv6Address
		}
	}
	if n.Name != dnet.NetworkBridge {
		e.Aliases = append(slices.Clone(e.Aliases), c.ID[:12])
	}
	return e, nil
}

// publications lists -p, and with -P every exposed port that -p does not name.
func publications(c *api.Container) ([]network.Port, error) {
	var out []network.Port
	for p, bindings := range c.HostConfig.PortBindings {
		switch p.Proto() {
		case dnet.TCP, dnet.UDP, dnet.SCTP:
		default:
			return nil, errdef.New(errdef.InvalidArgument, "invalid port %s: the protocol is tcp, udp or sctp", p)
		}
		for _, b := range bindings {
			np := network.Port{Proto: string(p.Proto()), HostIP: b.HostIP, ContainerPort: p.Num()}
			if b.HostPort != "" {
				lo, hi, ok := strings.Cut(b.HostPort, "-")
				first, err := strconv.ParseUint(lo, 10, 16)
				last := first
				if err == nil && ok {
					last, err = strconv.ParseUint(hi, 10, 16)
				}
				if err != nil || last < first {
					return nil, errdef.New(errdef.InvalidArgument, "invalid host port %q for %s: give a number up to 65535, or a range", b.HostPort, p)
				}
				np.HostPort, np.HostPortEnd = uint16(first), uint16(last)
			}
			out = append(out, np)
		}
		if len(bindings) == 0 {
			out = append(out, network.Port{Proto: string(p.Proto()), ContainerPort: p.Num()})
		}
	}
	if c.HostConfig.PublishAllPorts {
		for p := range c.Config.ExposedPorts {
			if _, named := c.HostConfig.PortBindings[p]; !named {
				out = append(out, network.Port{Proto: string(p.Proto()), ContainerPort: p.Num()})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b network.Port) int {
		if a.ContainerPort != b.ContainerPort {
			return int(a.ContainerPort) - int(b.ContainerPort)
		}
		return strings.Compare(a.Proto, b.Proto)
	})
	return out, nil
}

// HostFiles implements container.Network: on the host's network its own files hold, with what was asked added.
func (s *Service) HostFiles(c *api.Container) (hosts, resolv []byte, err error) {
	h := c.HostConfig
	hosts, err = network.HostsFile(network.HostsSpec{Extra: h.ExtraHosts, IPv6: true, Gateway: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	if err != nil {
		return nil, nil, err
	}
	if len(h.DNS)+len(h.DNSSearch)+len(h.DNSOptions) == 0 {
		return hosts, hostResolv(), nil
	}
	spec := network.ResolvSpec{Host: hostResolv(), Search: h.DNSSearch, Options: h.DNSOptions, IPv6: true}
	for _, d := range h.DNS {
		spec.Servers = append(spec.Servers, d.String())
	}
	resolv, err = network.ResolvConf(spec)
	return hosts, resolv, err
}

// hostResolv is the host's own file, servers on its loopback included.
func hostResolv() []byte {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 64<<10))
	return b
}

var (
	_ container.Network = (*Service)(nil)
	_ api.Networks      = Networks{}
)
