package oci

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// TestEveryStepFails makes each instruction of a program fail, one at a time: whatever it is, the error says so, and nothing of the container
// stays: no cgroup, no process, no mount, no state, no descriptor.
func TestEveryStepFails(t *testing.T) {
	b := newBox(t)
	source := t.TempDir()
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt/data", source, "rbind", "ro"), specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}}
	b.spec.Linux.Sysctl = map[string]string{"kernel.shmmax": "4096"}
	b.namespace(specs.TimeNamespace, "")
	check(t, bundle.Save(b.dir, b.spec, nil))
	step := 1
	if testing.Short() {
		step = 17
	}
	before := openFiles(t)
	steps, reached := 0, 0
	for k := 0; ; k += step {
		total, ok := b.failAt(k)
		if k >= total {
			break
		}
		steps++
		if ok {
			reached++
		}
		b.leaks()
		if t.Failed() {
			t.Fatalf("after instruction %d was made to fail", k)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	if steps == 0 || reached < steps*2/3 { // the rest lies behind jumps that this machine takes
		t.Errorf("of %d instructions only %d were reached", steps, reached)
	}
}

// failAt makes and starts the container with instruction k failing, and tells how many there are and whether it came to that.
func (b *box) failAt(k int) (total int, reached bool) {
	b.t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(b.t, err)
	defer null.Close()
	o := CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}}
	dir := filepath.Join(b.root, b.id)
	check(b.t, os.MkdirAll(dir, 0o700))
	in, closeFacts, err := input(&o, dir)
	check(b.t, err)
	defer closeFacts()
	p, err := compile.Compile(in)
	check(b.t, err)
	if k >= len(p.Ins) || !slices.Contains([]prog.Op{prog.Syscall, prog.Hook, prog.OpenPid, prog.Fork, prog.Terminal}, p.Ins[k].Op) { // it cannot fail
		check(b.t, os.RemoveAll(dir))
		return len(p.Ins), true
	}
	p.Ins[k] = prog.Ins{Lane: p.Ins[k].Lane, Op: prog.Fail, Errno: uapi.Errno(syscall.EXDEV), Note: "made to fail", Why: p.Ins[k].Why}
	c := &Container{root: b.root, spec: b.spec, program: p}
	if err := c.make(&o, in, dir, nil); err != nil {
		check(b.t, os.RemoveAll(dir)) // as Create does
		return len(p.Ins), true
	}
	err = c.Start()
	if err == nil {
		wait(b.t, c.Init())
	} else {
		c.Init().Pidfd.Close()
	}
	check(b.t, c.Delete(true))
	if c.mounts != nil {
		c.mounts.Close()
	}
	return len(p.Ins), err != nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(es)
}
