package network

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/ipam"
	"golang.org/x/sys/unix"
)

// Options of the bridge driver, in Docker's words.
const (
	optDevice     = "com.docker.network.bridge.name"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optHostIP     = "com.docker.network.bridge.host_binding_ipv4"
	optDefault    = "com.docker.network.bridge.default_bridge"
	optMTU        = "com.docker.network.driver.mtu"
	optPrefix     = "com.docker.network.container_iface_prefix"
)

// maxDevice is the longest name of a network device (IFNAMSIZ less its end).
const maxDevice = 15

// Create makes a network: its record, its bridge and its place in the rules.
func (s *Service) Create(n Network) (Network, error) {
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
	return s.create(n)
}

func (s *Service) create(n Network) (Network, error) {
	n.ID, n.Created = id.New(), s.cfg.Now().UTC()
	routes, err := s.host.Routes()
	if err != nil {
		return Network{}, err
	}
	s.mu.Lock()
	err = s.complete(&n, routes)
	if err == nil {
		s.nets[n.ID] = newState(n)
	}
	s.mu.Unlock()
	if err != nil {
		return Network{}, err
	}
	// The record comes first: after a crash Open makes what is missing, and nothing is on the host that no record names.
	if err := s.establish(n); err != nil {
		s.forget(n)
		return Network{}, err
	}
	s.log.Info("network created", "network", n.Name, "id", id.Short(n.ID), "device", n.Device)
	return n, nil
}

func (s *Service) establish(n Network) error {
	if err := s.cfg.Records.Put(keyNetwork+n.ID, n); err != nil {
		return fmt.Errorf("record network %s: %w", n.Name, err)
	}
	if n.Driver != DriverBridge {
		return nil
	}
	if _, err := s.host.Link(n.Device); err == nil && !n.Predefined {
		return errdef.New(errdef.Conflict, "network %s: a device named %s is there already", n.Name, n.Device)
	} else if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if err := s.assertBridge(n); err != nil {
		return err
	}
	return s.assertRules()
}

// forget takes back what create did; its own errors change nothing about the one that is reported.
func (s *Service) forget(n Network) {
	s.mu.Lock()
	delete(s.nets, n.ID)
	s.mu.Unlock()
	s.cfg.Records.Delete(keyNetwork + n.ID)
	if n.Device != "" {
		if l, err := s.host.Link(n.Device); err == nil && l.MAC.String() == deviceMAC(n.ID).String() {
			s.host.Delete(n.Device)
		}
		s.assertRules()
	}
}

// complete checks n and fills in what was left to us. It is called with mu held.
func (s *Service) complete(n *Network, routes []netip.Prefix) error {
	for _, x := range s.nets {
		if x.Name == n.Name {
			return errdef.New(errdef.Conflict, "network with name %s already exists", n.Name)
		}
	}
	if n.Driver != DriverBridge {
		return nil
	}
	if err := checkOptions(n.Options); err != nil {
		return err
	}
	if n.Device == "" {
		n.Device = n.Options[optDevice]
	}
	if n.Device == "" {
		n.Device = "dhow-" + n.ID[:10]
	}
	if len(n.Device) > maxDevice || strings.ContainsAny(n.Device, "/ \x00\n") {
		return errdef.New(errdef.InvalidArgument, "%s: %q is no name for a device: use at most %d characters without / or space", optDevice, n.Device, maxDevice)
	}
	taken := routes
	for _, x := range s.nets {
		if x.Device == n.Device {
			return errdef.New(errdef.Conflict, "network %s: device %s belongs to network %s", n.Name, n.Device, x.Name)
		}
		for _, sub := range x.Subnets {
			taken = append(taken, sub.Prefix)
		}
	}
	return s.subnets(n, taken)
}

// subnets chooses and checks the subnets of a network: one IPv4 unless given, one IPv6 when asked for.
func (s *Service) subnets(n *Network, taken []netip.Prefix) error {
	has4, has6 := false, false
	list := append([]Subnet(nil), n.Subnets...)
	for i := range list {
		if !list[i].Prefix.IsValid() {
			p, err := ipam.FreeSubnet(s.cfg.Pools, taken)
			if err != nil {
				return err
			}
			list[i].Prefix = p
		}
		has4 = has4 || list[i].Prefix.Addr().Is4()
		has6 = has6 || list[i].Prefix.Addr().Is6()
		if err := ipam.Overlap(list[i].Prefix, taken); err != nil {
			return err
		}
		taken = append(taken, list[i].Prefix)
	}
	if has6 && !n.EnableIPv6 {
		return errdef.New(errdef.InvalidArgument, "network %s has an IPv6 subnet but not --ipv6", n.Name)
	}
	if !has4 {
		p, err := ipam.FreeSubnet(s.cfg.Pools, taken)
		if err != nil {
			return err
		}
		list = append(list, Subnet{Prefix: p})
	}
	if n.EnableIPv6 && !has6 {
		ula, err := s.ula()
		if err != nil {
			return err
		}
		p, err := ipam.FreeSubnet([]ipam.Block{{Base: ula, Bits: 64}}, taken)
		if err != nil {
			return err
		}
		list = append(list, Subnet{Prefix: p})
	}
	for i := range list {
		if !list[i].Gateway.IsValid() {
			list[i].Gateway = ipam.FirstHost(list[i].Prefix)
		}
		if err := list[i].ipam().Validate(); err != nil {
			return err
		}
	}
	n.Subnets = list
	return nil
}

// ula returns this host's unique local prefix, chosen once.
func (s *Service) ula() (netip.Prefix, error) {
	var p netip.Prefix
	if ok, err := s.cfg.Records.Get(keyULA, &p); ok || err != nil {
		return p, err
	}
	var b [5]byte
	rand.Read(b[:])
	p, err := ipam.ULA(b)
	if err != nil {
		return p, err
	}
	return p, s.cfg.Records.Put(keyULA, p)
}

func checkOptions(opts map[string]string) error {
	for k, v := range opts {
		var err error
		switch k {
		case optICC, optMasquerade, optDefault:
			_, err = strconv.ParseBool(v)
		case optMTU:
			var n int
			if n, err = strconv.Atoi(v); err == nil && (n < 68 || n > 65535) {
				err = errors.New("want 68 to 65535")
			}
		case optHostIP:
			_, err = netip.ParseAddr(v)
		case optDevice:
		case optPrefix:
			if v == "" || len(v) > 10 || strings.ContainsAny(v, "/ .\x00\n") {
				err = errors.New("want 1 to 10 characters without / . or space")
			}
		default:
			return errdef.New(errdef.NotImplemented, "network option %s: unknown to the bridge driver", k)
		}
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "network option %s=%s: %w", k, v, err)
		}
	}
	return nil
}

// Remove deletes a network that nobody uses.
func (s *Service) Remove(ref string) error {
	s.mu.Lock()
	n, err := s.find(ref)
	if err == nil {
		err = s.removable(n)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	delete(s.nets, n.ID)
	s.mu.Unlock()
	// Device and rules go before the record: after a crash the network is still there as a whole, to be removed again.
	if n.Device != "" {
		if err := s.host.Delete(n.Device); err != nil {
			s.mu.Lock()
			s.nets[n.ID] = n
			s.mu.Unlock()
			return err
		}
		if err := s.assertRules(); err != nil {
			return err
		}
	}
	if err := s.cfg.Records.Delete(keyNetwork + n.ID); err != nil {
		return fmt.Errorf("forget network %s: %w", n.Name, err)
	}
	s.log.Info("network removed", "network", n.Name, "id", id.Short(n.ID))
	return nil
}

func (s *Service) removable(n *netState) error {
	if n.Predefined {
		return errdef.New(errdef.Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	for _, b := range s.boxes {
		for _, e := range b.Endpoints {
			if e.NetworkID == n.ID {
				return errdef.New(errdef.Conflict, "network %s has active endpoints: container %s (%s) is connected; disconnect or stop it first", n.Name, b.Name, id.Short(b.Container))
			}
		}
	}
	return nil
}

// predefine makes the networks bridge, host and none where they are missing.
func (s *Service) predefine() error {
	for _, n := range []Network{
		{Name: NameBridge, Driver: DriverBridge, Device: s.cfg.Bridge, EnableIPv6: s.cfg.BridgeIPv6, Options: map[string]string{optDefault: "true"}, Predefined: true},
		{Name: NameHost, Driver: DriverHost, Predefined: true},
		{Name: NameNone, Driver: DriverNull, Predefined: true},
	} {
		if _, err := s.Lookup(n.Name); err == nil {
			continue
		}
		if n.Driver == DriverBridge && s.cfg.BridgeNet.IsValid() {
			n.Subnets = []Subnet{{Prefix: s.cfg.BridgeNet}}
		}
		if _, err := s.create(n); err != nil {
			return fmt.Errorf("make network %s: %w", n.Name, err)
		}
	}
	return nil
}

// assertHost puts bridges and forwarding right.
func (s *Service) assertHost() error {
	for _, n := range s.List() {
		if n.Device != "" {
			if err := s.assertBridge(n); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
		}
	}
	return nil
}

func (s *Service) assertBridge(n Network) error {
	spec := apply.BridgeSpec{Name: n.Device, MAC: deviceMAC(n.ID), MTU: s.mtu(n)}
	v6 := false
	for _, sub := range n.Subnets {
		spec.Addrs = append(spec.Addrs, netip.PrefixFrom(sub.Gateway, sub.Prefix.Bits()))
		v6 = v6 || sub.Prefix.Addr().Is6()
	}
	if err := s.assertForwarding(v6); err != nil {
		return err
	}
	return apply.EnsureBridge(s.host, spec)
}

func (s *Service) mtu(n Network) int {
	if v, err := strconv.Atoi(n.Options[optMTU]); err == nil {
		return v
	}
	return s.cfg.MTU
}

// assertForwarding makes the host forward packets. Who was no router before does not become one for others: the rules then
// drop what neither comes from nor goes to a container. That is remembered until the next boot.
func (s *Service) assertForwarding(v6 bool) error {
	boot, err := apply.ReadSysctl("kernel/random/boot_id")
	if err != nil {
		return err
	}
	var made string
	if _, err := s.cfg.Records.Get(keyRouter, &made); err != nil {
		return err
	}
	on, err := apply.ReadSysctl("net/ipv4/ip_forward")
	if err != nil {
		return err
	}
	if on != "1" {
		if err := s.cfg.Records.Put(keyRouter, boot); err != nil {
			return err
		}
		made = boot
		if err := apply.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		s.log.Info("net.ipv4.ip_forward switched on for container networks; other forwarding stays closed by table inet " + s.cfg.Table)
	}
	s.mu.Lock()
	s.route = made == boot
	s.mu.Unlock()
	if v6 {
		return s.forward6()
	}
	return nil
}

// forward6 makes the host forward IPv6. A forwarding host ignores router advertisements unless accept_ra is 2: devices that
// took them go on taking them.
func (s *Service) forward6() error {
	on, err := apply.ReadSysctl("net/ipv6/conf/all/forwarding")
	if err != nil || on == "1" {
		return err
	}
	devices, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return fmt.Errorf("list IPv6 devices: %w", err)
	}
	for _, d := range devices {
		key := "net/ipv6/conf/" + d.Name() + "/accept_ra"
		if v, err := apply.ReadSysctl(key); err == nil && v == "1" {
			if err := apply.Sysctl(key, "2"); err != nil {
				return err
			}
		}
	}
	s.log.Info("net.ipv6.conf.all.forwarding switched on for container networks; accept_ra=1 became 2")
	return apply.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

// deviceMAC is a bridge's address: fixed, so that it does not change with the ports.
func deviceMAC(networkID string) net.HardwareAddr {
	h := sha256.Sum256([]byte(networkID))
	return net.HardwareAddr{0x02, 0x42, h[0], h[1], h[2], h[3]}
}
