package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/miekg/dns"
)

// ask queries the embedded server from inside ns and returns the answers, sorted, or the code.
func ask(t *testing.T, ns *os.File, network, name string, kind uint16) string {
	t.Helper()
	var c *dns.Conn
	must(t, netlink.Inside(ns, func() error {
		// The dial happens on this thread as the address needs no lookup.
		raw, err := (&net.Dialer{Timeout: time.Second, FallbackDelay: -1}).DialContext(context.Background(), network, "127.0.0.11:53")
		c = &dns.Conn{Conn: raw}
		return err
	}))
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	must(t, c.WriteMsg(q))
	r, err := c.ReadMsg()
	must(t, err)
	if r.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[r.Rcode]
	}
	var out []string
	for _, a := range r.Answer {
		out = append(out, strings.TrimPrefix(a.String(), a.Header().String()))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestDNS(t *testing.T) {
	// The host's resolver, on the host's loopback: unreachable for containers but by us.
	pc, err := net.ListenPacket("udp4", "127.0.0.53:53")
	must(t, err)
	asked := make(chan string, 10)
	up := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- q.Question[0].Name
		r := new(dns.Msg)
		r.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 A 192.0.2.7")
		r.Answer = append(r.Answer, rr)
		w.WriteMsg(r)
	})}
	go up.ActivateAndServe() // ends with pc
	t.Cleanup(func() { pc.Close() })

	rec := newMemory()
	stub := func(c *Config) { c.HostResolv = func() []byte { return []byte("nameserver 127.0.0.53\nsearch lan\n") } }
	s := open(t, rec, stub)
	for _, n := range []Network{{Name: "app", EnableIPv6: true}, {Name: "closed", Internal: true}} {
		_, err := s.Create(n)
		must(t, err)
	}
	_, web := connect(t, s, Request{Name: "web", Hostname: "box", Endpoints: []EndpointRequest{{Network: "app", Aliases: []string{"Front"}}}})
	id2, two := connect(t, s, Request{Name: "two", Endpoints: []EndpointRequest{{Network: "app", Aliases: []string{"front"}}}})
	_, in := connect(t, s, Request{Name: "in", Endpoints: on("closed")})
	_, plain := connect(t, s, Request{Name: "plain", Endpoints: on("bridge")})

	a, b := web.Endpoints[0], two.Endpoints[0]
	if got := string(web.Resolv); got != "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n" {
		t.Errorf("resolv.conf %q", got)
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			ns   *os.File
			name string
			kind uint16
			want string
		}{
			{two.Netns, "web", dns.TypeA, a.IPv4.Addr().String()},
			{two.Netns, "WEB.app", dns.TypeA, a.IPv4.Addr().String()},
			{two.Netns, "box", dns.TypeAAAA, a.IPv6.Addr().String()},
			{web.Netns, id2[:12], dns.TypeA, b.IPv4.Addr().String()},
			{web.Netns, "front", dns.TypeA, a.IPv4.Addr().String() + " " + b.IPv4.Addr().String()},
			{web.Netns, "front", dns.TypeMX, ""},
			{web.Netns, must1(dns.ReverseAddr(b.IPv4.Addr().String())), dns.TypePTR, "two.app."},
			{web.Netns, must1(dns.ReverseAddr(b.IPv6.Addr().String())), dns.TypePTR, "two.app."},
			{in.Netns, "in", dns.TypeA, in.Endpoints[0].IPv4.Addr().String()},
			{in.Netns, "web", dns.TypeA, "NXDOMAIN"},
			{in.Netns, "example.org", dns.TypeA, "NXDOMAIN"},
		} {
			if got := ask(t, c.ns, network, c.name, c.kind); got != c.want {
				t.Errorf("%s %s %s: got %q, want %q", network, c.name, dns.TypeToString[c.kind], got, c.want)
			}
		}
	}
	if len(asked) != 0 {
		t.Errorf("the host's resolver was asked for %s", <-asked)
	}
	for _, ns := range []*os.File{web.Netns, plain.Netns} {
		if got := ask(t, ns, "udp", "example.org", dns.TypeA); got != "192.0.2.7" || <-asked != "example.org." {
			t.Errorf("forwarded: %q", got)
		}
	}
	if got := ask(t, plain.Netns, "udp", "web", dns.TypeA); got != "192.0.2.7" { // not its neighbour: goes outside
		t.Errorf("a container of the default network learnt %q about web", got)
	}
}

func must1(s string, err error) string {
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return s
}
