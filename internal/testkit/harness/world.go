package harness

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// uplink is the engine's link to the outside; HostAddr is the address at its end, OutsideAddr the one beyond.
const (
	uplink      = "uplink0"
	HostAddr    = "192.0.2.1"
	OutsideAddr = "192.0.2.2"
)

// Program is the path of one of our programs: dhow, dhowd, dhow-shim or dhow-runtime.
func (e *Engine) Program(name string) string { return filepath.Join(e.bin, name) }

// Programs builds our programs, once per test process, and returns their folder.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := programs.Dir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Env is what a client needs in its environment to speak to this engine.
func (e *Engine) Env() []string {
	return []string{"DOCKER_HOST=unix://" + e.Socket, "DOCKER_CONFIG=" + e.dir + "/client"}
}

// Outside makes a second namespace, joined with the engine's by a link over which the engine's default route goes. Nothing out
// there knows the way to containers' own addresses: answers come back only where the engine's rules translate.
func (e *Engine) Outside() *os.File {
	e.t.Helper()
	ns, err := netlink.NewNetns(nil)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { ns.Close() })
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	for _, c := range [][]string{
		{"ip", "link", "add", uplink, "type", "veth", "peer", "name", "eth0", "netns", path}, {"ip", "addr", "add", HostAddr + "/24", "dev", uplink},
		{"ip", "link", "set", uplink, "up"}, {"ip", "route", "add", "default", "via", OutsideAddr},
		{"nsenter", "--net=" + path, "ip", "addr", "add", OutsideAddr + "/24", "dev", "eth0"},
		{"nsenter", "--net=" + path, "ip", "link", "set", "eth0", "up"}, {"nsenter", "--net=" + path, "ip", "link", "set", "lo", "up"},
	} {
		e.sh(c[0], c[1:]...)
	}
	return ns
}

// Registry runs Debian's docker-registry at RegistryAddr over a storage that others may share for reading.
func (e *Engine) Registry(storage string) {
	e.t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		e.t.Skipf("docker-registry is not installed: %v", err)
	}
	cmd := exec.Command(program, "serve", registry.Config(e.t, e.t.TempDir(), storage, RegistryAddr))
	if err := netlink.Inside(e.Netns, cmd.Start); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		resp, err := e.HTTP().Get("http://" + RegistryAddr + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Since(start) > patience.Of(20*time.Second) {
			e.t.Fatalf("docker-registry does not answer: %v", err)
		}
	}
}
