package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/network/apply"
	"github.com/dhow-containers/dhow/internal/network/plan"
)

func TestPredefined(t *testing.T) {
	s := open(t, newMemory())
	var names []string
	for _, n := range s.List() {
		names = append(names, n.Name+"/"+n.Driver)
	}
	if got := strings.Join(names, " "); got != "bridge/bridge host/host none/null" {
		t.Error(got)
	}
	if err := s.Remove("bridge"); !errdef.Is(err, errdef.Forbidden) {
		t.Errorf("remove bridge: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	s := open(t, newMemory())
	before := deviceNames(t, s)
	_, err := s.Create(Network{Name: "aa", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.50.0.0/24")}}})
	must(t, err)
	for _, c := range []struct {
		n    Network
		kind errdef.Kind
		text string
	}{
		{Network{Name: "aa"}, errdef.Conflict, "already exists"},
		{Network{Name: "-"}, errdef.InvalidArgument, "invalid name"},
		{Network{Name: "bb", Driver: "overlay"}, errdef.NotImplemented, "overlay"},
		{Network{Name: "bb", Driver: "host"}, errdef.Forbidden, "host"},
		{Network{Name: "bb", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.50.0.128/25")}}}, errdef.Conflict, "overlaps 10.50.0.0/24"},
		{Network{Name: "bb", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.51.0.1/24")}}}, errdef.InvalidArgument, "10.51.0.0/24"},
		{Network{Name: "bb", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.51.0.0/24"), Gateway: netip.MustParseAddr("10.52.0.1")}}}, errdef.InvalidArgument, "gateway 10.52.0.1"},
		{Network{Name: "bb", Options: map[string]string{optDevice: "a-name-too-long-for-it"}}, errdef.InvalidArgument, "15 characters"},
		{Network{Name: "bb", Options: map[string]string{optDevice: "lo"}}, errdef.Conflict, "named lo"},
		{Network{Name: "bb", Options: map[string]string{"nonsense": "1"}}, errdef.NotImplemented, "nonsense"},
	} {
		_, err := s.Create(c.n)
		if !errdef.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: kind %v, %v", c.n, errdef.KindOf(err), err)
		}
	}
	if n := len(s.List()); n != 4 {
		t.Errorf("%d networks left", n)
	}
	must(t, s.Remove("aa"))
	if after := deviceNames(t, s); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("devices %v, before %v", after, before)
	}
}

func TestPortTaken(t *testing.T) {
	s := open(t, newMemory())
	l, err := net.Listen("tcp", "127.0.0.1:8090")
	must(t, err)
	defer l.Close()
	before := snapshot(t, s)
	for _, p := range []Port{{HostPort: 8090, ContainerPort: 80}, {HostIP: netip.MustParseAddr("10.99.99.99"), HostPort: 1, ContainerPort: 80}} {
		_, err = s.Connect(context.Background(), Request{ContainerID: id.New(), Name: "x", Endpoints: on("bridge"), Ports: []Port{{HostPort: 8070, ContainerPort: 1}, p}})
		if err == nil {
			t.Fatalf("%v: published", p)
		}
		t.Log(err)
	}
	after := snapshot(t, s)
	if before != after {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	_, box := connect(t, s, Request{Endpoints: on("bridge"), Ports: []Port{{HostPort: 8090, HostPortEnd: 8092, ContainerPort: 80}, {ContainerPort: 81}}})
	if box.Ports[0].HostPort != 8091 || box.Ports[1].HostPort < 1024 {
		t.Errorf("ports %v", box.Ports)
	}
	_, err = s.Connect(context.Background(), Request{ContainerID: id.New(), Endpoints: on("bridge"), Ports: []Port{{HostPort: 8091, ContainerPort: 80}}})
	if !errdef.Is(err, errdef.Conflict) || !strings.HasPrefix(err.Error(), "Bind for 0.0.0.0:8091 failed: port is already allocated") {
		t.Errorf("kind %v: %v", errdef.KindOf(err), err)
	}
	if l, err := net.Listen("tcp4", "0.0.0.0:8091"); err == nil {
		l.Close()
		t.Error("a program of the host could take a published port")
	}
}

// snapshot describes what a leak would change: links, rules, open files, addresses and ports in use.
func snapshot(t *testing.T, s *Service) string {
	t.Helper()
	els, err := apply.Published(s.table)
	must(t, err)
	fds := openFiles(t, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	used := 0
	for _, n := range s.nets {
		for _, p := range n.pools {
			used += p.Used()
		}
	}
	return fmt.Sprintf("links %v\nelements %v\nfds %d\naddresses %d\nports %d\nboxes %d", deviceNames(t, s), els, fds, used, len(s.ports.held), len(s.boxes))
}

// openFiles counts descriptors once sockets closed in the background are gone.
func openFiles(t *testing.T, s *Service) int {
	t.Helper()
	s.table.Close()
	last, same := 0, 0
	for same < 4 {
		time.Sleep(20 * time.Millisecond)
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		if len(list) != last {
			last, same = len(list), 0
		}
		same++
	}
	return last
}

func TestRollback(t *testing.T) {
	rec := newMemory()
	s := open(t, rec)
	q := Request{ContainerID: id.New(), Endpoints: on("bridge"), Ports: []Port{{HostPort: 8080, ContainerPort: 80}}}
	before := snapshot(t, s)
	rec.fail = errors.New("disk full")
	_, err := s.Connect(context.Background(), q)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatal(err)
	}
	rec.fail = nil
	q.Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
	if _, err = s.Connect(context.Background(), q); err == nil || !strings.Contains(err.Error(), "--sysctl net.ipv4.no_such_thing") {
		t.Fatal(err)
	}
	q.Sysctls = map[string]string{"kernel.msgmax": "1"}
	if _, err = s.Connect(context.Background(), q); !errdef.Is(err, errdef.InvalidArgument) {
		t.Fatal(err)
	}
	eventually(t, func() string { return snapshot(t, s) }, before)
}

// eventually waits until what f says is want; the kernel takes namespaces down in its own time.
func eventually(t *testing.T, f func() string, want string) {
	t.Helper()
	var got string
	for range 100 {
		if got = f(); got == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left behind:\n%s\nwant:\n%s", got, want)
}

func TestLeak(t *testing.T) {
	s := open(t, newMemory())
	before := snapshot(t, s)
	var wg sync.WaitGroup
	ids := make([]string, 40)
	for i := range ids {
		wg.Go(func() {
			ids[i] = id.New()
			box, err := s.Connect(context.Background(), Request{ContainerID: ids[i], Endpoints: on("bridge"), Ports: []Port{{ContainerPort: 80}, {Proto: "udp", ContainerPort: 53}}})
			if err != nil {
				t.Error(err)
				return
			}
			box.Netns.Close()
			if i%2 == 0 { // the same container again, while its old links may still linger
				if err := s.Disconnect(context.Background(), ids[i]); err != nil {
					t.Error(err)
				}
				if box, err = s.Connect(context.Background(), Request{ContainerID: ids[i], Endpoints: on("bridge")}); err != nil {
					t.Error(err)
					return
				}
				box.Netns.Close()
			}
			for range 2 { // the second is a repetition and must be quiet
				if err := s.Disconnect(context.Background(), ids[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, func() string { return snapshot(t, s) }, before)
}

// published says what the kernel forwards, one port a line.
func published(t *testing.T, s *Service) []string {
	t.Helper()
	els, err := apply.Published(s.table)
	must(t, err)
	var out []string
	for _, e := range els {
		out = append(out, fmt.Sprintf("%s %s %s", plan.ProtoName(e.Proto), netip.AddrPortFrom(e.HostIP, e.HostPort), e.Owner))
	}
	return out
}
