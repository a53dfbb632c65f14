package network

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/nft"
	"github.com/dhow-containers/dhow/internal/network/dns"
	"github.com/dhow-containers/dhow/internal/network/ipam"
)

// Record keys.
const (
	keyNetwork = "network/"
	keySandbox = "sandbox/"
	keyRouter  = "host/router"
	keyULA     = "host/ula"
)

// core is what the parts of the service work on: the tables in memory, and the handles that the kernel is changed by.
type core struct {
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

// openCore opens the kernel's handles and reads the records.
func openCore(cfg Config) (*core, error) {
	host, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	c := &core{
		cfg: cfg, log: cfg.Log, host: host, table: nft.Open(cfg.Table),
		nets: map[string]*netState{}, boxes: map[string]*record{}, dns: map[string]*dns.Server{},
		ports: newPortTable(),
	}
	if err := c.load(); err != nil {
		host.Close()
		return nil, err
	}
	return c, nil
}

// load reads networks and sandboxes; a record that does not parse is reported and left alone.
func (c *core) load() error {
	var boxes []*record
	err := c.cfg.Records.Each(func(key string, raw []byte) error {
		switch {
		case strings.HasPrefix(key, keyNetwork):
			var n Network
			if err := json.Unmarshal(raw, &n); err != nil {
				c.log.Error("network record is damaged and ignored", "key", key, "err", err)
				return nil
			}
			c.nets[n.ID] = newState(n)
		case strings.HasPrefix(key, keySandbox):
			var r record
			if err := json.Unmarshal(raw, &r); err != nil {
				c.log.Error("sandbox record is damaged and ignored", "key", key, "err", err)
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
		c.adopt(r)
	}
	return nil
}

// adopt takes a recorded container's addresses and ports into the tables.
func (c *core) adopt(r *record) {
	c.boxes[r.Container] = r
	for _, e := range r.Endpoints {
		if n := c.nets[e.NetworkID]; n != nil {
			for _, a := range []netip.Addr{e.IPv4.Addr(), e.IPv6.Addr()} {
				if err := n.claim(a); a.IsValid() && err != nil {
					c.log.Error("recorded address", "container", r.Container, "err", err)
				}
			}
		}
	}
	for _, b := range r.Ports {
		if err := c.ports.readopt(r.Container, b); err != nil {
			c.log.Warn("published port could not be reserved again; it is forwarded all the same", "container", r.Container, "port", b.HostPort, "err", err)
		}
	}
}

// find looks a network up as Lookup says; mu is held.
func (c *core) find(ref string) (*netState, error) {
	if n := c.nets[ref]; n != nil {
		return n, nil
	}
	var hits []*netState
	for _, n := range c.nets {
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

func (c *core) mtu(n Network) int {
	if v, err := strconv.Atoi(n.Options[optMTU]); err == nil {
		return v
	}
	return c.cfg.MTU
}
