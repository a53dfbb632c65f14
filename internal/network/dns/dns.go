// Package dns owns the name server that containers find at 127.0.0.11: answers about their own networks, and forwarding.
//
// It promises that a container is told only what its Zone tells, that what the zone does not know goes to the upstream servers
// from the engine's namespace or, without any, nowhere, and that no container can hold more than a bounded number of the
// engine's descriptors and goroutines. It must never open the sockets it serves on: they belong to the container's namespace.
package dns

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits for one container.
const (
	maxForwards = 128 // queries on their way to an upstream server
	maxConns    = 32  // TCP connections
	patience    = 4 * time.Second
	idle        = 3 * time.Second
	localTTL    = 5 // seconds; addresses of containers change
)

// Zone knows the names of one container's neighbourhood. It is asked for every query, from several goroutines.
type Zone interface {
	// Addrs returns the addresses of a name in lower case without its final dot; known is true when the name exists, even
	// without an address of that family.
	Addrs(name string, v6 bool) (list []netip.Addr, known bool)
	// Names returns the full names of an address of the neighbourhood.
	Names(a netip.Addr) []string
	// Upstream returns the servers for everything else, none when the container must not ask outside.
	Upstream() []netip.AddrPort
}

// Server answers on one pair of sockets until Close.
type Server struct {
	zone  Zone
	udp   net.PacketConn
	tcp   *bounded
	slots chan struct{}
	done  sync.WaitGroup
}

// Serve starts answering; it takes the sockets over.
func Serve(zone Zone, udp net.PacketConn, tcp net.Listener) *Server {
	s := &Server{zone: zone, udp: udp, tcp: newBounded(tcp, maxConns), slots: make(chan struct{}, maxForwards)}
	h := dns.HandlerFunc(s.answer)
	s.done.Go(func() { // ends when Close closes the socket
		(&dns.Server{PacketConn: udp, Handler: h, UDPSize: dns.DefaultMsgSize}).ActivateAndServe()
	})
	s.done.Go(func() { // likewise
		(&dns.Server{Listener: s.tcp, Handler: h, ReadTimeout: idle, WriteTimeout: idle, IdleTimeout: func() time.Duration { return idle }}).ActivateAndServe()
	})
	return s
}

// Close stops answering and closes every socket in the container's namespace.
func (s *Server) Close() {
	s.udp.Close()
	s.tcp.Close()
	s.tcp.closeConns()
	s.done.Wait()
}

func (s *Server) answer(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		reply(w, q, failure(q, dns.RcodeNotImplemented))
		return
	}
	if r := s.local(q); r != nil {
		reply(w, q, r)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
		reply(w, q, s.forward(q, w.LocalAddr().Network()))
	default:
		reply(w, q, failure(q, dns.RcodeServerFailure))
	}
}

// reply sends r with q's ID, cut to what the asker takes.
func reply(w dns.ResponseWriter, q, r *dns.Msg) {
	r.Id = q.Id
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		r.Truncate(size)
	}
	w.WriteMsg(r) // an asker that is gone needs no answer
}

func failure(q *dns.Msg, code int) *dns.Msg {
	r := new(dns.Msg)
	r.SetRcode(q, code)
	r.RecursionAvailable = true
	return r
}

// local answers from the zone, or returns nil.
func (s *Server) local(q *dns.Msg) *dns.Msg {
	ask := q.Question[0]
	if ask.Qclass != dns.ClassINET {
		return nil
	}
	r := failure(q, dns.RcodeSuccess)
	hdr := dns.RR_Header{Name: ask.Name, Rrtype: ask.Qtype, Class: dns.ClassINET, Ttl: localTTL}
	if ask.Qtype == dns.TypePTR {
		a, ok := reverse(ask.Name)
		if !ok {
			return nil
		}
		for _, n := range s.zone.Names(a) {
			r.Answer = append(r.Answer, &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(n)})
		}
		if r.Answer == nil {
			return nil
		}
		return r
	}
	list, known := s.zone.Addrs(trim(ask.Name), ask.Qtype == dns.TypeAAAA)
	if !known {
		return nil
	}
	if ask.Qtype != dns.TypeA && ask.Qtype != dns.TypeAAAA {
		return r
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, a := range list {
		if a.Is4() {
			r.Answer = append(r.Answer, &dns.A{Hdr: hdr, A: a.AsSlice()})
		} else {
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		}
	}
	return r
}

// forward asks all upstream servers at once and takes the first real answer. Without servers the name does not exist: an
// answer is better than an asker that tries on.
func (s *Server) forward(q *dns.Msg, network string) *dns.Msg {
	servers := s.zone.Upstream()
	if len(servers) == 0 {
		return failure(q, dns.RcodeNameError)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answers := make(chan *dns.Msg, len(servers))
	for _, a := range servers {
		go func() { // ends with ctx at the latest
			r, err := exchange(ctx, q.Copy(), network, a.String())
			if err != nil {
				r = nil
			}
			answers <- r
		}()
	}
	var last *dns.Msg
	for range servers {
		r := <-answers
		if r != nil && r.Rcode != dns.RcodeServerFailure && r.Rcode != dns.RcodeRefused {
			return r
		}
		if r != nil {
			last = r
		}
	}
	if last == nil {
		return failure(q, dns.RcodeServerFailure)
	}
	return last
}

// exchange asks one server, over TCP when the asker did so or the answer was cut.
func exchange(ctx context.Context, q *dns.Msg, network, addr string) (*dns.Msg, error) {
	q.Id = dns.Id()
	c := &dns.Client{Net: network, Timeout: patience, UDPSize: dns.DefaultMsgSize}
	r, _, err := c.ExchangeContext(ctx, q, addr)
	if err == nil && r.Truncated && network == "udp" {
		c.Net = "tcp"
		if full, _, err := c.ExchangeContext(ctx, q, addr); err == nil {
			return full, nil
		}
	}
	if err == nil && (len(r.Question) != 1 || r.Question[0] != q.Question[0]) {
		return nil, errors.New("answer to another question")
	}
	return r, err
}
