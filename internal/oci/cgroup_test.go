package oci

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
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
