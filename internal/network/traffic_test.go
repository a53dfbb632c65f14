package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/network/apply"
)

func TestPublishedPort(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filter, func(t *testing.T) {
			if err := apply.Sysctl("net/bridge/bridge-nf-call-iptables", filter); err != nil && filter == "1" {
				t.Skipf("no br_netfilter here: %v", err)
			}
			publishedPort(t)
		})
	}
}

func publishedPort(t *testing.T) {
	s := open(t, newMemory())
	out := outsider(t)
	_, web := connect(t, s, Request{Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8081, ContainerPort: 80}}})
	_, peer := connect(t, s, Request{Endpoints: on("bridge")})
	serve(t, web.Netns, "0.0.0.0:80")
	ip := web.Endpoints[0].IPv4.Addr().String()
	gw := web.Endpoints[0].Gateway4.String()
	client := peer.Endpoints[0].IPv4.Addr().String()

	t.Run("direct from the host", func(t *testing.T) { expect(t, "from "+gw)(call(nil, ip+":80")) })
	t.Run("127.0.0.1", func(t *testing.T) { expect(t, "from "+gw)(call(nil, "127.0.0.1:8080")) })
	t.Run("named address", func(t *testing.T) { expect(t, "from "+gw)(call(nil, "127.0.0.1:8081")) })
	t.Run("bridge address", func(t *testing.T) { expect(t, "from "+gw)(call(nil, gw+":8080")) })
	t.Run("outside, source kept", func(t *testing.T) { expect(t, "from 10.9.0.2")(call(out, "10.9.0.1:8080")) })
	t.Run("outside, port of 127.0.0.1 closed", func(t *testing.T) { refuse(t)(call(out, "10.9.0.1:8081")) })
	t.Run("outside, unpublished address", func(t *testing.T) {
		route(t, out, web.Endpoints[0].IPv4.Masked(), "10.9.0.1")
		refuse(t)(call(out, ip+":80"))
	})
	t.Run("container to container", func(t *testing.T) { expect(t, "from "+client)(call(peer.Netns, ip+":80")) })
	t.Run("container by published port", func(t *testing.T) { expect(t, "from "+gw)(call(peer.Netns, gw+":8080")) })
	t.Run("container to itself by published port", func(t *testing.T) { expect(t, "from "+gw)(call(web.Netns, "10.9.0.1:8080")) })
	t.Run("unpublished port", func(t *testing.T) { refuse(t)(call(nil, "127.0.0.1:8082")) })
}

func route(t *testing.T, ns *os.File, dst netip.Prefix, via string) {
	t.Helper()
	h, err := netlink.OpenAt(ns)
	must(t, err)
	defer h.Close()
	l, err := h.Link("wire1")
	must(t, err)
	must(t, h.AddRoute(l.Index, dst, netip.MustParseAddr(via)))
}

func TestIPv6(t *testing.T) {
	s := open(t, newMemory())
	out := outsider(t)
	_, err := s.Create(Network{Name: "six", EnableIPv6: true})
	must(t, err)
	_, web := connect(t, s, Request{Endpoints: on("six"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	_, peer := connect(t, s, Request{Endpoints: on("six")})
	if len(web.Ports) != 2 || web.Ports[0].HostPort != web.Ports[1].HostPort {
		t.Fatalf("ports: %v", web.Ports)
	}
	serve(t, web.Netns, "[::]:80")
	serve(t, out, "[fd09::2]:7000")
	time.Sleep(50 * time.Millisecond) // the kernel joins the groups of neighbour discovery in a worker, a moment after the address is there
	ip := web.Endpoints[0].IPv6.Addr()
	gw := web.Endpoints[0].Gateway6
	expect(t, "from "+gw.String())(call(nil, netip.AddrPortFrom(ip, 80).String()))
	expect(t, "from "+peer.Endpoints[0].IPv6.Addr().String())(call(peer.Netns, netip.AddrPortFrom(ip, 80).String()))
	t.Run("outside", func(t *testing.T) { expect(t, "from fd09::2")(call(out, "[fd09::1]:8080")) })
	t.Run("way out", func(t *testing.T) { expect(t, "from fd09::1")(call(web.Netns, "[fd09::2]:7000")) })
	t.Run("::1 is refused at once", func(t *testing.T) {
		if _, err := call(nil, "[::1]:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v; want a refusal, so that callers go on to 127.0.0.1", err)
		}
	})
	t.Run("container by published port", func(t *testing.T) {
		expect(t, "from "+gw.String())(call(peer.Netns, netip.AddrPortFrom(gw, 8080).String()))
	})
}

func TestApart(t *testing.T) {
	s := open(t, newMemory())
	for _, n := range []Network{{Name: "red"}, {Name: "blue"}, {Name: "alone", Options: map[string]string{optICC: "false"}}, {Name: "closed", Internal: true}} {
		_, err := s.Create(n)
		must(t, err)
	}
	_, red := connect(t, s, Request{Endpoints: on("red"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	_, blue := connect(t, s, Request{Endpoints: on("blue")})
	serve(t, red.Netns, "0.0.0.0:80")
	refuse(t)(call(blue.Netns, red.Endpoints[0].IPv4.Addr().String()+":80"))
	t.Run("by published port", func(t *testing.T) {
		expect(t, "from "+blue.Endpoints[0].IPv4.Addr().String())(call(blue.Netns, red.Endpoints[0].Gateway4.String()+":8080"))
	})
	t.Run("no icc", func(t *testing.T) {
		_, a := connect(t, s, Request{Endpoints: on("alone")})
		_, b := connect(t, s, Request{Endpoints: on("alone")})
		serve(t, a.Netns, "0.0.0.0:80")
		refuse(t)(call(b.Netns, a.Endpoints[0].IPv4.Addr().String()+":80"))
		expect(t, "from "+a.Endpoints[0].Gateway4.String())(call(nil, a.Endpoints[0].IPv4.Addr().String()+":80"))
	})
	t.Run("both networks", func(t *testing.T) {
		_, both := connect(t, s, Request{Endpoints: on("blue", "red")})
		expect(t, "from "+both.Endpoints[1].IPv4.Addr().String())(call(both.Netns, red.Endpoints[0].IPv4.Addr().String()+":80"))
	})
	t.Run("internal", func(t *testing.T) {
		_, in := connect(t, s, Request{Endpoints: on("closed"), Ports: []Port{{HostPort: 9090, ContainerPort: 80}}})
		if len(in.Ports) != 0 || len(in.Warnings) != 1 {
			t.Errorf("ports %v, warnings %q", in.Ports, in.Warnings)
		}
		refuse(t)(call(in.Netns, red.Endpoints[0].Gateway4.String()+":8080"))
		peer, _ := s.Lookup("closed")
		// even with a route, nothing leaves
		h, err := netlink.OpenAt(in.Netns)
		must(t, err)
		defer h.Close()
		l, err := h.Link("eth0")
		must(t, err)
		must(t, h.AddRoute(l.Index, netip.MustParsePrefix("0.0.0.0/0"), peer.Subnets[0].Gateway))
		refuse(t)(call(in.Netns, red.Endpoints[0].Gateway4.String()+":8080"))
	})
	t.Run("none", func(t *testing.T) {
		_, none := connect(t, s, Request{})
		refuse(t)(call(none.Netns, red.Endpoints[0].Gateway4.String()+":8080"))
		expectUp(t, none.Netns, "lo")
	})
}

func expectUp(t *testing.T, ns *os.File, names ...string) {
	t.Helper()
	h, err := netlink.OpenAt(ns)
	must(t, err)
	defer h.Close()
	ls, err := h.Links()
	must(t, err)
	var up []string
	for _, l := range ls {
		if l.Up {
			up = append(up, l.Name)
		}
	}
	if !slices.Equal(up, names) {
		t.Errorf("links up: %v, want %v", up, names)
	}
}

func TestUDP(t *testing.T) {
	s := open(t, newMemory())
	client, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5555}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5353})
	must(t, err)
	defer client.Close()
	client.Write([]byte("before anybody listens")) // a tracked flow that knows no rule
	_, web := connect(t, s, Request{Endpoints: on("bridge"), Ports: []Port{{Proto: "udp", HostPort: 5353, ContainerPort: 53}}})
	var l net.PacketConn
	must(t, netlink.Inside(web.Netns, func() (err error) { l, err = net.ListenPacket("udp4", "0.0.0.0:53"); return err }))
	defer l.Close()
	go func() { // one packet
		b := make([]byte, 100)
		n, from, err := l.ReadFrom(b)
		if err == nil {
			l.WriteTo(b[:n], from)
		}
	}()
	client.SetDeadline(time.Now().Add(2 * time.Second))
	client.Read(make([]byte, 10)) // the refusal of the first packet, if it came
	if _, err := client.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := client.Read(b); err != nil || string(b[:n]) != "ping" {
		t.Fatalf("answer %q, %v", b[:n], err)
	}
}

func TestWayOut(t *testing.T) {
	s := open(t, newMemory())
	out := outsider(t)
	serve(t, out, "10.9.0.2:7000")
	_, c := connect(t, s, Request{Endpoints: on("bridge")})
	expect(t, "from 10.9.0.1")(call(c.Netns, "10.9.0.2:7000"))

	_, err := s.Create(Network{Name: "closed", Internal: true})
	must(t, err)
	_, in := connect(t, s, Request{Endpoints: on("closed")})
	refuse(t)(call(in.Netns, "10.9.0.2:7000"))
}

func expect(t *testing.T, want string) func(string, error) {
	return func(got string, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

func refuse(t *testing.T) func(string, error) {
	return func(got string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "connect ") {
			t.Errorf("got %q, %v; want no connection", got, err)
		}
	}
}

// TestNoRouterForOthers: a host that forwarded nothing before dhow came forwards nothing for others afterwards.
func TestNoRouterForOthers(t *testing.T) {
	for _, was := range []string{"0", "1"} {
		t.Run("ip_forward="+was, func(t *testing.T) {
			must(t, apply.Sysctl("net/ipv4/ip_forward", was))
			s := open(t, newMemory())
			out := outsider(t)
			other, err := netlink.NewNetns(nil) // a third machine, on a wire of its own
			must(t, err)
			defer other.Close()
			h, err := netlink.OpenAt(other)
			must(t, err)
			defer h.Close()
			must(t, s.host.AddVeth(netlink.Veth{Name: "wire2", Peer: "wire3", Netns: other}))
			defer s.host.Delete("wire2")
			here, err := s.host.Link("wire2")
			must(t, err)
			must(t, s.host.AddAddr(here.Index, netip.MustParsePrefix("10.8.0.1/24")))
			there, err := h.Link("wire3")
			must(t, err)
			must(t, h.AddAddr(there.Index, netip.MustParsePrefix("10.8.0.2/24")))
			must(t, h.SetUp(there.Index))
			must(t, h.AddRoute(there.Index, netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.8.0.1")))
			route(t, out, netip.MustParsePrefix("10.8.0.0/24"), "10.9.0.1")
			serve(t, out, "10.9.0.2:7000")
			for l := here; !l.Ready; time.Sleep(time.Millisecond) {
				l, err = s.host.Link("wire2")
				must(t, err)
			}
			if was == "1" {
				expect(t, "from 10.8.0.2")(call(other, "10.9.0.2:7000"))
			} else {
				refuse(t)(call(other, "10.9.0.2:7000"))
			}
		})
	}
}

func TestOtherFirewalls(t *testing.T) {
	s := open(t, newMemory())
	runNft(t, "add", "table", "ip", "other")
	defer runNft(t, "delete", "table", "ip", "other")
	runNft(t, "add", "chain", "ip", "other", "FORWARD", "{ type filter hook forward priority 0; policy drop; }")
	if got, err := s.table.DroppingForward(); err != nil || !slices.Equal(got, []string{"table ip other chain FORWARD"}) {
		t.Errorf("%q, %v", got, err)
	}
}
