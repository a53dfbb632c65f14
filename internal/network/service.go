package network

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/nft"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/dns"
	"github.com/dhow-containers/dhow/internal/network/ipam"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

// Record keys.
const (
	keyNetwork = "network/"
	keySandbox = "sandbox/"
	keyRouter  = "host/router"
	keyULA     = "host/ula"
)

// Service is the networking of one host. It is safe for concurrent use.
type Service struct {
	cfg   Config
	log   *slog.Logger
	host  *netlink.Handle
	table *nft.Table

	rules sync.Mutex // held over each nft transaction; taken before mu

	mu    sync.Mutex
	nets  map[string]*netState // by ID
	boxes map[string]*record   // by container ID
	ports portTable
	dns   map[string]*dns.Server // by container ID
	away  bool                   // Close was called
	route bool                   // dhow made this host a router
}

// netState is a network with its address pools, one per subnet in the same order.
type netState struct {
	Network
	pools []*ipam.Pool
}

// Open loads what is recorded, makes the predefined networks and puts the host's side right. It must run in the host's
// namespace. Containers that are recorded keep their rules until Reconcile says who is alive.
func Open(cfg Config) (*Service, error) {
	if cfg.Records == nil {
		return nil, errdef.New(errdef.InvalidArgument, "network: no records given")
	}
	defaults(&cfg)
	host, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, log: cfg.Log, host: host, table: nft.Open(cfg.Table),
		nets: map[string]*netState{}, boxes: map[string]*record{}, dns: map[string]*dns.Server{},
		ports: newPortTable(),
	}
	if err := s.load(); err != nil {
		host.Close()
		return nil, err
	}
	for _, step := range []func() error{s.predefine, s.assertHost, s.assertRules} {
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
	if c.Bridge == "" {
		c.Bridge = "dhow0"
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

// load reads networks and sandboxes; a record that does not parse is reported and left alone.
func (s *Service) load() error {
	var boxes []*record
	err := s.cfg.Records.Each(func(key string, raw []byte) error {
		switch {
		case strings.HasPrefix(key, keyNetwork):
			var n Network
			if err := json.Unmarshal(raw, &n); err != nil {
				s.log.Error("network record is damaged and ignored", "key", key, "err", err)
				return nil
			}
			s.nets[n.ID] = newState(n)
		case strings.HasPrefix(key, keySandbox):
			var r record
			if err := json.Unmarshal(raw, &r); err != nil {
				s.log.Error("sandbox record is damaged and ignored", "key", key, "err", err)
				return nil
			}
			boxes = append(boxes, &r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read network records: %w", err)
	}
	for _, r := range boxes {
		s.adopt(r)
	}
	return nil
}

// adopt takes a recorded container's addresses and ports into the tables.
func (s *Service) adopt(r *record) {
	s.boxes[r.Container] = r
	for _, e := range r.Endpoints {
		if n := s.nets[e.NetworkID]; n != nil {
			for _, a := range []netip.Addr{e.IPv4.Addr(), e.IPv6.Addr()} {
				if err := n.claim(a); a.IsValid() && err != nil {
					s.log.Error("recorded address", "container", r.Container, "err", err)
				}
			}
		}
	}
	for _, b := range r.Ports {
		if err := s.ports.readopt(r.Container, b); err != nil {
			s.log.Warn("published port could not be reserved again; it is forwarded all the same", "container", r.Container, "port", b.HostPort, "err", err)
		}
	}
}

func newState(n Network) *netState {
	st := &netState{Network: n}
	for _, sub := range n.Subnets {
		st.pools = append(st.pools, ipam.New(sub.ipam()))
	}
	return st
}

func (n Subnet) ipam() ipam.Subnet {
	return ipam.Subnet{Prefix: n.Prefix, Range: n.Range, Gateway: n.Gateway, Reserved: slices.Collect(maps.Values(n.Aux))}
}

// List returns all networks, by name.
func (s *Service) List() []Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Network
	for _, n := range s.nets {
		out = append(out, n.Network)
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Lookup finds a network by ID, name or unambiguous beginning of an ID.
func (s *Service) Lookup(ref string) (Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return Network{}, err
	}
	return n.Network, nil
}

func (s *Service) find(ref string) (*netState, error) {
	if n := s.nets[ref]; n != nil {
		return n, nil
	}
	var hits []*netState
	for _, n := range s.nets {
		if n.Name == ref {
			return n, nil
		}
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			hits = append(hits, n)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return nil, errdef.New(errdef.NotFound, "network %s not found", ref)
	}
	return nil, errdef.New(errdef.InvalidArgument, "network %s is ambiguous: %d IDs begin so", ref, len(hits))
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

// assertRules makes the nft table hold what the tables in memory say.
func (s *Service) assertRules() error {
	s.rules.Lock()
	defer s.rules.Unlock()
	return s.ruleset().Assert()
}

// ruleset is what the nft table shall hold now.
func (s *Service) ruleset() apply.Ruleset {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := apply.Ruleset{Table: s.table, Router: s.route}
	for _, n := range s.nets {
		if n.Device == "" {
			continue
		}
		br := apply.Bridge{Name: n.Device, Internal: n.Internal, Masquerade: boolOption(n.Options, optMasquerade, true)}
		for _, sub := range n.Subnets {
			br.Subnets = append(br.Subnets, sub.Prefix)
		}
		r.Bridges = append(r.Bridges, br)
	}
	for _, b := range s.boxes {
		r.Elements = append(r.Elements, owned(b)...)
	}
	return r
}

// Watch puts the rules back whenever somebody removes them (a firewall that flushes everything when it reloads), until ctx
// ends. It also says which other firewalls of the host drop forwarded packets, since no rule of ours can overrule that.
func (s *Service) Watch(ctx context.Context) error {
	if others, err := s.table.DroppingForward(); err != nil {
		s.log.Warn("other firewalls", "err", err)
	} else if len(others) > 0 {
		s.log.Warn("another firewall drops forwarded packets by default: accept there what comes from or goes to the bridges of dhow, or containers reach nobody", "chains", others)
	}
	return nft.Watch(ctx, func() {
		s.rules.Lock()
		defer s.rules.Unlock()
		r := s.ruleset()
		ok, err := r.Intact()
		if err == nil && !ok {
			s.log.Warn("somebody removed rules of table inet " + s.cfg.Table + "; putting them back")
			err = r.Assert()
		}
		if err != nil {
			s.log.Error("rules could not be put back", "err", err)
		}
	})
}

func owned(r *record) []apply.Owned {
	out := make([]apply.Owned, len(r.Plan.Elements))
	for i, e := range r.Plan.Elements {
		out[i] = apply.Owned{Element: e, Owner: id.Short(r.Container)}
	}
	return out
}

// canceled tells whether the caller gave up, before work that is not worth starting.
func canceled(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("connect container: %w", err)
	}
	return nil
}
