package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/checkpoint"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// Images that the container could write itself are neither made nor believed.
func TestImagesWithinReach(t *testing.T) {
	b := newBox(t)
	shared := t.TempDir()
	b.spec.Mounts = append(b.spec.Mounts, mount("/data", shared, "bind"), mount("/read", b.dir, "bind", "ro"))
	link := filepath.Join(b.dir, "link")
	check(t, os.Symlink(b.rootfs(), link))
	c := b.sleeping()
	for _, tt := range []struct{ images, work, text string }{
		{filepath.Join(b.rootfs(), "images"), "", "root.path"},
		{filepath.Join(link, "images"), "", "root.path"},
		{filepath.Join(shared, "images"), "", "mounts[5].source"},
		{filepath.Join(b.dir, "images"), filepath.Join(shared, "work"), "--work-path"},
	} {
		o := &checkpoint.Options{Images: tt.images, Work: tt.work, StatusFD: -1}
		if err := Checkpoint(c, o); !errdef.Is(err, errdef.Forbidden) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("checkpoint into %s: %v", tt.images, err)
		}
		other := CreateOptions{ID: b.id + "x", Root: b.root, Bundle: b.dir, Spec: b.spec}
		spec, linux := *b.spec, *b.spec.Linux
		linux.CgroupsPath += "x"
		spec.Linux, other.Spec = &linux, &spec
		if _, err := Restore(other, o); !errdef.Is(err, errdef.Forbidden) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("restore from %s: %v", tt.images, err)
		}
	}
	if status, err := c.Status(); status != state.Running || err != nil {
		t.Errorf("the container is %s, %v", status, err)
	}
}

// A real checkpoint and what was changed since: mount points that are symbolic links now, in the root file system and in a volume that others
// write to, a config that has not the mounts, or wants more than criu gives back, a hook that fails. Nothing is mounted, made or read outside, and
// nothing stays. What comes back in the end has the session keyring that create would have given it, and whoever enters it must run from a
// read-only mount, for its processes may have rights that config.json does not name.
func TestRestoreRefuses(t *testing.T) {
	needCriu(t)
	b := counting(t)
	b.spec.Linux.MaskedPaths = nil
	b.spec.Process.Args[2] = strings.Replace(b.spec.Process.Args[2], "sleep", "cat /proc/keys > /mnt/.k; mv /mnt/.k /mnt/keys; sleep", 1)
	outside, victim, log := filepath.Join(b.dir, "outside"), filepath.Join(t.TempDir(), "victim"), filepath.Join(b.dir, "hooks")
	check(t, os.MkdirAll(filepath.Join(outside, "point"), 0o755))
	check(t, os.Mkdir(victim, 0o755))
	b.spec.Mounts = append(b.spec.Mounts, mount("/data", outside, "bind"), specs.Mount{Destination: "/data/point", Type: "tmpfs", Source: "tmpfs"})
	c := b.start()
	b.count(3)
	b.dump(c, b.images())
	refused := func(name, text string) {
		t.Helper()
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		check(t, err)
		defer null.Close()
		c, err := Restore(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}}, b.images())
		if err == nil {
			c.Delete(true)
			wait(t, c.Init())
		}
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
		if es, _ := os.ReadDir(victim); len(es) > 0 {
			t.Errorf("%s: made %s outside", name, es[0].Name())
		}
		reapAll()
	}
	for _, p := range []string{filepath.Join(b.rootfs(), "data"), filepath.Join(b.rootfs(), "mnt"), filepath.Join(b.rootfs(), "proc"), filepath.Join(outside, "point")} {
		check(t, os.Remove(p))
		check(t, os.Symlink(victim, p))
		refused(p+" is a link now", "symbolic link")
		check(t, os.Remove(p))
		check(t, os.Symlink("/etc", p)) // inside it leads to a folder
		refused(p+" is a link inside now", "symbolic link")
		check(t, os.Remove(p))
		check(t, os.Mkdir(p, 0o755))
	}
	mounts := b.spec.Mounts
	without := func(i int) []specs.Mount { return slices.Delete(slices.Clone(mounts), i, i+1) }
	b.spec.Mounts = without(len(mounts) - 2)
	refused("no bind in the config", "no mount of config.json accounts for")
	b.spec.Mounts = without(len(mounts) - 3)
	refused("no tmpfs in the config", "had no right to mount")
	b.spec.Mounts = slices.Clone(mounts)
	b.spec.Mounts[len(mounts)-2].Source = "/nowhere"
	refused("no source", "/nowhere")
	b.spec.Mounts = mounts
	b.spec.Process.NoNewPrivileges = true // the saved process has it not, as with criu before version 4
	refused("fewer limits than the config's", "process.noNewPrivileges")
	b.spec.Process.NoNewPrivileges = false
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " >> " + log}}}
	}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: append(hook("made"), specs.Hook{Path: "/bin/false"}), Poststop: hook("taken back")}
	refused("a hook that fails", "hooks.createRuntime[1]")
	if text, _ := os.ReadFile(log); string(text) != "made\ntaken back\n" {
		t.Errorf("hooks: %q", text)
	}
	b.spec.Hooks = nil
	c = b.restore(b.images())
	b.count(b.count(0) + 1)
	keys, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/mnt/keys", c.State.Pid))
	check(t, err)
	if !strings.Contains(string(keys), c.State.Keyring) {
		t.Errorf("its keys: %s", keys)
	}
	if got := b.say(c, "cat /proc/keys"); strings.Count(got, c.State.Keyring) != 1 {
		t.Errorf("an exec's keys: %s", got)
	}
	if _, err := os.Stat(filepath.Join(b.root, b.id, state.Watched)); err != nil {
		t.Errorf("no mark: %v", err)
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
}

// reapAll takes what a failed restore left of its children.
func reapAll() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD || pid == 0 {
			return
		}
	}
}

// A process that has the container's number and is not the container's is not saved, and lives on.
func TestCheckpointOfAnotherProcess(t *testing.T) {
	needCriu(t)
	b := counting(t)
	c := b.start()
	n := b.count(1)
	err := checkpoint.Dump(&checkpoint.Container{PID: c.State.Pid, Alive: func() bool { return false }, Bundle: b.dir, Rootfs: c.State.Rootfs, Spec: b.spec,
		Cgroups: c.State.Cgroups}, b.images())
	if err == nil || !strings.Contains(err.Error(), "not the container's any more") {
		t.Errorf("%v", err)
	}
	b.count(n)
	check(t, c.Delete(true))
	wait(t, c.Init())
}
