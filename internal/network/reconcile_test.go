package network

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/miekg/dns"
)

// process starts a process in the sandbox's namespace, as a container would be, and returns its pid.
func process(t *testing.T, box *Sandbox) int {
	t.Helper()
	c := exec.Command("sleep", "60")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: 0}
	must(t, netlink.Inside(box.Netns, c.Start))
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process.Pid
}

func runNft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Skipf("nft %v: %v %s", args, err, out)
	}
	return string(out)
}

func TestReconcile(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, s *Service, dev string)
	}{
		{"nothing", func(*testing.T, *Service, string) {}},
		{"table deleted", func(t *testing.T, s *Service, _ string) { runNft(t, "delete", "table", "inet", "dhow") }},
		{"rules and elements flushed", func(t *testing.T, s *Service, _ string) {
			runNft(t, "flush", "chain", "inet", "dhow", "published")
			runNft(t, "flush", "map", "inet", "dhow", "publish4")
		}},
		{"foreign element", func(t *testing.T, s *Service, _ string) {
			runNft(t, "add", "element", "inet", "dhow", "publish4", `{ tcp . 1234 comment "0123456789ab" : 1.2.3.4 . 80 }`)
		}},
		{"bridge deleted", func(t *testing.T, s *Service, dev string) { must(t, s.host.Delete(dev)) }},
		{"host link deleted", func(t *testing.T, s *Service, dev string) {
			for _, n := range deviceNames(t, s) {
				if ownLink.MatchString(n) {
					must(t, s.host.Delete(n))
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { reconciles(t, c.damage) })
	}
}

func reconciles(t *testing.T, damage func(*testing.T, *Service, string)) {
	rec := newMemory()
	s := open(t, rec)
	n, err := s.Create(Network{Name: "app"})
	must(t, err)
	live, web := connect(t, s, Request{Name: "web", Endpoints: on("app"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	dead, gone := connect(t, s, Request{Name: "gone", Endpoints: on("app"), Ports: []Port{{HostPort: 8081, ContainerPort: 80}}})
	pid := process(t, web)
	serve(t, web.Netns, "0.0.0.0:80")
	before := deviceNames(t, s)
	s.Close() // the engine is away
	gone.Netns.Close()
	s.host, err = netlink.Open()
	must(t, err)
	damage(t, s, n.Device)

	s2, err := Open(Config{Records: rec, Log: testLog(t), HostResolv: s.cfg.HostResolv})
	must(t, err)
	defer s2.Close()
	must(t, s2.Reconcile(context.Background(), []LiveContainer{{ID: live, Pid: pid}}))
	expect(t, "from "+web.Endpoints[0].Gateway4.String())(call(nil, "127.0.0.1:8080"))
	if got := ask(t, web.Netns, "udp", "web", dns.TypeA); got != web.Endpoints[0].IPv4.Addr().String() {
		t.Errorf("dns after restart: %q", got)
	}
	if els := fmt.Sprint(published(t, s2)); els != fmt.Sprintf("[tcp 0.0.0.0:8080 %s]", id.Short(live)) {
		t.Errorf("elements %s", els)
	}
	if s2.Endpoints(dead) != nil || len(rec.m) == 0 {
		t.Error("the dead container is still connected")
	}
	if _, err := s2.Connect(context.Background(), Request{ContainerID: live, Endpoints: on("app")}); err == nil {
		t.Error("connected twice")
	}
	other := "dh" + dead[:10]
	eventually(t, func() string { return fmt.Sprint(without(deviceNames(t, s2), other)) }, fmt.Sprint(without(before, other)))
	if l, err := s2.host.Link(other); err == nil {
		t.Errorf("link of the dead container: %v", l)
	}
	must(t, s2.Disconnect(context.Background(), live))
	refuse(t)(call(nil, "127.0.0.1:8080"))
	must(t, s.cfg.Records.Delete(keySandbox+live))
}

func without(list []string, name string) (out []string) {
	for _, x := range list {
		if !strings.HasPrefix(x, name) {
			out = append(out, x)
		}
	}
	return out
}

// TestTrafficNeverStops opens connection after connection through a published port while the engine restarts over and over.
func TestTrafficNeverStops(t *testing.T) {
	rec := newMemory()
	s := open(t, rec)
	live, web := connect(t, s, Request{Name: "web", Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	pid := process(t, web)
	serve(t, web.Netns, "0.0.0.0:80")
	stop, failed := make(chan struct{}), make(chan error, 1)
	count := 0
	go func() { // ends by stop
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := call(nil, "127.0.0.1:8080"); err != nil {
				failed <- err
				return
			}
			count++
		}
	}()
	for range 10 {
		s2, err := Open(Config{Records: rec, HostResolv: s.cfg.HostResolv})
		must(t, err)
		must(t, s2.Reconcile(context.Background(), []LiveContainer{{ID: live, Pid: pid}}))
		time.Sleep(20 * time.Millisecond)
		s2.Close()
	}
	close(stop)
	if err := <-failed; err != nil || count < 10 {
		t.Errorf("after %d connections: %v", count, err)
	}
}

func TestUserChainStays(t *testing.T) {
	rec := newMemory()
	s := open(t, rec)
	runNft(t, "add", "rule", "inet", "dhow", "dhow-user", "tcp", "dport", "81", "drop")
	must(t, s.assertRules())
	if got := runNft(t, "list", "chain", "inet", "dhow", "dhow-user"); !strings.Contains(got, "dport 81 drop") {
		t.Error(got)
	}
}

func TestWatch(t *testing.T) {
	s := open(t, newMemory())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx) }()
	defer func() { cancel(); must(t, <-done) }()
	_, web := connect(t, s, Request{Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	serve(t, web.Netns, "0.0.0.0:80")
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		runNft(t, "flush", "ruleset")
		eventually(t, func() string { out, _ := call(nil, "127.0.0.1:8080"); return out }, "from "+web.Endpoints[0].Gateway4.String())
	}
}

// TestTwoEngines: a second engine on the same host, with a bridge and a table of its own, leaves the first one's containers alone.
func TestTwoEngines(t *testing.T) {
	s := open(t, newMemory())
	_, web := connect(t, s, Request{Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	serve(t, web.Netns, "0.0.0.0:80")
	other := open(t, newMemory(), func(c *Config) { c.Table, c.Bridge = "dhow2", "dhow9" })
	id, box := connect(t, other, Request{Endpoints: on("bridge")})
	must(t, other.Reconcile(context.Background(), []LiveContainer{{ID: id, Pid: process(t, box)}}))
	must(t, s.host.AddVeth(netlink.Veth{Name: "dh00000000ff", Peer: "eth9", Netns: box.Netns})) // what a crash of either leaves
	must(t, other.Reconcile(context.Background(), nil))
	eventually(t, func() string { _, err := s.host.Link("dh00000000ff"); return fmt.Sprint(err != nil) }, "true")
	if _, err := s.host.Link(web.Endpoints[0].HostLink); err != nil {
		t.Error("the first engine's link:", err)
	}
	expect(t, "from "+web.Endpoints[0].Gateway4.String())(call(nil, "127.0.0.1:8080"))
}
