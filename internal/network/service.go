package network

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/dns"
	"github.com/dhow-containers/dhow/internal/network/ipam"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Service is the networking of one host. It is safe for concurrent use. Its parts share one core and no state besides.
type Service struct {
	*core
	registry   // networks: Create, Remove, List, Lookup
	connector  // containers on them: Connect, Disconnect, Join, Leave
	reconciler // kernel and records made to agree: Reconcile, Watch
}

// Open loads what is recorded, makes the predefined networks and puts the host's side right. It must run in the host's
// namespace. Containers that are recorded keep their rules until Reconcile says who is alive.
func Open(cfg Config) (*Service, error) {
	if cfg.Records == nil {
		return nil, errdef.New(errdef.InvalidArgument, "network: no records given")
	}
	defaults(&cfg)
	c, err := openCore(cfg)
	if err != nil {
		return nil, err
	}
	networks := registry{c}
	containers := connector{core: c, places: allocator{c}, names: resolvers{c}}
	s := &Service{c, networks, containers, reconciler{c, networks, containers}}
	for _, step := range []func() error{networks.predefine, networks.assertHost, c.assertRules} {
		if err := step(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func defaults(c *Config) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Table == "" {
		c.Table = "dhow"
	}
	if c.Pools == nil {
		c.Pools = ipam.DefaultBlocks()
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.HostResolv == nil {
		c.HostResolv = HostResolv
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Close lets go of sockets and ports held; networks and rules stay, containers do not notice.
func (s *Service) Close() {
	s.mu.Lock()
	s.away = true
	resolvers := slices.Collect(maps.Values(s.dns))
	s.dns = map[string]*dns.Server{}
	s.ports.closeAll()
	s.mu.Unlock()
	for _, r := range resolvers {
		r.Close()
	}
	s.host.Close()
	s.table.Close()
}

// Endpoints returns the places of a container; none when it is not connected.
func (s *Service) Endpoints(containerID string) []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.boxes[containerID]; r != nil {
		return slices.Clone(r.Endpoints)
	}
	return nil
}

// Ports returns the published ports of a container.
func (s *Service) Ports(containerID string) []Bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.boxes[containerID]; r != nil {
		return slices.Clone(r.Ports)
	}
	return nil
}

// Plan returns what was carried out for a container.
func (s *Service) Plan(containerID string) (plan.Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.boxes[containerID]; r != nil {
		return r.Plan, nil
	}
	return plan.Plan{}, errdef.New(errdef.NotFound, "container %s has no network", id.Short(containerID))
}

// Members returns the endpoints on a network, by container ID.
func (s *Service) Members(networkID string) map[string]Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]Endpoint{}
	for c, r := range s.boxes {
		for _, e := range r.Endpoints {
			if e.NetworkID == networkID {
				out[c] = e
			}
		}
	}
	return out
}
