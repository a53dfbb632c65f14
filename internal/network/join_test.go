package network

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/miekg/dns"
)

func TestJoinAndLeave(t *testing.T) {
	s := open(t, newMemory())
	out := outsider(t)
	serve(t, out, "10.9.0.2:7000")
	for _, n := range []Network{{Name: "red"}, {Name: "blue", EnableIPv6: true}} {
		_, err := s.Create(n)
		must(t, err)
	}
	ctx := context.Background()
	_, red := connect(t, s, Request{Name: "r", Endpoints: on("red")})
	serve(t, red.Netns, "0.0.0.0:80")
	target := red.Endpoints[0].IPv4.Addr().String() + ":80"
	id, c := connect(t, s, Request{Name: "c", Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	pid := process(t, c)
	refuse(t)(call(c.Netns, target))

	e, err := s.Join(ctx, id, pid, EndpointRequest{Network: "red", Aliases: []string{"cc"}})
	must(t, err)
	expect(t, "from "+e.IPv4.Addr().String())(call(c.Netns, target))
	if got := ask(t, red.Netns, "udp", "cc", dns.TypeA); got != e.IPv4.Addr().String() {
		t.Errorf("alias: %q", got)
	}
	if got := ask(t, c.Netns, "udp", "r", dns.TypeA); got != red.Endpoints[0].IPv4.Addr().String() {
		t.Errorf("name: %q", got)
	}
	if _, err := s.Join(ctx, id, pid, EndpointRequest{Network: "red"}); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("joined twice: %v", err)
	}
	if err := s.Remove("red"); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("removed a network in use: %v", err)
	}
	six, err := s.Join(ctx, id, pid, EndpointRequest{Network: "blue"})
	must(t, err)
	_, b := connect(t, s, Request{Name: "b", Endpoints: on("blue")})
	serve(t, b.Netns, "[::]:80")
	expect(t, "from "+six.IPv6.Addr().String())(call(c.Netns, "["+b.Endpoints[0].IPv6.Addr().String()+"]:80"))

	must(t, s.Leave(ctx, id, pid, "bridge"))
	if p := s.Ports(id); len(p) != 0 || len(published(t, s)) != 0 {
		t.Errorf("ports after leaving: %v %v", p, published(t, s))
	}
	expect(t, "from 10.9.0.1")(call(c.Netns, "10.9.0.2:7000")) // the way out moved
	must(t, s.Leave(ctx, id, pid, "red"))
	refuse(t)(call(c.Netns, target))
	if err := s.Leave(ctx, id, pid, "red"); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
}

// TestWayOutMoves: both families' default routes go over to a network that stays.
func TestWayOutMoves(t *testing.T) {
	s := open(t, newMemory())
	for _, n := range []string{"one", "two"} {
		_, err := s.Create(Network{Name: n, EnableIPv6: true})
		must(t, err)
	}
	id, c := connect(t, s, Request{Name: "c", Endpoints: on("one", "two")})
	two := c.Endpoints[1]
	must(t, s.Leave(context.Background(), id, process(t, c), "one"))
	for family, via := range map[string]string{"-4": two.Gateway4.String(), "-6": two.Gateway6.String()} {
		var out strings.Builder
		cmd := exec.Command("ip", family, "route", "show", "default")
		cmd.Stdout = &out
		must(t, netlink.Inside(c.Netns, cmd.Start))
		must(t, cmd.Wait())
		if !strings.HasPrefix(out.String(), "default via "+via+" dev "+two.Interface+" ") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: %q, want one way out via %s", family, out.String(), via)
		}
	}
}
