package network

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/events"
	dnet "github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/network"
)

// Networks implements api.Networks over a Service.
type Networks struct {
	*Service
	// Change changes the networks of a container; see container.Rewirer.
	Change func(ctx context.Context, ref string, w container.Rewiring) (containerID string, err error)
}

// Connect implements api.Networks: of a running container at once, and for its later starts.
func (n Networks) Connect(ctx context.Context, ref string, req dnet.ConnectRequest) error {
	if _, err := n.Find(req.Container); err != nil {
		return err
	}
	to, err := n.Net.Lookup(ref)
	if err != nil {
		return err
	}
	a := &dnet.EndpointSettings{}
	if req.EndpointConfig != nil {
		a = req.EndpointConfig.Copy()
	}
	cid, err := n.Change(ctx, req.Container, container.Rewiring{
		Ask: func(rec *api.Container) error { return n.add(rec, to, a) },
		Act: func(ctx context.Context, rec *api.Container, pid int) (container.NameFiles, error) {
			q, err := endpoint(rec, to, a)
			if err != nil {
				return container.NameFiles{}, err
			}
			return n.act(rec, func() error { _, err := n.Net.Join(ctx, rec.ID, pid, q); return err })
		},
	})
	if err != nil {
		return err
	}
	n.joined(events.ActionConnect, to, cid)
	return nil
}

// Disconnect implements api.Networks. Force changes nothing: there is no endpoint without its container here.
func (n Networks) Disconnect(ctx context.Context, ref string, req dnet.DisconnectRequest) error {
	if _, err := n.Find(req.Container); err != nil {
		return err
	}
	from, missing := n.Net.Lookup(ref)
	if missing != nil {
		from.Name = ref // a container that does not run may be on a network that has been removed
	}
	cid, err := n.Change(ctx, req.Container, container.Rewiring{
		Ask: func(rec *api.Container) error {
			if err := n.drop(rec, from); errdef.Is(err, errdef.NotFound) && missing != nil {
				return missing
			} else if err != nil {
				return err
			}
			return nil
		},
		Act: func(ctx context.Context, rec *api.Container, pid int) (container.NameFiles, error) {
			if missing != nil {
				return container.NameFiles{}, nil
			}
			return n.act(rec, func() error {
				// Asked for and not there is what a crash in the middle of Connect leaves.
				if err := n.Net.Leave(ctx, rec.ID, pid, from.ID); err != nil && !errdef.Is(err, errdef.NotFound) {
					return err
				}
				return nil
			})
		},
	})
	if err != nil {
		return err
	}
	if missing == nil {
		n.joined(events.ActionDisconnect, from, cid)
	}
	return nil
}

func (s *Service) joined(a events.Action, n network.Network, containerID string) {
	s.Events.Publish(events.NetworkEventType, a, n.ID, map[string]string{"name": n.Name, "type": n.Driver, "container": containerID})
}

// act changes the kernel by do and lets the record's state say what came out.
func (s *Service) act(rec *api.Container, do func() error) (f container.NameFiles, err error) {
	q, err := s.request(rec)
	if err != nil {
		return f, err
	}
	if f.Hosts[0], f.Resolv[0], err = s.Net.Files(q); err != nil {
		return f, err
	}
	if err := do(); err != nil {
		return f, err
	}
	rec.State.Endpoints, rec.State.Ports = map[string]*dnet.EndpointSettings{}, portMap(s.Net.Ports(rec.ID))
	for _, e := range s.Net.Endpoints(rec.ID) {
		rec.State.Endpoints[e.NetworkName] = settings(e, asked(rec, e))
	}
	// The change stands; files that could not be made leave those there are.
	if f.Hosts[1], f.Resolv[1], err = s.Net.Files(q); err != nil {
		f = container.NameFiles{}
	}
	return f, nil
}

// add puts a network into the record.
func (s *Service) add(rec *api.Container, n network.Network, a *dnet.EndpointSettings) error {
	if err := combinable(rec, n); err != nil {
		return err
	}
	s.settle(rec)
	if rec.Networks[n.Name] != nil {
		return errdef.New(errdef.Forbidden, "endpoint with name %s already exists in network %s", rec.Name, n.Name)
	}
	q, err := endpoint(rec, n, a)
	if err != nil {
		return err
	}
	if n.Name == dnet.NetworkBridge && len(q.Aliases) > 0 {
		return errdef.New(errdef.InvalidArgument, "network-scoped aliases are only supported for user-defined networks")
	}
	if n.Name == dnet.NetworkBridge && (q.IPv4.IsValid() || q.IPv6.IsValid()) {
		return errdef.New(errdef.InvalidArgument, "user specified IP address is supported on user defined networks only")
	}
	for _, ip := range []netip.Addr{q.IPv4, q.IPv6} {
		if ip.IsValid() && !slices.ContainsFunc(n.Subnets, func(sub network.Subnet) bool { return sub.Prefix.Contains(ip) }) {
			return errdef.New(errdef.InvalidArgument, "no configured subnet of network %s contains the address %s", n.Name, ip)
		}
	}
	rec.Networks[n.Name] = a
	return nil
}

// drop takes a network out of the record.
func (s *Service) drop(rec *api.Container, n network.Network) error {
	if err := combinable(rec, n); err != nil {
		return err
	}
	s.settle(rec)
	if rec.Networks[n.Name] == nil {
		return errdef.New(errdef.NotFound, "container %s is not connected to network %s", id.Short(rec.ID), n.Name)
	}
	delete(rec.Networks, n.Name)
	return nil
}

// combinable refuses the modes that have no place for another network, in Docker's words.
func combinable(rec *api.Container, n network.Network) error {
	m := rec.HostConfig.NetworkMode
	switch {
	case m.IsContainer():
		return errdef.New(errdef.InvalidArgument, "container sharing network namespace with another container or host cannot be connected to any other network")
	case m.IsHost() || n.Driver == network.DriverHost:
		return errdef.New(errdef.InvalidArgument, "container cannot be disconnected from host network or connected to host network")
	case m.IsNone() || n.Driver == network.DriverNull:
		return errdef.New(errdef.InvalidArgument, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// settle gives a record a list of networks of its own that holds all of them by name, the one of the network mode included.
func (s *Service) settle(rec *api.Container) {
	if rec.NetworksSettled {
		rec.Networks = maps.Clone(rec.Networks)
	} else {
		all := map[string]*dnet.EndpointSettings{}
		for _, name := range places(rec) {
			a := rec.Networks[name]
			if a == nil && name == dnet.NetworkBridge {
				a = rec.Networks[dnet.NetworkDefault]
			}
			if a == nil {
				a = &dnet.EndpointSettings{}
			}
			if n, err := s.Net.Lookup(name); err == nil {
				name = n.Name
			}
			all[name] = a
		}
		rec.Networks = all
	}
	if rec.Networks == nil {
		rec.Networks = map[string]*dnet.EndpointSettings{}
	}
	rec.NetworksSettled = true
}

// places names the networks of a container, the one of its network mode first.
func places(c *api.Container) []string {
	first := string(c.HostConfig.NetworkMode)
	if first == dnet.NetworkDefault {
		first = dnet.NetworkBridge
	}
	names := []string{first}
	for n := range c.Networks {
		if n != dnet.NetworkDefault && n != first {
			names = append(names, n)
		}
	}
	slices.Sort(names[1:])
	if c.NetworksSettled && c.Networks[first] == nil {
		return names[1:]
	}
	return names
}
