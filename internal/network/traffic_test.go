package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPublishedPort(t *testing.T) {
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
	t.Run("container to container", func(t *testing.T) { expect(t, "from "+client)(call(peer.Netns, ip+":80")) })
	t.Run("container by published port", func(t *testing.T) { expect(t, "from "+gw)(call(peer.Netns, gw+":8080")) })
	t.Run("container to itself by published port", func(t *testing.T) { expect(t, "from "+gw)(call(web.Netns, "10.9.0.1:8080")) })
	t.Run("unpublished port", func(t *testing.T) { refuse(t)(call(nil, "127.0.0.1:8082")) })
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
