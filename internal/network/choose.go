package network

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/network/ipam"
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

// complete checks n and fills in what was left to us. It is called with mu held.
func (g registry) complete(n *Network, routes []netip.Prefix) error {
	for _, x := range g.nets {
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
	for _, x := range g.nets {
		if x.Device == n.Device {
			return errdef.New(errdef.Conflict, "network %s: device %s belongs to network %s", n.Name, n.Device, x.Name)
		}
		for _, sub := range x.Subnets {
			taken = append(taken, sub.Prefix)
		}
	}
	return g.subnets(n, taken)
}

// subnets chooses and checks the subnets of a network: one IPv4 unless given, one IPv6 when asked for.
func (g registry) subnets(n *Network, taken []netip.Prefix) error {
	has4, has6 := false, false
	list := append([]Subnet(nil), n.Subnets...)
	for i := range list {
		if !list[i].Prefix.IsValid() {
			p, err := ipam.FreeSubnet(g.cfg.Pools, taken)
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
		p, err := ipam.FreeSubnet(g.cfg.Pools, taken)
		if err != nil {
			return err
		}
		list = append(list, Subnet{Prefix: p})
	}
	if n.EnableIPv6 && !has6 {
		ula, err := g.ula()
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
func (g registry) ula() (netip.Prefix, error) {
	var p netip.Prefix
	if ok, err := g.cfg.Records.Get(keyULA, &p); ok || err != nil {
		return p, err
	}
	var b [5]byte
	rand.Read(b[:])
	p, err := ipam.ULA(b)
	if err != nil {
		return p, err
	}
	return p, g.cfg.Records.Put(keyULA, p)
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

func boolOption(opts map[string]string, key string, otherwise bool) bool {
	if v, err := strconv.ParseBool(opts[key]); err == nil {
		return v
	}
	return otherwise
}
