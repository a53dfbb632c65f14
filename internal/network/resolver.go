package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/network/dns"
)

// resolvers answer the DNS queries of containers on user-defined networks, one server a container.
type resolvers struct{ *core }

// resolverSockets are the listening sockets in a container's namespace.
type resolverSockets struct {
	udp net.PacketConn
	tcp net.Listener
}

// listenDNS opens the sockets in the calling thread's namespace, where lo must be up.
func listenDNS() (resolverSockets, error) {
	udp, err := net.ListenPacket("udp4", ResolverAddr+":53")
	if err != nil {
		return resolverSockets{}, fmt.Errorf("embedded dns: %w", err)
	}
	tcp, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", ResolverAddr+":53")
	if err != nil {
		udp.Close()
		return resolverSockets{}, fmt.Errorf("embedded dns: %w", err)
	}
	return resolverSockets{udp, tcp}, nil
}

func (r resolverSockets) close() {
	if r.udp != nil {
		r.udp.Close()
	}
	if r.tcp != nil {
		r.tcp.Close()
	}
}

// serve answers a container's queries until it is disconnected.
func (n resolvers) serve(r *record, socks resolverSockets) {
	server := dns.Serve(zone{n.core, r}, socks.udp, socks.tcp)
	n.mu.Lock()
	gone := n.away || n.boxes[r.Container] != r
	if !gone {
		n.dns[r.Container] = server
	}
	n.mu.Unlock()
	if gone {
		server.Close()
	}
}

func (n resolvers) serving(containerID string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dns[containerID] != nil
}

// zone is what one container may know: the containers that share a user-defined network with it.
type zone struct {
	*core
	r *record
}

// neighbours calls f with each endpoint, of whichever container, on the user-defined networks of z's container; mu is held.
func (z zone) neighbours(f func(Endpoint)) {
	for _, own := range z.r.Endpoints {
		if n := z.nets[own.NetworkID]; n == nil || n.Predefined {
			continue
		}
		for _, r := range z.boxes {
			for _, e := range r.Endpoints {
				if e.NetworkID == own.NetworkID {
					f(e)
				}
			}
		}
	}
}

func (z zone) Addrs(name string, v6 bool) (list []netip.Addr, known bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.neighbours(func(e Endpoint) {
		short := name
		if rest, ok := strings.CutSuffix(name, "."+strings.ToLower(e.NetworkName)); ok {
			short = rest
		}
		if !slices.ContainsFunc(e.Names, func(n string) bool { return n != "" && (strings.EqualFold(n, name) || strings.EqualFold(n, short)) }) {
			return
		}
		known = true
		a := e.IPv4.Addr()
		if v6 {
			a = e.IPv6.Addr()
		}
		if a.IsValid() && !slices.Contains(list, a) {
			list = append(list, a)
		}
	})
	return list, known
}

func (z zone) Names(a netip.Addr) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	var out []string
	z.neighbours(func(e Endpoint) {
		if (e.IPv4.Addr() == a || e.IPv6.Addr() == a) && len(e.Names) > 0 && e.Names[0] != "" {
			out = append(out, e.Names[0]+"."+e.NetworkName)
		}
	})
	return out
}

// Upstream: a container whose networks are all internal asks nobody outside.
func (z zone) Upstream() []netip.AddrPort {
	z.mu.Lock()
	out := slices.ContainsFunc(z.r.Endpoints, func(e Endpoint) bool {
		n := z.nets[e.NetworkID]
		return n != nil && !n.Internal
	})
	z.mu.Unlock()
	if !out {
		return nil
	}
	var list []netip.AddrPort
	for _, a := range z.r.Upstream {
		if ip, err := netip.ParseAddr(a); err == nil {
			list = append(list, netip.AddrPortFrom(ip, 53))
		}
	}
	if list == nil {
		for _, ip := range nameservers(z.cfg.HostResolv()) {
			list = append(list, netip.AddrPortFrom(ip, 53))
		}
	}
	return list
}
