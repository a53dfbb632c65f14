package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// A container that is just being made can be deleted by force only: who makes it finds that out and takes back what is left.
func TestDeleteWhatIsBeingCreated(t *testing.T) {
	b := newBox(t, "true")
	reached, proceed := filepath.Join(b.dir, "reached"), filepath.Join(b.dir, "proceed")
	check(t, errors.Join(unix.Mkfifo(reached, 0o600), unix.Mkfifo(proceed, 0o600)))
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo here > " + reached + "; read go < " + proceed}}}}
	tell := func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		check(t, err)
		defer f.Close()
		_, err = f.WriteString("go\n")
		check(t, err)
	}
	for _, force := range []bool{false, true} {
		made := make(chan error)
		var c *Container
		go func() {
			var err error
			c, _, err = b.create()
			made <- err
		}()
		_, err := os.ReadFile(reached)
		check(t, err)
		other, err := Load(b.root, b.id)
		check(t, err)
		err = other.Delete(force)
		if force {
			check(t, err)
			if _, err := Load(b.root, b.id); !errdef.Is(err, errdef.NotFound) {
				t.Errorf("its state: %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "it is being created") {
			t.Errorf("deleted: %v", err)
		}
		tell(proceed)
		if err = <-made; (err != nil) != force {
			t.Errorf("created, deleted by force %v: %v", force, err)
		}
		if err == nil {
			check(t, c.Start())
			wait(t, c.Init())
			check(t, c.Delete(false))
		}
	}
}

// Of two that delete a container one may come late, when another container has its name: that one is left alone.
func TestDeleteAnOlderOne(t *testing.T) {
	b := newBox(t)
	first := b.createDetached()
	late, err := Load(b.root, b.id)
	check(t, err)
	other, err := Load(b.root, b.id)
	check(t, err)
	check(t, other.Delete(true))
	wait(t, first.Init())
	check(t, late.Delete(true))
	second := b.createDetached()
	check(t, late.Delete(true))
	if status, err := second.Status(); status != state.Created || err != nil {
		t.Errorf("the second is %s, %v", status, err)
	}
	lock, err := lockFolder(second.dir())
	check(t, err)
	done := make(chan error)
	now, err := Load(b.root, b.id)
	check(t, err)
	go func() { done <- now.Delete(true) }() // waits for the other one who deletes it
	lock.release(false)
	check(t, <-done)
	wait(t, second.Init())
}

// What has no state yet may be somebody's who is making it: only he or, after his end, another removes it.
func TestDiscardNothingOfOthers(t *testing.T) {
	root := t.TempDir()
	dir, lock, err := newFolder(&CreateOptions{Root: root, ID: "one"})
	check(t, err)
	check(t, Discard(root, "one"))
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("removed while it was made: %v", err)
	}
	lock.release(false)
	check(t, state.Save(dir, &state.State{ID: "one"}))
	check(t, Discard(root, "one"))
	if _, err := Load(root, "one"); err != nil {
		t.Errorf("removed although it has a state by now: %v", err)
	}
	check(t, os.Remove(filepath.Join(dir, state.File)))
	check(t, Discard(root, "one"))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	old, lock, err := newFolder(&CreateOptions{Root: root, ID: "one"})
	check(t, err)
	check(t, os.Remove(old)) // and another makes one of the same name
	_, next, err := newFolder(&CreateOptions{Root: root, ID: "one"})
	check(t, err)
	lock.release(true)
	if next.gone() {
		t.Error("somebody else's folder was removed")
	}
	next.release(true)
	if !next.gone() {
		t.Error("a folder was not removed")
	}
}

// Who makes a container for others to start may be killed before he has written down which process it is: it must not wait for ever.
func TestParkedChildEndsWithItsCreator(t *testing.T) {
	b := newBox(t, "true")
	o := CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Detached: true}
	dir, lock, err := newFolder(&o)
	check(t, err)
	defer lock.release(true)
	in, closeFacts, err := input(&o, dir)
	check(t, err)
	defer closeFacts()
	p, err := compile.Compile(in)
	check(t, err)
	r, err := interp.Run(p, interp.Env{})
	check(t, err)
	init, err := process(r.Pid)
	check(t, err)
	r.Forget() // as the kernel closes our end of the line when we are killed
	wait(t, init)
	dirs, err := in.CgroupDirs()
	check(t, err)
	check(t, removeCgroups(&state.State{Cgroups: dirs}))
}

// The first process of a container that was killed has let go of its namespaces while it waits for the others, which are dead and not reaped.
func TestExecInWhatIsDying(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	p := *b.spec.Process
	other, err := c.Exec(ExecOptions{Process: &p})
	check(t, err)
	check(t, c.Signal(unix.SIGKILL, false))
	check(t, unix.Waitid(unix.P_PIDFD, int(other.Pidfd.Fd()), nil, unix.WEXITED|unix.WNOWAIT, nil))
	_, _, err = b.exec(c, ExecOptions{}, "true")
	if err == nil || !strings.Contains(err.Error(), "cannot exec in a stopped container") {
		t.Errorf("exec: %v", err)
	}
	wait(t, other)
}

// Arguments may take what execve(2) grants with the limit of the stack that the config sets: three quarters of 8 MiB at most.
func TestManyArguments(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo $#")
	for range 25 {
		b.spec.Process.Args = append(b.spec.Process.Args, strings.Repeat("x", 120_000))
	}
	b.spec.Process.Rlimits = append(b.spec.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_STACK", Soft: 64 << 20, Hard: 64 << 20})
	if out, code := b.run(); out != "24\n" || code != 0 {
		t.Errorf("%q, code %d", out, code)
	}
}

// Somebody may move a container's processes elsewhere and remove its cgroups: it can still be signalled and deleted.
func TestCgroupsGone(t *testing.T) {
	for _, shared := range []bool{false, true} {
		b := newBox(t)
		if shared {
			b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
		}
		c := b.sleeping()
		for _, d := range c.State.Cgroups {
			check(t, os.WriteFile(filepath.Join(d.Mount, "cgroup.procs"), []byte(strconv.Itoa(c.State.Pid)), 0))
			check(t, os.Remove(d.Path))
		}
		if err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(10))}}); err == nil || !strings.Contains(err.Error(), "the cgroup is gone") {
			t.Errorf("update: %v", err)
		}
		check(t, c.Signal(unix.SIGKILL, !shared))
		if code := wait(t, c.Init()); code != 137 {
			t.Errorf("code %d", code)
		}
		check(t, c.Delete(false))
	}
}

// Of what others do between two looks at a container its own words are told.
func TestNotParked(t *testing.T) {
	b := newBox(t)
	c := b.createDetached()
	t.Cleanup(func() { check(t, c.Delete(true)) })
	ctl := filepath.Join(c.dir(), state.ParkCtl)
	says := func(want string) {
		t.Helper()
		if err := c.releaseParked(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	check(t, os.Rename(ctl, ctl+".away"))
	says("cannot start an already running container")
	check(t, os.Rename(ctl+".away", ctl))
	check(t, c.Signal(unix.SIGKILL, false))
	wait(t, c.Init())
	says("cannot start a container that has stopped")
	at := filepath.Join(c.dir(), state.File)
	check(t, errors.Join(os.Remove(ctl), os.Rename(at, at+".away")))
	says("container does not exist")
	check(t, os.Rename(at+".away", at))
}

// A path that cannot be a cgroup's is told by its field.
func TestCgroupsPathIsAFile(t *testing.T) {
	b := newBox(t)
	l, err := cgroup.Detect()
	check(t, err)
	dirs, err := plan.Dirs(l, "/x")
	check(t, err)
	es, err := os.ReadDir(dirs[0].Mount)
	check(t, err)
	i := slices.IndexFunc(es, func(e os.DirEntry) bool { return !e.IsDir() && !strings.HasPrefix(e.Name(), "cgroup.") })
	if i < 0 {
		t.Skip("no file here whose name is not the kernel's")
	}
	b.spec.Linux.CgroupsPath = "/" + es[i].Name() + "/" + b.id
	if _, _, err := b.create(); err == nil || !strings.Contains(err.Error(), "linux.cgroupsPath: ") {
		t.Errorf("created: %v", err)
	}
}
