package network

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"golang.org/x/sys/unix"
)

// registry makes and removes networks: records, bridges and their place in the rules.
type registry struct{ *core }

// List returns all networks, by name.
func (g registry) List() []Network {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Network
	for _, n := range g.nets {
		out = append(out, n.Network)
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Lookup finds a network by ID, name or unambiguous beginning of an ID.
func (g registry) Lookup(ref string) (Network, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.find(ref)
	if err != nil {
		return Network{}, err
	}
	return n.Network, nil
}

// Create makes a network: its record, its bridge and its place in the rules.
func (g registry) Create(n Network) (Network, error) {
	if err := id.ValidName(n.Name); err != nil {
		return Network{}, errdef.As(errdef.InvalidArgument, err)
	}
	switch n.Driver {
	case "":
		n.Driver = DriverBridge
	case DriverBridge:
	case DriverHost, DriverNull:
		return Network{}, errdef.New(errdef.Forbidden, "only one network of driver %q can exist", n.Driver)
	default:
		return Network{}, errdef.New(errdef.NotImplemented, "network driver %q: dhow has bridge, host and null", n.Driver)
	}
	n.Predefined = false
	return g.create(n)
}

func (g registry) create(n Network) (Network, error) {
	n.ID, n.Created = id.New(), g.cfg.Now().UTC()
	routes, err := g.host.Routes()
	if err != nil {
		return Network{}, err
	}
	g.mu.Lock()
	err = g.complete(&n, routes)
	if err == nil {
		g.nets[n.ID] = newState(n)
	}
	g.mu.Unlock()
	if err != nil {
		return Network{}, err
	}
	// The record comes first: after a crash Open makes what is missing, and nothing is on the host that no record names.
	if err := g.establish(n); err != nil {
		g.forget(n)
		return Network{}, err
	}
	g.log.Info("network created", "network", n.Name, "id", id.Short(n.ID), "device", n.Device)
	return n, nil
}

func (g registry) establish(n Network) error {
	if err := g.cfg.Records.Put(keyNetwork+n.ID, n); err != nil {
		return fmt.Errorf("record network %s: %w", n.Name, err)
	}
	if n.Driver != DriverBridge {
		return nil
	}
	if err := g.unclaimed(n); err != nil {
		return err
	}
	if err := g.assertBridge(n); err != nil {
		return err
	}
	return g.assertRules()
}

// unclaimed makes sure that the device of a new network is nobody else's: there is none, or, for the default network, it is a
// bridge without addresses that somebody made for us. One that this data root recorded never comes here.
func (g registry) unclaimed(n Network) error {
	l, err := g.host.Link(n.Device)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if !n.Predefined {
		return errdef.New(errdef.Conflict, "network %s: a device named %s is there already", n.Name, n.Device)
	}
	addrs, err := g.host.Addrs(l.Index)
	if err != nil {
		return err
	}
	addrs = slices.DeleteFunc(addrs, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	if len(addrs) > 0 {
		return errdef.New(errdef.Conflict, "device %s is there already, with %s, and this data root did not make it: it is another engine's, or was left by one whose data root is gone; give this engine its own device with --bridge-name (and its own --table), or, if nobody uses it, remove it: ip link delete %s", n.Device, addrs[0], n.Device)
	}
	return nil
}

// forget takes back what create did; its own errors change nothing about the one that is reported.
func (g registry) forget(n Network) {
	g.mu.Lock()
	delete(g.nets, n.ID)
	g.mu.Unlock()
	g.cfg.Records.Delete(keyNetwork + n.ID)
	if n.Device != "" {
		if l, err := g.host.Link(n.Device); err == nil && l.MAC.String() == deviceMAC(n.ID).String() {
			g.host.Delete(n.Device)
		}
		g.assertRules()
	}
}

// Remove deletes a network that nobody uses.
func (g registry) Remove(ref string) error {
	g.mu.Lock()
	n, err := g.find(ref)
	if err == nil {
		err = g.removable(n)
	}
	if err != nil {
		g.mu.Unlock()
		return err
	}
	delete(g.nets, n.ID)
	g.mu.Unlock()
	// Device and rules go before the record: after a crash the network is still there as a whole, to be removed again.
	if n.Device != "" {
		if err := g.host.Delete(n.Device); err != nil {
			g.mu.Lock()
			g.nets[n.ID] = n
			g.mu.Unlock()
			return err
		}
		if err := g.assertRules(); err != nil {
			return err
		}
	}
	if err := g.cfg.Records.Delete(keyNetwork + n.ID); err != nil {
		return fmt.Errorf("forget network %s: %w", n.Name, err)
	}
	g.log.Info("network removed", "network", n.Name, "id", id.Short(n.ID))
	return nil
}

func (g registry) removable(n *netState) error {
	if n.Predefined {
		return errdef.New(errdef.Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	for _, b := range g.boxes {
		for _, e := range b.Endpoints {
			if e.NetworkID == n.ID {
				return errdef.New(errdef.Conflict, "network %s has active endpoints: container %s (%s) is connected; disconnect or stop it first", n.Name, b.Name, id.Short(b.Container))
			}
		}
	}
	return nil
}

// bridgeDevice is the default network's device unless another is asked for.
const bridgeDevice = "dhow0"

// predefine makes the networks bridge, host and none where they are missing.
func (g registry) predefine() error {
	for _, n := range []Network{
		{Name: NameBridge, Driver: DriverBridge, Device: cmp.Or(g.cfg.Bridge, bridgeDevice), EnableIPv6: g.cfg.BridgeIPv6, Options: map[string]string{optDefault: "true"}, Predefined: true},
		{Name: NameHost, Driver: DriverHost, Predefined: true},
		{Name: NameNone, Driver: DriverNull, Predefined: true},
	} {
		if have, err := g.Lookup(n.Name); err == nil {
			if want := g.cfg.Bridge; n.Name == NameBridge && want != "" && want != have.Device {
				return errdef.New(errdef.InvalidArgument, "--bridge-name %s: the default network of this data root has the device %s since it was made: start with --bridge-name %s or without that flag, or take another data root", want, have.Device, have.Device)
			}
			continue
		}
		if n.Driver == DriverBridge && g.cfg.BridgeNet.IsValid() {
			n.Subnets = []Subnet{{Prefix: g.cfg.BridgeNet}}
		}
		if _, err := g.create(n); err != nil {
			return fmt.Errorf("make network %s: %w", n.Name, err)
		}
	}
	return nil
}

// assertHost puts bridges and forwarding right.
func (g registry) assertHost() error {
	for _, n := range g.List() {
		if n.Device != "" {
			if err := g.assertBridge(n); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
		}
	}
	return nil
}

func (g registry) assertBridge(n Network) error {
	spec := apply.BridgeSpec{Name: n.Device, MAC: deviceMAC(n.ID), MTU: g.mtu(n)}
	v6 := false
	for _, sub := range n.Subnets {
		spec.Addrs = append(spec.Addrs, netip.PrefixFrom(sub.Gateway, sub.Prefix.Bits()))
		v6 = v6 || sub.Prefix.Addr().Is6()
	}
	if err := g.assertForwarding(v6); err != nil {
		return err
	}
	return apply.EnsureBridge(g.host, spec)
}

// deviceMAC is a bridge's address: fixed, so that it does not change with the ports.
func deviceMAC(networkID string) net.HardwareAddr {
	h := sha256.Sum256([]byte(networkID))
	return net.HardwareAddr{0x02, 0x42, h[0], h[1], h[2], h[3]}
}
