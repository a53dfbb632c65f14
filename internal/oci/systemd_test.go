package oci

import (
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/systemd"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// TestSystemd makes a container in a scope of the real systemd, changes and removes it.
func TestSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("systemd does not run here (hack/vm has a machine where it does)")
	}
	b := newBox(t, "sleep", "1000")
	b.spec.Linux.CgroupsPath = "dhow-test.slice:box:" + b.id
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(40))}
	b.spec.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "uint64 7"}
	create := func() (*Container, error) {
		check(t, bundle.Save(b.dir, b.spec, nil))
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		check(t, err)
		defer null.Close()
		return Create(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}, Systemd: true})
	}
	c, err := create()
	check(t, err)
	b.spec.Linux.CgroupsPath = c.State.CgroupPath // where the leak check looks
	t.Cleanup(func() {
		if _, err := os.Stat(path.Join(b.root, b.id)); err == nil {
			check(t, c.Delete(true))
		}
	})
	check(t, c.Start())
	if want := "/dhow.slice/dhow-test.slice/box-" + b.id + ".scope"; c.State.CgroupPath != want || c.State.Unit != "box-"+b.id+".scope" {
		t.Errorf("%s, unit %s, want %s", c.State.CgroupPath, c.State.Unit, want)
	}
	memory := dirOf(t, c, "memory")
	file := func(d plan.Dir, v1, v2 string) string {
		if d.V2 {
			v1 = v2
		}
		return content(t, path.Join(d.Path, v1))
	}
	if got := file(memory, "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit %s", got)
	}
	if procs := content(t, path.Join(memory.Path, "cgroup.procs")); !strings.Contains("\n"+procs+"\n", "\n"+strconv.Itoa(c.State.Pid)+"\n") {
		t.Errorf("process %d is not in %s: %q", c.State.Pid, memory.Path, procs)
	}
	out, code, err := b.exec(c, ExecOptions{}, "cat", "/proc/self/cgroup")
	if err != nil || code != 0 || memory.V2 && out != "0::/\n" {
		t.Errorf("exec: %v, %d, %q", err, code, out)
	}
	check(t, c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(96 << 20))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000))}}))
	if got := file(memory, "memory.limit_in_bytes", "memory.max"); got != "100663296" {
		t.Errorf("memory limit after update: %s", got)
	}
	conn, err := systemd.Dial(systemd.Addresses(false, 0, os.Getenv))
	check(t, err)
	defer conn.Close()
	if got, err := conn.ActiveState(c.State.Unit); err != nil || got != "active" {
		t.Errorf("the unit is %q, %v", got, err)
	}
	check(t, c.Pause())
	check(t, c.Resume())
	if _, err := create(); err == nil {
		t.Error("a second container of that name was made")
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
	if got, err := conn.ActiveState(c.State.Unit); err == nil && got != "inactive" {
		t.Errorf("the unit is %q after delete", got)
	}
	// A failed create leaves no unit.
	b.spec.Linux.CgroupsPath = "dhow-test.slice:box:" + b.id
	b.spec.Linux.Sysctl = map[string]string{"net.nonesuch": "1"}
	if _, err := create(); err == nil {
		t.Error("a container with an unknown sysctl was made")
	}
	if got, err := conn.ActiveState("box-" + b.id + ".scope"); err == nil && got != "inactive" {
		t.Errorf("the unit is %q after a create that failed", got)
	}
	b.spec.Linux.CgroupsPath = c.State.CgroupPath
	check(t, conn.Stop("dhow-test.slice"))
	check(t, conn.Stop("dhow.slice"))
}
