package oci

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// holder opens the program of the first process, ends, and leaves somebody behind who tries for seconds to write to it.
const holder = `
(
	exec 7</proc/1/exe && echo caught >/mnt/caught
	n=0
	while [ $n -lt 200 ]; do
		echo overwritten 2>/dev/null >/proc/self/fd/7 && echo yes >>/mnt/overwritten
		n=$((n + 1))
		sleep 0.01
	done
) >/dev/null 2>&1 &
n=0
while ! [ -e /mnt/caught ] && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.01; done`

// Class F, CVE-2019-5736: until start, the first process is our program. Whoever may trace in the container (CAP_SYS_PTRACE) sees it there: its
// startContainer hooks, and execs before start. A user namespace that is named and is the host's protects from nothing.
func TestProgramOutOfReachBeforeStart(t *testing.T) {
	for _, by := range []string{"hook", "exec", "hook, host's user namespace by path"} {
		t.Run(by, func(t *testing.T) {
			b := newBox(t, "sleep", "100")
			tracing := []string{tracer}
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: tracing, Effective: tracing, Permitted: tracing}
			if by != "exec" {
				b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", holder}, Env: []string{"PATH=/bin"}}}}
			}
			if strings.Contains(by, "path") {
				b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/self/ns/user"})
			}
			check(t, bundle.Save(b.dir, b.spec, nil))
			bin := buildRuntime(t)
			before, err := os.ReadFile(bin)
			check(t, err)
			run := func(args ...string) {
				t.Helper()
				check(t, exec.Command(bin, append([]string{"--root", b.root}, args...)...).Run()) // its output would be the container's for long
			}
			defer func() { check(t, exec.Command(bin, "--root", b.root, "delete", "--force", b.id).Run()) }()
			run("create", "--bundle", b.dir, b.id)
			if by == "exec" {
				run("exec", b.id, "/bin/sh", "-c", holder)
			}
			run("start", b.id)
			time.Sleep(200 * time.Millisecond)
			if _, err := os.Stat(filepath.Join(b.rootfs(), "mnt/caught")); err != nil {
				t.Error("nobody caught the program: the test proves nothing")
			}
			after, err := os.ReadFile(bin)
			check(t, err)
			if _, err := os.Stat(filepath.Join(b.rootfs(), "mnt/overwritten")); err == nil || !bytes.Equal(before, after) {
				t.Error("a container wrote to the runtime's program")
			}
		})
	}
}

// Where the creator had no reason to be on guard, nobody who may trace comes in before start: neither by exec nor by joining the PID namespace.
func TestNobodyTracesBeforeStart(t *testing.T) {
	b := newBox(t, "sleep", "100")
	c, _, err := b.create()
	check(t, err)
	defer func() {
		check(t, c.Delete(true))
		wait(t, c.Init())
	}()
	p := *b.spec.Process
	tracing := []string{tracer}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: tracing, Effective: tracing, Permitted: tracing}
	p.Args = []string{"true"}
	if _, err := c.Exec(ExecOptions{Process: &p}); !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), tracer) {
		t.Errorf("exec: %v", err)
	}
	guest := newBox(t)
	guest.root = b.root
	guest.spec.Process.Capabilities = p.Capabilities
	for i, n := range guest.spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			guest.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", c.Init().Pid)
		}
	}
	if in, _, err := guest.create(); !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), tracer) {
		t.Errorf("a container that joins: %v", err)
		check(t, in.Delete(true))
		wait(t, in.Init())
	}
	guest.root = filepath.Join(guest.dir, "state") // where nothing may be left
	check(t, c.Start())
	proc, err := c.Exec(ExecOptions{Process: &p})
	check(t, err)
	if code := wait(t, proc); code != 0 {
		t.Errorf("once it is started: exit code %d", code)
	}
}

// A container that shares all namespaces is entered all the same, by its root alone.
func TestExecWithoutNamespaces(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.spec.Linux.Namespaces, b.spec.Mounts, b.spec.Hostname = nil, nil, ""
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "here"), nil, 0o644))
	c := b.sleepingAs()
	o := newOutput(t)
	p := *b.spec.Process
	p.Args = []string{"ls", "/here", "/root"}
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, o.w, o.w}})
	check(t, err)
	o.w.Close()
	if code, said := wait(t, proc), <-o.done; code != 1 || !strings.Contains(said, "/here\n") || !strings.Contains(said, "/root: No such") {
		t.Errorf("exec: exit code %d: %q", code, said)
	}
}

// createContainer hooks are programs of the host's; in a mount namespace that is joined somebody else's would be run with the runtime's rights.
func TestHookOfAJoinedMountNamespace(t *testing.T) {
	b := newBox(t, "sleep", "100")
	c := b.sleepingAs()
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "bin/hook"), []byte("#!/bin/sh\necho yes >/mnt/hooked\n"), 0o755))
	guest := newBox(t)
	for i, n := range guest.spec.Linux.Namespaces {
		if n.Type == specs.MountNamespace {
			guest.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/mnt", c.Init().Pid)
		}
	}
	guest.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/hook"}}}
	if in, _, err := guest.create(); err == nil {
		t.Error("it was created")
		check(t, in.Delete(true))
		wait(t, in.Init())
	} else if !strings.Contains(err.Error(), "hooks.createContainer") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.rootfs(), "mnt/hooked")); err == nil {
		t.Error("the other container's program was run")
	}
}

// Class G: processes that live in the cgroup that a config names are not the container's; they would be killed with it.
func TestCgroupOfOthers(t *testing.T) {
	b := newBox(t)
	l, err := cgroup.Detect()
	check(t, err)
	dirs, err := plan.Dirs(l, b.spec.Linux.CgroupsPath)
	check(t, err)
	other := exec.Command("sleep", "100")
	check(t, other.Start())
	defer func() {
		if other.ProcessState == nil {
			other.Process.Kill()
			other.Wait()
		}
		for _, d := range dirs {
			os.Remove(filepath.Join(d.Path, "below"))
			os.Remove(d.Path)
		}
	}()
	for _, d := range dirs {
		if d.V2 || d.Has("freezer") {
			check(t, os.MkdirAll(filepath.Join(d.Path, "below"), 0o755))
			check(t, os.WriteFile(filepath.Join(d.Path, "below/cgroup.procs"), []byte(strconv.Itoa(other.Process.Pid)), 0))
		}
	}
	if c, _, err := b.create(); err == nil {
		t.Error("the container was created")
		check(t, c.Delete(true))
		wait(t, c.Init())
	} else if !strings.Contains(err.Error(), fmt.Sprintf("process %d is in it", other.Process.Pid)) || !errdef.Is(err, errdef.Conflict) {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond)
	if st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", other.Process.Pid)); !strings.Contains(string(st), "(sleep) S") {
		t.Errorf("the other process was killed: %s", st)
	}
}

// Another start has just made the cgroup above ours, and not filled its cpuset yet: nobody could join ours if it were made as it is.
func TestCgroupBelowUnfilled(t *testing.T) {
	b := newBox(t, "true")
	above := b.spec.Linux.CgroupsPath
	l, err := cgroup.Detect()
	check(t, err)
	b.spec.Linux.CgroupsPath += "/box"
	dirs, err := plan.Dirs(l, b.spec.Linux.CgroupsPath)
	check(t, err)
	for _, d := range dirs {
		top := filepath.Join(d.Mount, above)
		check(t, os.MkdirAll(top, 0o755))
		defer os.Remove(filepath.Dir(top))
		defer os.Remove(top)
	}
	b.says("")
}

// Class G: a cgroup that was there before, somebody else's, has its settings after a container was made below it.
func TestCgroupAboveIsOthers(t *testing.T) {
	b := newBox(t, "true")
	theirs := b.spec.Linux.CgroupsPath
	l, err := cgroup.Detect()
	check(t, err)
	b.spec.Linux.CgroupsPath += "/ours/box"
	dirs, err := plan.Dirs(l, b.spec.Linux.CgroupsPath)
	check(t, err)
	for _, d := range dirs {
		top := filepath.Join(d.Mount, theirs)
		check(t, os.MkdirAll(top, 0o755))
		defer os.Remove(filepath.Dir(top))
		defer os.Remove(top)
		defer os.Remove(filepath.Join(top, "ours"))
		if d.Has("cpuset") && !d.V2 { // whatever a cgroup above has, that other tests share
			check(t, os.WriteFile(filepath.Join(top, "cgroup.clone_children"), []byte("0"), 0o644))
		}
	}
	b.says("")
	for _, d := range dirs {
		if d.V2 || !d.Has("cpuset") {
			continue
		}
		for dir, want := range map[string]string{theirs: "0\n", theirs + "/ours": "1\n"} {
			if got, err := os.ReadFile(filepath.Join(d.Mount, dir, "cgroup.clone_children")); string(got) != want {
				t.Errorf("%s: clone_children is %q (%v), want %q", dir, got, err, want)
			}
		}
	}
}

// Class D: what an image holds where a tmpfs with tmpcopyup goes, a file with a hole of terabytes for one, fills no more memory than the container
// may have, though the container's cgroup does not pay for it.
func TestCopyUpWithinMemory(t *testing.T) {
	b := newBox(t)
	limit := int64(16 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	for _, name := range []string{"mnt/hole", "tmp/hole"} { // together they are too large
		check(t, os.WriteFile(filepath.Join(b.rootfs(), name), nil, 0o644))
		check(t, os.Truncate(filepath.Join(b.rootfs(), name), 10<<20))
	}
	if c, _, err := b.create(); err == nil {
		t.Error("the container was created")
		check(t, c.Delete(true))
		wait(t, c.Init())
	} else if !strings.Contains(err.Error(), "tmpcopyup: hole") || !strings.Contains(err.Error(), "memory.limit") {
		t.Error(err)
	}
	check(t, os.Truncate(filepath.Join(b.rootfs(), "tmp/hole"), 1<<20))
	b.spec.Process.Args = []string{"stat", "-c", "%s", "/tmp/hole"}
	if out, code := b.run(); code != 0 || out != "1048576\n" {
		t.Errorf("a copy that fits: exit code %d: %q", code, out)
	}
}
