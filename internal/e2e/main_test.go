package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*shared{&storage, &lazyStorage} {
		if dir, err := s.made(); err == nil && dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// bb is the image of busybox-static alone.
const bb = harness.RegistryAddr + "/busybox:latest"

// shared is a registry's storage, filled by the first test that needs it.
type shared struct {
	once sync.Once
	dir  string
	err  error
}

func (s *shared) made() (string, error) { return s.dir, s.err }

var storage shared

// fill has push fill it, once, and returns its folder.
func (s *shared) fill(t *testing.T, push func(*registry.Server)) string {
	t.Helper()
	s.once.Do(func() {
		r := registry.Start(t)
		push(r)
		if s.dir, s.err = os.MkdirTemp("", "dhow-e2e-images-"); s.err == nil {
			s.err = os.CopyFS(s.dir, os.DirFS(r.Dir))
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	if s.dir == "" {
		t.Skip("no images: what makes them is missing (see the first test)")
	}
	return s.dir
}

// images is a registry's storage with the test images.
func images(t *testing.T) string {
	t.Helper()
	return storage.fill(t, func(s *registry.Server) {
		for name, img := range testImages(t) {
			s.Push(t, name, img)
		}
	})
}

// testImages are what scripts run: busybox alone, and two images over the same first layer.
func testImages(t *testing.T) map[string]*registry.Image {
	base := registry.BusyboxTar(t)
	extra := registry.Tar(t, registry.Dir("srv"), registry.Text("srv/index.html", "served\n"), registry.Text("etc/motd", "a second layer\n"),
		registry.Dir("data"), registry.Text("data/seed", "from the image\n"), registry.Dir("notexec"), registry.Text("notexec/plain", "#!/bin/sh\n"))
	app := dockerspec.DockerOCIImageConfig{}
	app.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FROM_IMAGE=yes"}
	app.WorkingDir, app.User, app.StopSignal = "/srv", "nobody", "SIGUSR1"
	app.Entrypoint, app.Cmd = []string{"echo", "entry"}, []string{"cmd"}
	app.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}}
	app.Volumes = map[string]struct{}{"/data": {}}
	app.Labels = map[string]string{"maker": "e2e"}
	shell := dockerspec.DockerOCIImageConfig{}
	shell.Env, shell.Cmd = app.Env[:1], []string{"sh"}
	other := registry.Build(t, registry.Spec{Tars: [][]byte{extra}, Config: shell, Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	return map[string]*registry.Image{
		"multi:1":        registry.Index(t, other, registry.Build(t, registry.Spec{Tars: [][]byte{base}, Config: app})),
		"busybox:latest": registry.Build(t, registry.Spec{Tars: [][]byte{base}, Config: shell}),
		"app:1":          registry.Build(t, registry.Spec{Tars: [][]byte{base, extra}, Config: app}),
		"app:2":          registry.Build(t, registry.Spec{Tars: [][]byte{base, extra, registry.Tar(t, registry.Whiteout("etc/motd"))}, Config: app, Compress: "zstd"}),
	}
}

// world is an engine with a registry beside it and something outside.
type world struct {
	*harness.Engine
	outside *os.File
	fds     int // that the engine holds when it has an image and no containers
}

// start makes a world. The engine has the busybox image unless empty is asked for.
func start(t *testing.T, flags ...string) *world {
	t.Helper()
	dir := images(t)
	w := &world{Engine: harness.Start(t, flags...)}
	w.Registry(dir)
	return w
}

// full is start with busybox pulled and the outside connected.
func full(t *testing.T, flags ...string) *world {
	t.Helper()
	w := start(t, flags...)
	w.outside = w.Outside()
	whoami(t, w.outside)
	w.Dhow("pull", "-q", bb).OK()
	w.Dhow("run", "--rm", bb, "true").OK()
	w.fds = 1 << 20
	time.Sleep(50 * time.Millisecond)
	w.fds = w.idle()
	return w
}

// whoami answers every connection to port 7000 out there with the address it comes from.
func whoami(t *testing.T, ns *os.File) {
	t.Helper()
	var l net.Listener
	if err := netlink.Inside(ns, func() (err error) { l, err = net.Listen("tcp", ":7000"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with Close
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "you are %s\n", host)
			c.Close()
		}
	}()
}

// probe builds the program that looks and tries from inside containers, which get it by a bind mount.
func probe(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "probe")
	if err := programs.Build(p, "./testdata/probe"); err != nil {
		t.Fatal(err)
	}
	return p
}

// clients are the names and programs of the clients that each script is run with.
func clients(t *testing.T) map[string]string {
	out := map[string]string{"dhow": filepath.Join(harness.Programs(t), "dhow")}
	p, err := exec.LookPath("docker")
	if err != nil {
		t.Logf("not run with the docker client: %v", err)
		return out
	}
	out["docker"] = p
	return out
}

// eventually tries for a while, and then says what it sees instead.
func eventually(t *testing.T, what string, ok func() bool, instead ...func() string) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > patience.Of(15*time.Second) {
			for _, f := range instead {
				what += ": " + f()
			}
			t.Fatalf("not within fifteen seconds: %s", what)
		}
	}
}

func lines(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }
