package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"golang.org/x/sys/unix"
)

const inHost = "DHOW_TEST_IN_NETNS"

// TestMain runs the tests again in a network namespace of their own, which plays the host.
func TestMain(m *testing.M) {
	if os.Getenv(inHost) != "" {
		h, err := netlink.Open()
		if err != nil {
			panic(err)
		}
		if err := h.SetUp(1); err != nil {
			panic(err)
		}
		h.Close()
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), inHost+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	if errors.Is(err, syscall.EPERM) {
		fmt.Println("network: tests with a kernel skipped: making a network namespace needs root")
		os.Exit(0)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// memory is Records in memory, by the same JSON as the real store.
type memory struct {
	mu   sync.Mutex
	m    map[string][]byte
	fail error // what Put returns
}

func newMemory() *memory { return &memory{m: map[string][]byte{}} }

func (r *memory) Put(key string, v any) error {
	b, err := json.Marshal(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.m[key] = b
	return err
}

func (r *memory) Get(key string, v any) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.m[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (r *memory) Delete(key string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, key)
	return nil
}

func (r *memory) Each(f func(string, []byte) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, v := range r.m {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

func testLog(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// open opens the service on records, and takes table and bridges away at the end.
func open(t testing.TB, rec *memory, mod ...func(*Config)) *Service {
	t.Helper()
	cfg := Config{Records: rec, Log: testLog(t), HostResolv: func() []byte { return []byte("nameserver 10.0.0.1\n") }}
	for _, f := range mod {
		f(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		h, err := netlink.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for _, n := range s.List() {
			if n.Device != "" {
				h.Delete(n.Device)
			}
		}
		defer s.table.Close()
		b := s.table.Begin()
		b.AddTable()
		b.DeleteTable()
		if err := b.Commit(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect connects a fresh container and takes it away at the end.
func connect(t testing.TB, s *Service, q Request) (string, *Sandbox) {
	t.Helper()
	q.ContainerID = id.New()
	if q.Name == "" {
		q.Name = "c-" + q.ContainerID[:6]
	}
	box, err := s.Connect(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		box.Netns.Close()
		if err := s.Disconnect(context.Background(), q.ContainerID); err != nil {
			t.Error(err)
		}
	})
	return q.ContainerID, box
}

func on(nets ...string) []EndpointRequest {
	var out []EndpointRequest
	for _, n := range nets {
		out = append(out, EndpointRequest{Network: n})
	}
	return out
}

// serve answers TCP connections in ns (nil: the host) with "from <peer's address>".
func serve(t testing.TB, ns *os.File, addr string) {
	t.Helper()
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp", addr); return err }
	if err := in(ns, listen); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprint(c, "from "+host)
			c.Close()
		}
	}()
}

func in(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	return netlink.Inside(ns, f)
}

// call connects from ns to addr and returns what it is answered, or the error. The connection is made with a raw socket
// because net.Dial would leave the thread.
func call(ns *os.File, addr string) (string, error) {
	var out string
	err := in(ns, func() error {
		ap := netip.MustParseAddrPort(addr)
		family := unix.AF_INET
		var sa unix.Sockaddr
		if ap.Addr().Is6() {
			family = unix.AF_INET6
			sa = &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
		} else {
			sa = &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), addr)
		defer f.Close()
		tv := unix.NsecToTimeval(int64(700 * time.Millisecond))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		err = unix.Connect(fd, sa)
		if errors.Is(err, unix.EINTR) { // a signal of the Go runtime; the connection goes on, and a second call waits for it
			err = unix.Connect(fd, sa)
		}
		if err != nil && !errors.Is(err, unix.EISCONN) {
			return fmt.Errorf("connect %s: %w", addr, err)
		}
		b, err := io.ReadAll(f)
		out = string(b)
		return err
	})
	return out, err
}

// outsider is another machine: a namespace joined to the host by a wire of its own, 10.9.0.2 there and 10.9.0.1 here.
func outsider(t testing.TB) *os.File {
	t.Helper()
	ns, err := netlink.NewNetns(nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	inner, err := netlink.OpenAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	t.Cleanup(func() {
		h, _ := netlink.Open()
		h.Delete("wire0")
		h.Close()
		ns.Close()
	})
	must(t, h.AddVeth(netlink.Veth{Name: "wire0", Peer: "wire1", Netns: ns}))
	here, err := h.Link("wire0")
	must(t, err)
	there, err := inner.Link("wire1")
	must(t, err)
	must(t, h.AddAddr(here.Index, netip.MustParsePrefix("10.9.0.1/24")))
	must(t, h.AddAddr(here.Index, netip.MustParsePrefix("fd09::1/64")))
	must(t, inner.SetUp(1))
	must(t, inner.AddAddr(there.Index, netip.MustParsePrefix("10.9.0.2/24")))
	must(t, inner.AddAddr(there.Index, netip.MustParsePrefix("fd09::2/64")))
	must(t, inner.SetUp(there.Index))
	for here.Ready, there.Ready = false, false; !here.Ready || !there.Ready; time.Sleep(time.Millisecond) {
		here, err = h.Link("wire0")
		must(t, err)
		there, err = inner.Link("wire1")
		must(t, err)
	}
	return ns
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deviceNames lists the host's links, sorted.
func deviceNames(t testing.TB, s *Service) []string {
	t.Helper()
	ls, err := s.host.Links()
	must(t, err)
	var out []string
	for _, l := range ls {
		out = append(out, l.Name)
	}
	slices.Sort(out)
	return out
}
