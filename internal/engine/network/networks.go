package network

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	dnet "github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/network"
)

// Create implements api.Networks.
func (s *Service) Create(_ context.Context, req dnet.CreateRequest) (dnet.CreateResponse, error) {
	n := network.Network{
		Name: req.Name, Driver: req.Driver, Internal: req.Internal, Attachable: req.Attachable, Options: req.Options, Labels: req.Labels,
		EnableIPv6: req.EnableIPv6 != nil && *req.EnableIPv6,
	}
	switch {
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return dnet.CreateResponse{}, errdef.New(errdef.NotImplemented, "networks without IPv4 are not implemented")
	case req.Ingress, req.ConfigOnly, req.ConfigFrom != nil:
		return dnet.CreateResponse{}, errdef.New(errdef.NotImplemented, "network options Ingress, ConfigOnly and ConfigFrom are not implemented")
	case req.Scope != "" && req.Scope != "local":
		return dnet.CreateResponse{}, errdef.New(errdef.NotImplemented, "network scope %q is not implemented: use local", req.Scope)
	}
	if i := req.IPAM; i != nil {
		if i.Driver != "" && i.Driver != "default" || len(i.Options) > 0 {
			return dnet.CreateResponse{}, errdef.New(errdef.NotImplemented, "IPAM driver %q and IPAM options are not implemented: use default", i.Driver)
		}
		for _, c := range i.Config {
			n.Subnets = append(n.Subnets, network.Subnet{Prefix: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
	}
	made, err := s.Net.Create(n)
	if err != nil {
		return dnet.CreateResponse{}, err
	}
	s.event(events.ActionCreate, made)
	return dnet.CreateResponse{ID: made.ID}, nil
}

func (s *Service) event(a events.Action, n network.Network) {
	s.Events.Publish(events.NetworkEventType, a, n.ID, map[string]string{"name": n.Name, "type": n.Driver})
}

func summary(n network.Network) dnet.Network {
	out := dnet.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: true, EnableIPv6: n.EnableIPv6,
		Internal: n.Internal, Attachable: n.Attachable, Options: n.Options, Labels: n.Labels,
		IPAM: dnet.IPAM{Driver: "default", Config: []dnet.IPAMConfig{}},
	}
	if out.Options == nil {
		out.Options = map[string]string{}
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for _, sub := range n.Subnets {
		out.IPAM.Config = append(out.IPAM.Config, dnet.IPAMConfig{Subnet: sub.Prefix, IPRange: sub.Range, Gateway: sub.Gateway, AuxAddress: sub.Aux})
	}
	return out
}

// List implements api.Networks.
func (s *Service) List(_ context.Context, f api.Filters) ([]dnet.Summary, error) {
	for k := range f {
		if !slices.Contains([]string{"name", "id", "driver", "label", "type", "scope", "dangling"}, k) {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	out := []dnet.Summary{}
	for _, n := range s.Net.List() {
		if s.match(n, f) {
			out = append(out, dnet.Summary{Network: summary(n)})
		}
	}
	return out, nil
}

func (s *Service) match(n network.Network, f api.Filters) bool {
	any := func(key string, ok func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], ok)
	}
	return any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
		any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
		any("driver", func(v string) bool { return n.Driver == v }) &&
		any("scope", func(v string) bool { return v == "local" }) &&
		any("type", func(v string) bool { return (v == "builtin") == n.Predefined }) &&
		any("dangling", func(v string) bool {
			return (v == "true" || v == "1") == (!n.Predefined && len(s.Net.Members(n.ID)) == 0)
		}) &&
		f.Labelled(n.Labels)
}

// Inspect implements api.Networks.
func (s *Service) Inspect(_ context.Context, ref string) (dnet.Inspect, error) {
	n, err := s.Net.Lookup(ref)
	if err != nil {
		return dnet.Inspect{}, err
	}
	out := dnet.Inspect{Network: summary(n), Containers: map[string]dnet.EndpointResource{}}
	for id, e := range s.Net.Members(n.ID) {
		mac, _ := net.ParseMAC(e.MAC)
		r := dnet.EndpointResource{EndpointID: e.ID, MacAddress: dnet.HardwareAddr(mac), IPv4Address: e.IPv4, IPv6Address: e.IPv6}
		if c, err := s.Find(id); err == nil {
			r.Name = c.Name
		}
		out.Containers[id] = r
	}
	return out, nil
}

// Remove implements api.Networks. A container that was created on the network and does not run does not keep it; its start will fail.
func (s *Service) Remove(_ context.Context, ref string) error {
	n, err := s.Net.Lookup(ref)
	if err != nil {
		return err
	}
	if err := s.Net.Remove(n.ID); err != nil {
		return err
	}
	s.event(events.ActionDestroy, n)
	return nil
}

// Prune implements api.Networks: user-defined networks without containers.
func (s *Service) Prune(_ context.Context, f api.Filters) (dnet.PruneReport, error) {
	out := dnet.PruneReport{NetworksDeleted: []string{}}
	for k := range f {
		if !slices.Contains([]string{"label", "label!", "until"}, k) {
			return out, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	before, err := f.Until(time.Now())
	if err != nil {
		return out, err
	}
	for _, n := range s.Net.List() {
		if n.Predefined || !f.Labelled(n.Labels) || !before.IsZero() && n.Created.After(before) || len(s.Net.Members(n.ID)) > 0 {
			continue
		}
		if err := s.Net.Remove(n.ID); errdef.Is(err, errdef.Conflict) || errdef.Is(err, errdef.Forbidden) {
			continue // somebody came meanwhile
		} else if err != nil {
			return out, err
		}
		out.NetworksDeleted = append(out.NetworksDeleted, n.Name)
		s.event(events.ActionDestroy, n)
	}
	return out, nil
}
