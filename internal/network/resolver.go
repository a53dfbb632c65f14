package network

import (
	"context"
	"fmt"
	"net"
)

// resolver is the embedded DNS of one container.
type resolver struct{ socks resolverSockets }

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

func (r *resolver) close() { r.socks.close() }

func (s *Service) serveDNS(r *record, socks resolverSockets) {
	s.mu.Lock()
	s.dns[r.Container] = &resolver{socks}
	s.mu.Unlock()
}
