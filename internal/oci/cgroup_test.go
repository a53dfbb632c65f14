package oci

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// dirOf is the container's folder in the hierarchy of a controller, v1 before v2.
func dirOf(t *testing.T, c *Container, controller string) plan.Dir {
	t.Helper()
	for _, d := range c.State.Cgroups {
		if d.Has(controller) {
			return d
		}
	}
	t.Skipf("no %s controller on this machine", controller)
	return plan.Dir{}
}

func content(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	return strings.TrimSpace(string(b))
}

func (b *box) exec(c *Container, o ExecOptions, args ...string) (string, int, error) {
	b.t.Helper()
	p := *b.spec.Process
	p.Args = args
	out := newOutput(b.t)
	null, err := os.Open(os.DevNull)
	check(b.t, err)
	defer null.Close()
	o.Process, o.Stdio = &p, [3]*os.File{null, out.w, out.w}
	proc, err := c.Exec(o)
	out.w.Close()
	if err != nil {
		return "", -1, err
	}
	code := wait(b.t, proc)
	return <-out.done, code, nil
}

func TestExecInSubCgroup(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	d := dirOf(t, c, "memory")
	check(t, os.MkdirAll(filepath.Join(d.Path, "sub/deep"), 0o755))
	name, want := "memory", ":memory:/sub/deep\n"
	if d.V2 {
		name, want = "", "0::/sub/deep\n"
	}
	out, code, err := b.exec(c, ExecOptions{Cgroup: map[string]string{name: "sub/deep"}}, "cat", "/proc/self/cgroup")
	if err != nil || code != 0 || !strings.Contains(out, want) {
		t.Fatalf("exec in a sub-cgroup: %v, code %d, %q; want %q", err, code, out, want)
	}
	for _, bad := range []map[string]string{{name: "none"}, {name: "../x"}, {"nonesuch": "sub"}} {
		if _, _, err := b.exec(c, ExecOptions{Cgroup: bad}, "true"); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("exec in %v: %v, want InvalidArgument", bad, err)
		}
	}
}

// TestExecBesideInit: a container that hands controllers down has no processes of its own left in its cgroup, and takes none (v2).
func TestExecBesideInit(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	var d plan.Dir
	for _, each := range c.State.Cgroups {
		if each.V2 && each.Has("pids") {
			d = each
		}
	}
	if d.Path == "" {
		t.Skip("needs a v2 hierarchy with controllers")
	}
	check(t, os.Mkdir(filepath.Join(d.Path, "init"), 0o755))
	check(t, os.WriteFile(filepath.Join(d.Path, "init/cgroup.procs"), []byte(content(t, path.Join(d.Path, "cgroup.procs"))), 0))
	check(t, os.WriteFile(filepath.Join(d.Path, "cgroup.subtree_control"), []byte("+pids"), 0))
	out, code, err := b.exec(c, ExecOptions{}, "cat", "/proc/self/cgroup")
	if err != nil || code != 0 || !strings.Contains(out, "0::/init\n") {
		t.Fatalf("exec: %v, code %d, %q; want it in /init", err, code, out)
	}
}

func ptr[T any](v T) *T { return &v }

// TestUpdateRunning changes limits and device rules of a running container; what can't be had leaves all as it was.
func TestUpdateRunning(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}
	c := b.sleeping()
	memory, pids := dirOf(t, c, "memory"), dirOf(t, c, "pids")
	limit := func() string {
		if memory.V2 {
			return content(t, path.Join(memory.Path, "memory.max"))
		}
		return content(t, path.Join(memory.Path, "memory.limit_in_bytes"))
	}
	tun := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(200)), Access: "rwm"}
	opens := func() bool { // or fails because there is no such device
		out, _, err := b.exec(c, ExecOptions{}, "sh", "-c", "mknod /tmp/tun c 10 200 2>/tmp/said; cat /tmp/tun 2>&1")
		check(t, err)
		return !strings.Contains(out, "not permitted")
	}
	b.spec.Process.Capabilities.Effective = append(b.spec.Process.Capabilities.Effective, "CAP_MKNOD")
	b.spec.Process.Capabilities.Permitted = append(b.spec.Process.Capabilities.Permitted, "CAP_MKNOD")
	b.spec.Process.Capabilities.Bounding = append(b.spec.Process.Capabilities.Bounding, "CAP_MKNOD")
	if opens() {
		t.Fatal("/dev/net/tun opens before it is allowed")
	}
	check(t, c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(33))},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, tun}}))
	if limit() != "134217728" || content(t, path.Join(pids.Path, "pids.max")) != "33" || !opens() {
		t.Errorf("after the update: memory %s, pids %s, /dev/net/tun opens: %v", limit(), content(t, path.Join(pids.Path, "pids.max")), opens())
	}
	err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)}, Pids: &specs.LinuxPids{Limit: ptr(int64(44))}})
	if err == nil || !strings.Contains(err.Error(), "memory.checkBeforeUpdate") {
		t.Errorf("a limit below what is in use: %v", err)
	}
	if limit() != "134217728" || content(t, path.Join(pids.Path, "pids.max")) != "33" {
		t.Errorf("after an update that failed: memory %s", limit())
	}
	err = c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(55))}, Unified: map[string]string{"nonesuch.max": "1"}})
	if !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "unified[nonesuch.max]") {
		t.Errorf("an unknown unified file: %v", err)
	}
	check(t, c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}))
	if opens() {
		t.Error("/dev/net/tun still opens")
	}
}

// TestThreadedCgroup: below a threaded cgroup of v2 no container can be; the error says so.
func TestThreadedCgroup(t *testing.T) {
	b := newBox(t)
	l, err := cgroup.Detect()
	check(t, err)
	if l.Unified == "" {
		t.Skip("no v2 hierarchy is mounted")
	}
	top := filepath.Join(l.Unified, "dhow-test-threads-"+b.id[len(b.id)-6:])
	check(t, os.Mkdir(top, 0o755))
	t.Cleanup(func() { check(t, os.Remove(top)) })
	check(t, os.Mkdir(filepath.Join(top, "t"), 0o755))
	t.Cleanup(func() { check(t, os.Remove(filepath.Join(top, "t"))) })
	check(t, os.WriteFile(filepath.Join(top, "t/cgroup.type"), []byte("threaded"), 0))
	b.spec.Linux.CgroupsPath = "/" + filepath.Base(top) + "/t/box"
	if l.Mode != plan.V2 { // v1 knows no such thing; keep its folders out of the way
		t.Cleanup(func() {
			dirs, err := plan.Dirs(l, b.spec.Linux.CgroupsPath)
			check(t, err)
			for _, d := range dirs {
				if !d.V2 {
					os.Remove(filepath.Dir(d.Path))
					os.Remove(filepath.Dir(filepath.Dir(d.Path)))
				}
			}
		})
	}
	_, _, err = b.create()
	if err == nil || !strings.Contains(err.Error(), "threaded") || !strings.Contains(err.Error(), "linux.cgroupsPath") {
		t.Errorf("%v", err)
	}
}

// TestTinyMemoryLimit: what the runtime does on the way to the program costs the container next to nothing.
func TestTinyMemoryLimit(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(512 << 10)), Swap: ptr(int64(512 << 10))}
	if out, code := b.run(); code != 0 {
		t.Errorf("true under a limit of 512 KiB: code %d, %q", code, out)
	}
}
