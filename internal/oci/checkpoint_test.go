package oci

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/checkpoint"
	"github.com/dhow-containers/dhow/internal/oci/criu"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

// needCriu skips where criu is absent or does not work with this kernel (Debian 12 has 3.17, which fails on Linux 6.18).
func needCriu(t *testing.T) {
	t.Helper()
	path, err := criu.Find()
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.Command(path, "check").CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("criu check fails on this kernel: %s", lines[len(lines)-1])
	}
}

// counting is a container that counts in its memory and shows where it is in a file on a tmpfs.
func counting(t *testing.T) *box {
	b := newBox(t)
	b.spec.Process.Args = []string{"sh", "-c", "read t </proc/sys/kernel/random/uuid; i=0; while true; do i=$((i+1)); echo $i $t > /mnt/.n; mv /mnt/.n /mnt/n; sleep 0.05; done"}
	check(t, os.Symlink("busybox", filepath.Join(b.rootfs(), "bin/mv")))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1m"}})
	return b
}

// start is create and start with /dev/null for its descriptors.
func (b *box) start() *Container {
	b.t.Helper()
	c := b.startWith(Create, nil)
	check(b.t, c.Start())
	return c
}

func (b *box) startWith(make func(CreateOptions) (*Container, error), console func(*os.File) error) *Container {
	b.t.Helper()
	check(b.t, bundle.Save(b.dir, b.spec, nil))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(b.t, err)
	defer null.Close()
	c, err := make(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}, Console: console})
	check(b.t, err)
	b.t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(b.root, b.id)); err == nil && c.init != nil {
			c.Delete(true)
			unix.Wait4(c.init.Pid, nil, 0, nil)
		}
	})
	return c
}

func (b *box) images() *checkpoint.Options {
	return &checkpoint.Options{Images: filepath.Join(b.dir, "images"), StatusFD: -1}
}

// dump saves the container and removes it.
func (b *box) dump(c *Container, o *checkpoint.Options) {
	b.t.Helper()
	check(b.t, Checkpoint(c, o))
	wait(b.t, c.init)
	check(b.t, c.Delete(true))
}

func (b *box) restore(o *checkpoint.Options) *Container {
	b.t.Helper()
	return b.startWith(func(co CreateOptions) (*Container, error) { return Restore(co, o) }, nil)
}

// say runs a command in the container.
func (b *box) say(c *Container, script string) string {
	b.t.Helper()
	out := newOutput(b.t)
	p := *b.spec.Process
	p.Terminal, p.Args = false, []string{"sh", "-c", script}
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, out.w, out.w}})
	check(b.t, err)
	out.w.Close()
	wait(b.t, proc)
	return strings.TrimSpace(<-out.done)
}

// count waits until the counter is above a number, and returns it. What it counts in is the memory it began with.
func (b *box) count(above int) int {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := Load(b.root, b.id)
		check(b.t, err)
		var n int
		var memory string
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/mnt/n", c.State.Pid))
		if _, err := fmt.Sscan(string(text), &n, &memory); err != nil || n <= above {
			continue
		}
		if b.memory == "" {
			b.memory = memory
		}
		if memory != b.memory {
			b.t.Fatalf("the counter is another process: %s, was %s", memory, b.memory)
		}
		return n
	}
	b.t.Fatalf("the counter does not get above %d", above)
	return 0
}

// inside is what a process sees of its surroundings, with what differs from run to run left out.
func inside(t *testing.T, pid int) string {
	t.Helper()
	var out strings.Builder
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	check(t, err)
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(string(mounts)), "\n") {
		f := strings.Fields(l)
		options := regexp.MustCompile(`,?(inode64|seclabel|nsdelegate|memory_recursiveprot)`).ReplaceAllString(f[len(f)-1], "")
		if f[4] == "/proc/keys" || f[4] == "/proc/kcore" { // masked: by the container's /dev/null before, by the host's after
			lines = append(lines, f[4])
			continue
		}
		lines = append(lines, f[4]+" "+f[5]+" "+f[len(f)-3]+" "+options)
	}
	sorted := append([]string(nil), lines...)
	for i := range sorted {
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	out.WriteString(strings.Join(sorted, "\n") + "\n")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for _, l := range strings.Split(string(status), "\n") {
		if regexp.MustCompile(`^(Name|Umask|Uid|Gid|Groups|Cap|NoNew|Seccomp)`).MatchString(l) {
			out.WriteString(l + "\n")
		}
	}
	cg, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	check(t, err)
	out.Write(cg)
	open := descriptors(t, pid)
	for strings.Contains(open, "/mnt/.n") || strings.Contains(open, "\n10 ") { // the shell is writing: it keeps its standard output as 10
		open = descriptors(t, pid)
	}
	return out.String() + open
}

func descriptors(t *testing.T, pid int) string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	check(t, err)
	var out strings.Builder
	for _, fd := range fds {
		target, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		out.WriteString(fd.Name() + " " + regexp.MustCompile(`\d{3,}`).ReplaceAllString(target, "N") + "\n")
	}
	return out.String()
}

// A container goes on where it was: memory, tmpfs, binds, limits, rights, masks; and again after that.
func TestCheckpointRestore(t *testing.T) {
	needCriu(t)
	b := counting(t)
	outside := filepath.Join(b.dir, "outside")
	check(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("from outside\n"), 0o644))
	check(t, os.MkdirAll(filepath.Join(b.rootfs(), "real"), 0o755))
	check(t, os.Symlink("/real", filepath.Join(b.rootfs(), "link")))
	b.spec.Mounts = append(b.spec.Mounts, mount("/data", outside, "bind", "ro"), mount("/link/here", outside, "bind"),
		mount("/etc/one", filepath.Join(outside, "file"), "bind"))
	limit := int64(33)
	b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	version, err := criu.Version()
	check(t, err)
	b.spec.Process.NoNewPrivileges = version >= 40000
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}}}
	b.spec.Hostname = "counter"
	hook := filepath.Join(b.dir, "hook")
	check(t, os.WriteFile(hook, []byte("#!/bin/sh\ncat >> "+b.dir+"/hooks\n"), 0o755))
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: hook}}}
	c := b.start()
	b.count(3)
	before := inside(t, c.State.Pid)
	for range 2 {
		n := b.count(0)
		b.dump(c, b.images())
		if _, err := Load(b.root, b.id); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("after the checkpoint: %v", err)
		}
		c = b.restore(b.images())
		if got := b.count(0); got < n {
			t.Errorf("counter at %d before and %d after", n, got)
		}
		b.count(n + 3)
		if after := inside(t, c.State.Pid); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if st, err := c.Status(); st != state.Running || err != nil {
			t.Errorf("status %v, %v", st, err)
		}
		if got := b.say(c, "hostname; cat /data/file /link/here/file /etc/one; touch /data/x 2>&1; touch /real/here/y && echo ok; cat /proc/1/comm; mkdir /tmp/d 2>&1"); got !=
			"counter\nfrom outside\nfrom outside\nfrom outside\ntouch: /data/x: Read-only file system\nok\nsh\nmkdir: can't create directory '/tmp/d': Operation not permitted" {
			t.Errorf("exec says %q", got)
		}
	}
	if calls, _ := os.ReadFile(filepath.Join(b.dir, "hooks")); strings.Count(string(calls), `"ociVersion"`) != 3 {
		t.Errorf("hooks were called with %s", calls)
	}
	check(t, c.Pause())
	check(t, c.Resume())
	check(t, c.Signal(unix.SIGKILL, false))
	if code := wait(t, c.Init()); code != 137 {
		t.Errorf("code %d", code)
	}
	check(t, c.Delete(false))
}

// A container that runs on, one that was saved in steps, one that is paused.
func TestCheckpointVariants(t *testing.T) {
	needCriu(t)
	b := counting(t)
	c := b.start()
	o := b.images()
	o.LeaveRunning = true
	check(t, Checkpoint(c, o))
	b.count(b.count(0))
	if ok, err := criu.Has(criu.MemTrack); err == nil && ok {
		pre := &checkpoint.Options{Images: filepath.Join(b.dir, "pre"), StatusFD: -1, PreDump: true}
		check(t, Checkpoint(c, pre))
		n := b.count(b.count(0))
		last := &checkpoint.Options{Images: filepath.Join(b.dir, "last"), Parent: "../pre", StatusFD: -1}
		b.dump(c, last)
		c = b.restore(&checkpoint.Options{Images: last.Images, StatusFD: -1})
		if got := b.count(0); got < n {
			t.Errorf("counter at %d before and %d after", n, got)
		}
	}
	check(t, c.Pause())
	b.dump(c, &checkpoint.Options{Images: filepath.Join(b.dir, "paused"), Work: filepath.Join(b.dir, "work"), StatusFD: -1})
	if _, err := os.Stat(filepath.Join(b.dir, "work/dump.log")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "paused/dump.log")); err == nil {
		t.Error("the log is in the image's folder too")
	}
	c = b.restore(&checkpoint.Options{Images: filepath.Join(b.dir, "paused"), StatusFD: -1})
	check(t, c.Delete(true))
	wait(t, c.Init())
}

// A read-only root, standard input and output through pipes, a network namespace that somebody else made, another user.
func TestCheckpointPipes(t *testing.T) {
	needCriu(t)
	b := newBox(t, "sh", "-c", "while read x; do echo pong $x; done")
	b.spec.Root.Readonly = true
	if hasResource(t) { // without it criu cannot ask for the limits of another user's process
		b.spec.Process.User.UID, b.spec.Process.User.GID = 1000, 1000
	}
	holder := exec.Command("unshare", "--net", "sleep", "1000")
	check(t, holder.Start())
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	ns := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	ours, _ := os.Readlink("/proc/self/ns/net")
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if theirs, _ := os.Readlink(ns); theirs != ours && theirs != "" {
			break
		}
	}
	for i := range b.spec.Linux.Namespaces {
		if b.spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = ns
		}
	}
	check(t, bundle.Save(b.dir, b.spec, nil))
	talk := func(make func(CreateOptions) (*Container, error), word string) (*Container, *os.File) {
		inR, inW, err := os.Pipe()
		check(t, err)
		outR, outW, err := os.Pipe()
		check(t, err)
		c, err := make(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{inR, outW, outW}})
		inR.Close()
		outW.Close()
		check(t, err)
		t.Cleanup(func() { c.Delete(true); unix.Wait4(c.init.Pid, nil, 0, nil); outR.Close() })
		if c.program != nil {
			check(t, c.Start())
		}
		_, err = inW.WriteString(word + "\n")
		check(t, err)
		buf := make_(64)
		n, err := outR.Read(buf)
		if got := string(buf[:n]); got != "pong "+word+"\n" || err != nil {
			t.Errorf("it answers %q, %v", got, err)
		}
		return c, inW
	}
	c, in := talk(Create, "one")
	before := inside(t, c.State.Pid)
	b.dump(c, b.images())
	in.Close()
	c, in = talk(func(o CreateOptions) (*Container, error) { return Restore(o, b.images()) }, "two")
	if after := inside(t, c.State.Pid); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if a, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.State.Pid)); a == ours || a != must(os.Readlink(ns)) {
		t.Errorf("network namespace %s", a)
	}
	in.Close()
	if code := wait(t, c.Init()); code != 0 {
		t.Errorf("code %d", code)
	}
	check(t, c.Delete(false))
}

// hasResource tells whether we have CAP_SYS_RESOURCE.
func hasResource(t *testing.T) bool {
	status, err := os.ReadFile("/proc/self/status")
	check(t, err)
	var caps uint64
	_, text, _ := strings.Cut(string(status), "CapEff:")
	_, err = fmt.Sscanf(text, "%x", &caps)
	check(t, err)
	return caps&(1<<24) != 0
}

func make_(n int) []byte { return make([]byte, n) }

func must(s string, err error) string {
	if err != nil {
		return err.Error()
	}
	return s
}

// A container with a terminal: the new master comes out of criu.
func TestCheckpointTerminal(t *testing.T) {
	needCriu(t)
	b := newBox(t, "sh", "-c", "while read x; do echo got:$x; done")
	b.spec.Process.Terminal = true
	var master *os.File
	take := func(m *os.File) error { master = m; return nil }
	c := b.startWith(Create, take)
	check(t, c.Start())
	say := func(word string) {
		t.Helper()
		_, err := master.WriteString(word + "\n")
		check(t, err)
		var all string
		for buf := make([]byte, 256); !strings.Contains(all, "got:"+word); {
			master.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := master.Read(buf)
			if all += string(buf[:n]); err != nil {
				t.Fatalf("terminal says %q, %v", all, err)
			}
		}
	}
	say("one")
	check(t, Checkpoint(c, b.images()))
	master.Close()
	master = nil
	wait(t, c.init)
	check(t, c.Delete(true))
	c = b.startWith(func(o CreateOptions) (*Container, error) { return Restore(o, b.images()) }, take)
	if master == nil {
		t.Fatal("no terminal was handed over")
	}
	say("two")
	master.Close()
	check(t, c.Delete(true))
	wait(t, c.Init())
}

// The command line: another process restores, in the foreground and detached, with its files.
func TestCheckpointCommands(t *testing.T) {
	needCriu(t)
	b := counting(t)
	bin := filepath.Join(t.TempDir(), "dhow-runtime")
	check(t, programs.Build(bin, "github.com/dhow-containers/dhow/cmd/dhow-runtime"))
	check(t, bundle.Save(b.dir, b.spec, nil))
	run := func(args ...string) (string, error) {
		cmd := exec.Command(bin, append([]string{"--root", b.root}, args...)...)
		cmd.Dir = b.dir
		r, w, err := os.Pipe()
		check(t, err)
		defer r.Close()
		cmd.Stderr = w
		err = cmd.Run()
		w.Close()
		if err == nil {
			return "", nil
		}
		out, _ := io.ReadAll(r)
		return string(out), err
	}
	do := func(args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	null := func() { b.count(0) }
	b.spec.Process.Terminal = false
	sh := exec.Command(bin, "--root", b.root, "run", "-d", "-b", b.dir, b.id) // its descriptors are /dev/null: os/exec's own
	check(t, sh.Run())
	null()
	if out, err := run("checkpoint", "--empty-ns", "pid", b.id); err == nil || !strings.Contains(out, "--empty-ns") {
		t.Errorf("--empty-ns pid: %v %s", err, out)
	}
	do("checkpoint", "--image-path", "img", "--file-locks", "--tcp-established", "--ext-unix-sk", "--manage-cgroups-mode", "soft", b.id)
	sh = exec.Command(bin, "--root", b.root, "restore", "-d", "-b", b.dir, "--image-path", filepath.Join(b.dir, "img"), "--pid-file", filepath.Join(b.dir, "pid"),
		"--file-locks", "--tcp-established", "--ext-unix-sk", b.id)
	check(t, sh.Run())
	b.count(b.count(0))
	c, err := Load(b.root, b.id)
	check(t, err)
	if pid, _ := os.ReadFile(filepath.Join(b.dir, "pid")); string(pid) != strconv.Itoa(c.State.Pid) {
		t.Errorf("pid file %q, process %d", pid, c.State.Pid)
	}
	do("checkpoint", b.id) // into ./checkpoint
	sh = exec.Command(bin, "--root", b.root, "restore", b.id)
	sh.Dir = b.dir
	check(t, sh.Start())
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err = Load(b.root, b.id); err == nil && c.State.Pid != 0 {
			break
		}
	}
	b.count(b.count(0))
	do("kill", b.id, "TERM")
	time.Sleep(100 * time.Millisecond)
	do("kill", b.id, "KILL")
	if err := sh.Wait(); err == nil || err.(*exec.ExitError).ExitCode() != 137 {
		t.Errorf("foreground restore ends with %v", err)
	}
	if _, err := Load(b.root, b.id); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("after its end: %v", err)
	}
}

// What cannot be done is one error, and leaves nothing.
func TestCheckpointRefuses(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	for _, tt := range []struct {
		name   string
		change func(*checkpoint.Options)
		text   string
	}{
		{"mode", func(o *checkpoint.Options) { o.CgroupMode = "some" }, "--manage-cgroups-mode"},
		{"page server", func(o *checkpoint.Options) { o.PageServer = "here" }, "--page-server"},
		{"status", func(o *checkpoint.Options) { o.StatusFD = 999 }, "--status-fd"},
		{"profile", func(o *checkpoint.Options) { o.LSMProfile = "apparmor:x" }, "--lsm-profile"},
	} {
		o := b.images()
		tt.change(o)
		if err := Checkpoint(c, o); errdef.KindOf(err) != errdef.InvalidArgument || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	t.Setenv("PATH", t.TempDir()) // criu absent
	if _, err := criu.Find(); err != nil && !strings.Contains(err.Error(), "criu is not installed") {
		t.Error(err)
	}
}

// hostile makes the folder of a checkpoint from outside: what criu would follow is refused before criu is started.
func TestRestoreRefusesHostileImages(t *testing.T) {
	canary := filepath.Join(t.TempDir(), "canary")
	check(t, os.WriteFile(canary, []byte("untouched"), 0o600))
	for _, tt := range []struct {
		name string
		make func(dir string) error
		text string
	}{
		{"log", func(d string) error { return os.Symlink(canary, filepath.Join(d, "restore.log")) }, "no plain file"},
		{"descriptors", func(d string) error { return os.Symlink(canary, filepath.Join(d, "descriptors.json")) }, "no plain file"},
		{"pages", func(d string) error { return os.Symlink(canary, filepath.Join(d, "pages-1.img")) }, "no plain file"},
		{"fifo", func(d string) error { return unix.Mkfifo(filepath.Join(d, "inventory.img"), 0o600) }, "no plain file"},
		{"folder", func(d string) error { return os.Mkdir(filepath.Join(d, "x"), 0o700) }, "no plain file"},
		{"parent", func(d string) error { return os.Symlink("/etc", filepath.Join(d, "parent")) }, "only relative links"},
		{"parent of parent", func(d string) error { return os.Symlink(".", filepath.Join(d, "parent")) }, "no plain file"},
		{"mode", func(d string) error { return os.Chmod(d, 0o777) }, "others may write"},
		{"empty", func(string) error { return nil }, "no mount table"},
		{"mount table", func(d string) error {
			return os.WriteFile(filepath.Join(d, "mountpoints-1.img"), []byte("nonsense"), 0o600)
		}, "no mount table of criu's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			o := b.images()
			check(t, os.Mkdir(o.Images, 0o700))
			check(t, tt.make(o.Images))
			_, err := Restore(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec}, o)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v", err)
			}
			if text, _ := os.ReadFile(canary); string(text) != "untouched" {
				t.Errorf("the canary says %q", text)
			}
		})
	}
}
