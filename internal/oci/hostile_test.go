package oci

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// One hostile fixture per class of holes (docs/security.md) and entry point: what an image or a container prepares, against create, run and exec.

// canary is a folder of the host's that nothing may touch.
type canary struct {
	t    *testing.T
	dir  string
	file string
}

func newCanary(t *testing.T) *canary {
	c := &canary{t: t, dir: t.TempDir()}
	c.file = filepath.Join(c.dir, "file")
	check(t, os.WriteFile(c.file, []byte("canary"), 0o600))
	return c
}

// sings checks that the canary is as it was.
func (c *canary) sings() {
	c.t.Helper()
	es, err := os.ReadDir(c.dir)
	check(c.t, err)
	if len(es) != 1 || es[0].Name() != "file" {
		c.t.Fatalf("the host's folder now holds %v", es)
	}
	if b, err := os.ReadFile(c.file); err != nil || string(b) != "canary" {
		c.t.Fatalf("the host's file now holds %q (%v)", b, err)
	}
	if fi, err := os.Stat(c.file); err != nil || fi.Mode() != 0o600 {
		c.t.Fatalf("the host's file now has mode %v (%v)", fi.Mode(), err)
	}
}

// swaps exchanges a folder of the root with a symbolic link again and again until stop is called (renameat2(2), RENAME_EXCHANGE).
func swaps(t *testing.T, path, link string) (stop func()) {
	t.Helper()
	other := path + ".swapped"
	check(t, os.Symlink(link, other))
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
				if testing.Short() { // all that is raced takes long in an emulated machine, and its processors are needed for that
					time.Sleep(50 * time.Microsecond)
				}
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

// races is how often each entry point is tried against a swapper; HARDENING's figure of 10,000 is DHOW_RACES=10000.
func races(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("DHOW_RACES")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 3
	}
	return 40
}

// Class P: targets of mounts, devices, masks, sysctls and the working folder, swapped for links to the host while containers are made.
func TestSwappedTargets(t *testing.T) {
	for _, target := range []string{"/dev", "/mnt", "/mnt/deep", "/etc", "/proc", "/sys"} {
		t.Run(strings.ReplaceAll(target[1:], "/", "-"), func(t *testing.T) {
			b := newBox(t)
			host := newCanary(t)
			inside := filepath.Join(b.rootfs(), target)
			check(t, os.MkdirAll(inside, 0o755))
			source := t.TempDir()
			check(t, os.WriteFile(filepath.Join(source, "f"), nil, 0o644))
			b.spec.Mounts = append(b.spec.Mounts, mount("/mnt/deep/dir", source, "rbind"), mount("/mnt/deep/file", filepath.Join(source, "f"), "bind", "ro"),
				specs.Mount{Destination: "/mnt/deep/tmp", Type: "tmpfs", Source: "tmpfs"}, mount("/etc/hosts", filepath.Join(source, "f"), "bind"))
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/mnt/deep/node", Type: "c", Major: 1, Minor: 3}}
			b.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": "1"}
			b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/etc/passwd", "/mnt/deep/secret")
			b.spec.Process.Cwd = "/etc/cwd/deep"
			stop := swaps(t, inside, host.dir)
			for range races(t) {
				c, out, err := b.create()
				if err == nil {
					if c.Start() == nil { // else the working folder is gone again
						wait(t, c.Init())
					}
					check(t, c.Delete(true))
				}
				<-out.done
			}
			stop()
			host.sings()
		})
	}
}

// Class P, exec: the working folder is swapped for a link out while processes are started in it. Nobody ever works outside of the root.
func TestExecSwappedFolder(t *testing.T) {
	b := newBox(t)
	check(t, os.MkdirAll(filepath.Join(b.rootfs(), "mnt/work"), 0o755))
	host := newCanary(t)
	c := b.sleeping()
	stop := swaps(t, filepath.Join(b.rootfs(), "mnt/work"), strings.Repeat("../", 20)+strings.TrimPrefix(host.dir, "/"))
	defer stop()
	for range races(t) {
		p := *b.spec.Process
		p.Cwd, p.Args = "/mnt/work", []string{"sh", "-c", "echo hacked > file; cat file"}
		proc, err := c.Exec(ExecOptions{Process: &p})
		if err == nil {
			wait(t, proc)
		}
	}
	host.sings()
}

// Class F: a working folder that names a descriptor or a path by way of /proc leads nowhere, for the first process and for exec.
func TestWorkingFolderByDescriptor(t *testing.T) {
	dir, err := os.Open("/")
	check(t, err)
	defer dir.Close()
	_, err = unix.FcntlInt(dir.Fd(), unix.F_SETFD, 0)
	check(t, err)
	running := newBox(t)
	c := running.sleeping()
	for _, cwd := range []string{fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), "/proc/self/fd/7", "/proc/self/fd/8/../../..", "/proc/1/root/../..", "/proc/self/cwd", "/proc/thread-self/root"} {
		t.Run(strings.ReplaceAll(cwd[1:], "/", "-"), func(t *testing.T) {
			b := newBox(t, "sh", "-c", "readlink /proc/self/cwd; ls -d /rootfs-of-the-container")
			check(t, os.Mkdir(filepath.Join(b.rootfs(), "rootfs-of-the-container"), 0o755))
			b.spec.Process.Cwd = cwd
			made, out, err := b.create()
			if err == nil {
				if err = made.Start(); err == nil {
					wait(t, made.Init())
				}
				check(t, made.Delete(true))
			}
			if said := <-out.done; err == nil && !strings.Contains(said, "/rootfs-of-the-container") {
				t.Errorf("a process ran outside of the root: %s", said)
			}
			p := *b.spec.Process
			o := newOutput(t)
			p.Args = []string{"sh", "-c", "ls -d ./etc/hostname ./root/.bashrc ../../../etc/hostname 2>/dev/null; true"}
			proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, o.w, o.w}})
			o.w.Close()
			if err == nil {
				wait(t, proc)
			}
			if said := <-o.done; said != "" {
				t.Errorf("exec sees files of the host: %s", said)
			}
		})
	}
}

// Class F: exec'd processes hold nothing but the three, whatever the caller left open.
func TestExecHoldsNothing(t *testing.T) {
	secret, err := os.Open("/etc/hostname")
	check(t, err)
	defer secret.Close()
	_, err = unix.FcntlInt(secret.Fd(), unix.F_SETFD, 0)
	check(t, err)
	b := newBox(t)
	c := b.sleeping()
	p := *b.spec.Process
	o := newOutput(t)
	p.Args = []string{"sh", "-c", "for f in /proc/$$/fd/*; do readlink $f; done"}
	p.Capabilities = &specs.LinuxCapabilities{} // a process that gains rights by execve(2) cannot be looked at
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, o.w, o.w}})
	check(t, err)
	o.w.Close()
	wait(t, proc)
	if said := <-o.done; strings.Contains(said, "hostname") || strings.Count(said, "\n") != 3 || strings.Count(said, "pipe:") != 2 {
		t.Errorf("exec holds\n%s", said)
	}
}

// watcher keeps every program but its own that shows up in its PID namespace open, and tries to write to it for as long as it can.
const watcher = `
read now _ </proc/uptime
end=$((${now%.*} + 120)) # it ends by itself should nobody be left to end it
while [ ${now%.*} -lt $end ]; do
	read now _ </proc/uptime
	for p in /proc/[0-9]*; do
		[ -e $p/exe ] && ! [ $p/exe -ef /bin/busybox ] && (
			exec 7<$p/exe
			echo caught >>/mnt/caught
			n=0
			while [ $n -lt 3000 ]; do
				echo overwritten 2>/dev/null >/proc/self/fd/7 && echo yes >>/mnt/overwritten
				n=$((n + 1))
			done
		) 2>/dev/null &
	done
done`

// Class F, CVE-2019-5736: whoever may trace (CAP_SYS_PTRACE) inside a container gets hold of what enters it, and still cannot write to
// the runtime's program: neither by exec nor by another container that joins the PID namespace.
func TestProgramOutOfReach(t *testing.T) {
	b := newBox(t, "sh", "-c", watcher)
	tracing := []string{tracer}
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: tracing, Effective: tracing, Permitted: tracing}
	bin := buildRuntime(t)
	before, err := os.ReadFile(bin)
	check(t, err)
	c := b.sleepingAs()
	guest := newBox(t)
	for i, n := range guest.spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			guest.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", c.Init().Pid)
		}
	}
	guest.spec.Root.Path = b.rootfs()         // what it executes is no stranger to the watcher
	guest.spec.Mounts = guest.spec.Mounts[1:] // its own procfs would show the namespace of the test
	guest.spec.Linux.MaskedPaths, guest.spec.Linux.ReadonlyPaths = nil, nil
	check(t, bundle.Save(guest.dir, guest.spec, nil))
	caught := func() bool {
		_, err := os.Stat(filepath.Join(b.rootfs(), "mnt/caught"))
		return err == nil
	}
	for n, most := 0, races(t); n < most || n < 200 && !caught(); n++ { // a busy machine leaves the watcher few chances
		for _, args := range [][]string{{"exec", b.id, "/bin/true"}, {"run", "--bundle", guest.dir, guest.id}} {
			if out, err := exec.Command(bin, append([]string{"--root", b.root}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
	}
	time.Sleep(50 * time.Millisecond) // nobody executes the program now: who still holds it writes
	if !caught() {
		t.Error("the watcher never caught a program: the test proves nothing")
	}
	after, err := os.ReadFile(bin)
	check(t, err)
	if _, err := os.Stat(filepath.Join(b.rootfs(), "mnt/overwritten")); err == nil || !bytes.Equal(before, after) {
		t.Error("a container wrote to the runtime's program")
	}
}

// An exec that is given CAP_SYS_PTRACE, and a container that joins the PID namespace with it, put every later exec on guard.
func TestWatchedIsMarked(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	marked := func() bool { _, err := os.Stat(filepath.Join(b.root, b.id, state.Watched)); return err == nil }
	if marked() {
		t.Error("marked without a reason")
	}
	p := *b.spec.Process
	caps := *p.Capabilities
	caps.Bounding = append([]string{tracer}, caps.Bounding...)
	p.Capabilities, p.Args = &caps, []string{"true"}
	proc, err := c.Exec(ExecOptions{Process: &p})
	check(t, err)
	wait(t, proc)
	if !marked() {
		t.Error("exec with CAP_SYS_PTRACE left no mark")
	}
	check(t, os.Remove(filepath.Join(b.root, b.id, state.Watched)))
	guest := newBox(t)
	guest.root = b.root
	guest.spec.Process.Capabilities = &caps
	for i, n := range guest.spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			guest.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", c.Init().Pid)
		}
	}
	guest.run()
	guest.root = filepath.Join(guest.dir, "state") // where nothing may be left
	if !marked() {
		t.Error("a container with CAP_SYS_PTRACE joined unnoticed")
	}
}

// sleepingAs starts the container with its own command and removes it when the test ends.
func (b *box) sleepingAs() *Container {
	b.t.Helper()
	c, _, err := b.create()
	check(b.t, err)
	check(b.t, c.Start())
	b.t.Cleanup(func() {
		check(b.t, c.Delete(true))
		wait(b.t, c.Init())
	})
	return c
}

// Class K: an image that brings its own /dev/null gets no mask made of it, whatever it is.
func TestFalseNull(t *testing.T) {
	for name, plant := range map[string]func(path string, host *canary) error{
		"link to a host file":  func(p string, host *canary) error { return os.Symlink(host.file, p) },
		"link to sysrq":        func(p string, _ *canary) error { return os.Symlink("/proc/sysrq-trigger", p) },
		"plain file":           func(p string, _ *canary) error { return os.WriteFile(p, []byte("x"), 0o644) },
		"folder":               func(p string, _ *canary) error { return os.Mkdir(p, 0o755) },
		"another device (1:5)": func(p string, _ *canary) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"fifo":                 func(p string, _ *canary) error { return unix.Mkfifo(p, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "cat", "/proc/kcore")
			host := newCanary(t)
			dev := filepath.Join(t.TempDir(), "dev")
			check(t, os.Mkdir(dev, 0o755))
			check(t, plant(filepath.Join(dev, "null"), host))
			b.spec.Mounts[1] = mount("/dev", dev, "rbind")
			b.spec.Mounts = append(b.spec.Mounts[:2], b.spec.Mounts[3:]...) // no devpts
			c, out, err := b.create()
			if err == nil {
				check(t, c.Delete(true))
				wait(t, c.Init())
				t.Error("a container was made with a mask of unknown make")
			} else if !strings.Contains(err.Error(), "linux.maskedPaths") {
				t.Errorf("the error does not name the field: %v", err)
			}
			<-out.done
			host.sings()
		})
	}
}

// Class K: sysctls go to the kernel and nowhere else, whatever lies at /proc of the image; a config whose /proc is no procfs changes nothing.
func TestSysctlWithoutProc(t *testing.T) {
	b := newBox(t, "cat", "/proc/sys/kernel/shm_rmid_forced")
	check(t, os.MkdirAll(filepath.Join(b.rootfs(), "proc/sys/kernel"), 0o755))
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "proc/sys/kernel/shm_rmid_forced"), []byte("image's"), 0o644))
	b.spec.Mounts = b.spec.Mounts[1:] // no proc
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = nil, nil
	b.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": "1"}
	if out, code := b.run(); out != "image's" || code != 0 {
		t.Errorf("the image's file holds %q (code %d)", out, code)
	}
}

// Class C: users out of range and rights that nobody asked for, in exec as in create.
func TestExecIdentity(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	p := *b.spec.Process
	p.User.UID = 1<<32 - 1
	if _, err := c.Exec(ExecOptions{Process: &p}); errdef.KindOf(err) != errdef.InvalidArgument || !strings.Contains(err.Error(), "process.user") {
		t.Errorf("user 4294967295: %v", err)
	}
	p = *b.spec.Process
	p.User.UID, p.User.GID, p.User.AdditionalGids = 1<<31+5, 1<<31+6, []uint32{1<<32 - 2}
	p.Args = []string{"sh", "-c", "id -u; id -g; id -G; grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status"}
	o := newOutput(t)
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, o.w, o.w}})
	check(t, err)
	o.w.Close()
	wait(t, proc)
	none := "0000000000000000\n"
	want := "2147483653\n2147483654\n2147483654 4294967294\nCapInh:\t" + none + "CapPrm:\t" + none + "CapEff:\t" + none + "CapAmb:\t" + none
	if said := <-o.done; said != want {
		t.Errorf("exec runs as\n%s, want\n%s", said, want)
	}
}

// Class G: cgroups cannot be written, left or made from inside, and no release agent is in reach, with a cgroup namespace or without one.
func TestCgroupsAreOutOfReach(t *testing.T) {
	for _, namespace := range []bool{true, false} {
		t.Run(fmt.Sprintf("namespace=%v", namespace), func(t *testing.T) {
			b := newBox(t, "sh", "-c", `
for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -o -name notify_on_release -o -name tasks); do ( echo 0 >$f ) 2>/dev/null && echo wrote $f; done
for d in $(find /sys/fs/cgroup -type d); do mkdir $d/new 2>/dev/null && echo made $d/new; done
find /sys/fs/cgroup -name release_agent | while read f; do echo agent $f; done
grep -c cgroup /proc/self/mountinfo >/dev/null && echo mounted`)
			check(t, os.Symlink("busybox", filepath.Join(b.rootfs(), "bin/find")))
			if !namespace {
				b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:5]
			}
			for i := range b.spec.Mounts {
				if b.spec.Mounts[i].Type == "cgroup" && !namespace { // as asked by a careless caller: writable
					b.spec.Mounts[i].Options = []string{"nosuid", "noexec", "nodev"}
				}
			}
			out, _ := b.run()
			if !strings.Contains(out, "mounted\n") {
				t.Errorf("no cgroup is mounted: the test proves nothing: %q", out)
			}
			for _, line := range strings.Split(out, "\n") {
				if strings.HasPrefix(line, "agent") || namespace && line != "" && line != "mounted" {
					t.Errorf("in reach: %s", line)
				}
			}
		})
	}
}
