package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

// box is a bundle under test with a busybox root file system; what it leaves behind is checked when the test ends.
type box struct {
	t    *testing.T
	dir  string
	root string
	id   string
	spec *bundle.Spec
	warn func(string)
	host facts.Host
	// noKeyring: no session keyring of its own
	noKeyring bool
	memory    string // of what counts (count)
}

const testConfig = `{"ociVersion":"1.3.0","root":{"path":"rootfs"},"hostname":"box",
"process":{"args":["/bin/true"],"cwd":"/","env":["PATH=/bin"],"capabilities":{"bounding":["CAP_KILL","CAP_SETUID"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666","mode=0620"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["ro"]},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]}],
"linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"cgroup"}],
"maskedPaths":["/proc/kcore","/proc/keys","/sys/firmware"],"readonlyPaths":["/proc/sys"],"resources":{"devices":[{"allow":false,"access":"rwm"}]}}}`

func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making containers without a user namespace needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox (Debian package busybox-static) is not installed")
	}
	b := &box{t: t, dir: t.TempDir(), id: "dhow-test-" + id.New()[:12], spec: &bundle.Spec{}}
	b.root = filepath.Join(b.dir, "state")
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "mnt"} {
		check(t, os.MkdirAll(filepath.Join(b.rootfs(), d), 0o755))
	}
	data, err := os.ReadFile(busybox)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "bin/busybox"), data, 0o755))
	for _, a := range []string{"sh", "true", "cat", "id", "ls", "sleep", "mount", "hostname", "readlink", "touch", "mkdir", "grep", "ps", "tty", "stat", "mknod"} {
		check(t, os.Symlink("busybox", filepath.Join(b.rootfs(), "bin", a)))
	}
	check(t, json.Unmarshal([]byte(testConfig), b.spec))
	b.spec.Linux.CgroupsPath = "/dhow-test/" + b.id
	if len(args) > 0 {
		b.spec.Process.Args = args
	}
	t.Cleanup(b.leaks)
	return b
}

func (b *box) rootfs() string { return filepath.Join(b.dir, "rootfs") }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// leaks fails the test when something of the container is still there.
func (b *box) leaks() {
	b.t.Helper()
	l, err := cgroup.Detect()
	check(b.t, err)
	dirs, err := plan.Dirs(l, b.spec.Linux.CgroupsPath)
	check(b.t, err)
	for _, d := range dirs {
		if _, err := os.Stat(d.Path); err == nil {
			b.t.Errorf("left behind: cgroup %s", d.Path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(b.t, err)
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, b.dir) {
			b.t.Errorf("left behind in the host's mount table: %s", line)
		}
	}
	if es, err := os.ReadDir(b.root); err == nil && len(es) > 0 {
		b.t.Errorf("left behind: state of %s", es[0].Name())
	}
	for _, d := range dirs { // the parent is shared by tests; the last one removes it
		os.Remove(filepath.Dir(d.Path))
	}
}

// create makes the container with its output going to the returned buffer, complete once done is closed.
func (b *box) create() (*Container, *output, error) {
	b.t.Helper()
	check(b.t, bundle.Save(b.dir, b.spec, nil))
	out := newOutput(b.t)
	null, err := os.Open(os.DevNull)
	check(b.t, err)
	c, err := Create(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, out.w, out.w}, Warn: b.warn, Host: b.host, NoNewKeyring: b.noKeyring})
	null.Close()
	out.w.Close()
	return c, out, err
}

type output struct {
	w    *os.File
	done chan string
}

func newOutput(t *testing.T) *output {
	r, w, err := os.Pipe()
	check(t, err)
	o := &output{w: w, done: make(chan string, 1)}
	go func() {
		var buf bytes.Buffer
		io.Copy(&buf, r)
		r.Close()
		o.done <- buf.String()
	}()
	return o
}

func wait(t *testing.T, p *Process) int {
	t.Helper()
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.Pid, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		check(t, err)
		break
	}
	p.Pidfd.Close()
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// run makes, starts, waits for and deletes the container, and returns what it printed and its exit code.
func (b *box) run() (string, int) {
	b.t.Helper()
	c, out, err := b.create()
	check(b.t, err)
	check(b.t, c.Start())
	code := wait(b.t, c.Init())
	check(b.t, c.Delete(false))
	return <-out.done, code
}

func TestRun(t *testing.T) {
	b := newBox(t, "sh", "-c", "id -u; hostname; echo $$; cat /proc/1/comm; ls /sys/fs/cgroup | grep -q memory && echo limits; exit 7")
	out, code := b.run()
	if want := "0\nbox\n1\nsh\nlimits\n"; out != want || code != 7 {
		t.Errorf("output %q, code %d; want %q, 7", out, code, want)
	}
}

func TestIdentityAndRights(t *testing.T) {
	b := newBox(t, "sh", "-c", "id; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; mount -t tmpfs x /mnt 2>&1; cat /proc/keys; ls /sys/firmware")
	b.spec.Process.User.UID, b.spec.Process.User.GID = 1234, 4321
	b.spec.Process.User.AdditionalGids = []uint32{55}
	b.spec.Process.NoNewPrivileges = true
	out, _ := b.run()
	for _, want := range []string{"uid=1234 gid=4321 groups=55", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", // execve(2) takes them from whoever is not root
		"CapBnd:\t00000000000000a0", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "permission denied"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestRightsOfRoot(t *testing.T) {
	b := newBox(t, "sh", "-c", "grep -E '^Cap' /proc/self/status; echo 4711 > /proc/sys/kernel/panic; mknod /tmp/null c 1 3 2>&1")
	out, _ := b.run()
	for _, want := range []string{"CapPrm:\t00000000000000a0", "CapEff:\t00000000000000a0", "CapBnd:\t00000000000000a0", "Operation not permitted"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if text, _ := os.ReadFile("/proc/sys/kernel/panic"); strings.TrimSpace(string(text)) == "4711" {
		t.Error("the container changed the host's kernel.panic")
	}
}

func TestUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", "id -u; cat /proc/self/uid_map; echo x > /dev/null && touch /tmp/mine && echo ok")
	var ns struct{ Linux json.RawMessage }
	check(t, json.Unmarshal([]byte(`{"Linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"cgroup"},{"type":"user"}],
"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]}}`), &ns))
	check(t, json.Unmarshal(ns.Linux, b.spec.Linux))
	b.spec.Process.Capabilities = nil
	check(t, os.Chmod(b.dir, 0o755))
	check(t, os.Chmod(filepath.Dir(b.dir), 0o755))
	check(t, filepath.WalkDir(b.rootfs(), func(p string, _ os.DirEntry, err error) error { return os.Lchown(p, 100000, 100000) }))
	out, _ := b.run()
	if !strings.HasPrefix(out, "0\n") || !strings.Contains(out, "100000") || !strings.HasSuffix(out, "ok\n") {
		t.Errorf("output %q", out)
	}
	st, err := os.Stat(filepath.Join(b.rootfs(), "tmp/mine"))
	check(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 100000 {
		t.Errorf("the file belongs to %d on the host", uid)
	}
}

// sleeping starts a container that waits, to be entered, signalled and deleted.
func (b *box) sleeping() *Container {
	b.t.Helper()
	b.spec.Process.Args = []string{"sleep", "1000"}
	c, _, err := b.create()
	check(b.t, err)
	check(b.t, c.Start())
	b.t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(b.root, b.id)); err == nil {
			check(b.t, c.Delete(true))
			wait(b.t, c.Init())
		}
	})
	return c
}

func TestExec(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	out := newOutput(t)
	p := *b.spec.Process
	p.Args = []string{"sh", "-c", "cat /proc/1/comm; hostname; ls /proc/self/fd; cat /proc/self/cgroup | grep -v ':/$'; exit 9"}
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, out.w, out.w}})
	check(t, err)
	out.w.Close()
	code := wait(t, proc)
	if got := <-out.done; got != "sleep\nbox\n0\n1\n2\n3\n" || code != 9 { // 3 is ls's own
		t.Errorf("output %q, code %d", got, code)
	}
	for _, c2 := range []struct {
		arg  string
		kind errdef.Kind
		text string
	}{{"nothing", errdef.NotFound, "executable file not found in $PATH"}, {"/nothing", errdef.NotFound, "no such file or directory"}, {"/etc", errdef.Forbidden, "permission denied"}} {
		p.Args = []string{c2.arg}
		_, err := c.Exec(ExecOptions{Process: &p})
		if errdef.KindOf(err) != c2.kind || !strings.Contains(fmt.Sprint(err), c2.text) {
			t.Errorf("exec %s: %v (kind %v)", c2.arg, err, errdef.KindOf(err))
		}
	}
}

func TestExecTerminal(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	p := *b.spec.Process
	p.Terminal, p.Args = true, []string{"sh", "-c", "tty; exit 3"}
	var master *os.File
	proc, err := c.Exec(ExecOptions{Process: &p, Console: func(m *os.File) error { master = m; return nil }})
	check(t, err)
	out, _ := io.ReadAll(master) // ends with EIO when the last slave is closed
	master.Close()
	if code := wait(t, proc); code != 3 || !strings.Contains(string(out), "/dev/pts/0") {
		t.Errorf("output %q, code %d", out, code)
	}
}

func TestTerminal(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty; ls -l /dev/console; echo typed: $(cat | cat)")
	b.spec.Process.Terminal = true
	check(t, bundle.Save(b.dir, b.spec, nil))
	var master *os.File
	c, err := Create(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Console: func(m *os.File) error { master = m; return nil }})
	check(t, err)
	check(t, c.Start())
	_, err = master.WriteString("hello\n\x04")
	check(t, err)
	out, _ := io.ReadAll(master)
	master.Close()
	wait(t, c.Init())
	check(t, c.Delete(false))
	if s := string(out); !strings.Contains(s, "/dev/pts/0") || !strings.Contains(s, "typed: hello") {
		t.Errorf("output %q", s)
	}
}

func TestJoinPidNamespace(t *testing.T) {
	a := newBox(t)
	ca := a.sleeping()
	b := newBox(t, "cat", "/proc/1/comm")
	for i := range b.spec.Linux.Namespaces {
		if b.spec.Linux.Namespaces[i].Type == "pid" {
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", ca.Init().Pid)
		}
	}
	if out, code := b.run(); out != "sleep\n" || code != 0 {
		t.Errorf("output %q, code %d", out, code)
	}
}

func TestSignalPauseStatus(t *testing.T) {
	b := newBox(t)
	c := b.sleeping()
	is := func(want state.Status) {
		t.Helper()
		if got, err := c.Status(); err != nil || got != want {
			t.Errorf("status %v, %v; want %v", got, err, want)
		}
	}
	is(state.Running)
	check(t, c.Pause())
	is(state.Paused)
	check(t, c.Resume())
	is(state.Running)
	if err := c.Delete(false); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("deleting a running container: %v", err)
	}
	check(t, c.Signal(syscall.SIGKILL, false))
	if code := wait(t, c.Init()); code != 137 {
		t.Errorf("code %d", code)
	}
	is(state.Stopped)
	if err := c.Signal(syscall.SIGTERM, false); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("signalling a stopped container: %v", err)
	}
	check(t, c.Delete(false))
	check(t, c.Delete(false)) // twice is no error
}

// Another process starts, and another deletes, what a first one created and left.
// buildRuntime returns the path of a dhow-runtime of the test's own.
func buildRuntime(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "dhow-runtime")
	check(t, programs.Build(bin, "github.com/dhow-containers/dhow/cmd/dhow-runtime"))
	return bin
}

func TestDetachedAcrossProcesses(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo started > /mnt/said; exec sleep 1000")
	bin := buildRuntime(t)
	check(t, bundle.Save(b.dir, b.spec, nil))
	runtime := func(args ...string) (string, error) {
		file := filepath.Join(b.dir, "said by runtime") // a file: a container that is left running keeps its standard output
		f, err := os.Create(file)
		check(t, err)
		defer f.Close()
		cmd := exec.Command(bin, append([]string{"--root", b.root}, args...)...)
		cmd.Stdout, cmd.Stderr = f, f
		err = cmd.Run()
		out, _ := os.ReadFile(file)
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := runtime(args...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return out
	}
	pidFile := filepath.Join(b.dir, "pid")
	must("create", "--bundle", b.dir, "--pid-file", pidFile, b.id)
	said := filepath.Join(b.rootfs(), "mnt/said")
	if _, err := os.Stat(said); err == nil {
		t.Error("it ran before it was started")
	}
	if s := must("state", b.id); !strings.Contains(s, `"status": "created"`) {
		t.Errorf("state %s", s)
	}
	if out, err := runtime("create", "--bundle", b.dir, b.id); err == nil || !strings.Contains(out, "already exists") {
		t.Errorf("creating it twice: %v %s", err, out)
	}
	check(t, os.WriteFile(filepath.Join(b.dir, bundle.ConfigFile), []byte("no longer JSON"), 0o600)) // must not matter from here on
	must("start", b.id)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(said); err == nil {
			break
		}
	}
	if s := must("state", b.id); !strings.Contains(s, `"status": "running"`) {
		t.Errorf("state %s", s)
	}
	if out, err := runtime("start", b.id); err == nil {
		t.Errorf("starting it twice: %s", out)
	}
	// A starter that was killed right after it released the container leaves the marker and the FIFO; the container runs all the same.
	check(t, os.WriteFile(filepath.Join(b.root, b.id, state.Parked), nil, 0o600))
	check(t, unix.Mkfifo(filepath.Join(b.root, b.id, state.ParkCtl), 0o600))
	if s := must("state", b.id); !strings.Contains(s, `"status": "running"`) {
		t.Errorf("state after its starter was killed: %s", s)
	}
	if out, err := runtime("exec", b.id, "nothing"); err == nil || err.(*exec.ExitError).ExitCode() != 255 {
		t.Errorf("exec of nothing: %v %s", err, out)
	}
	must("kill", b.id, "KILL")
	must("delete", "--force", b.id)
	if out, err := runtime("state", b.id); err == nil || !strings.Contains(out, "does not exist") {
		t.Errorf("state after delete: %v %s", err, out)
	}
}

// What fails takes everything back; the messages name the field and what to do.
func TestFailuresUndoAll(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*box)
		kind   errdef.Kind
		text   string
	}{
		{"command not found", func(b *box) { b.spec.Process.Args = []string{"nothing"} }, errdef.NotFound, `exec: "nothing": executable file not found in $PATH`},
		{"missing bind source", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", "/nowhere", "rbind"))
		}, errdef.InvalidArgument, "mounts[5].source: /nowhere: no such file or directory"},
		{"unknown file system", func(b *box) { b.spec.Mounts[3].Type = "nofs" }, errdef.System, "mounts[3]: fsopen mount nofs on /sys: no such device"},
		{"bad mount option", func(b *box) { b.spec.Mounts[1].Options = []string{"mode=banana"} }, errdef.InvalidArgument, "mounts[1]"},
		{"missing namespace", func(b *box) { b.spec.Linux.Namespaces[2].Path = "/nowhere" }, errdef.InvalidArgument, "linux.namespaces[2].path: openat"},
		{"missing root", func(b *box) { b.spec.Root.Path = "norootfs" }, errdef.InvalidArgument, "root.path: openat root file system: no such file or directory"},
		{"volume over /proc", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, mount("/proc", "/tmp", "rbind"))
		}, errdef.InvalidArgument, "mounts[5].destination: /proc lies inside the container's /proc"},
		{"volume inside /proc", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, mount("/proc/sys", "/tmp", "rbind"))
		}, errdef.InvalidArgument, "mounts[5].destination: /proc/sys lies inside the container's /proc"},
		{"volume inside /proc by a symbolic link", func(b *box) {
			check(b.t, os.Symlink("/proc/self", filepath.Join(b.rootfs(), "innocent")))
			b.spec.Mounts = append(b.spec.Mounts, mount("/innocent/attr", "/tmp", "rbind"))
		}, errdef.InvalidArgument, "mounts[5]: /innocent/attr lies inside the container's /proc"},
		{"tmpfs inside /proc", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/proc/sys", Type: "tmpfs", Source: "tmpfs"})
		}, errdef.InvalidArgument, "mounts[5].destination: /proc/sys lies inside"},
		{"tmpfs over /proc by a symbolic link", func(b *box) {
			check(b.t, os.Symlink("/proc", filepath.Join(b.rootfs(), "innocent")))
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/innocent", Type: "tmpfs", Source: "tmpfs"})
		}, errdef.InvalidArgument, "mounts[5]: /innocent lies inside the container's /proc"},
		{"mount over a file", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, mount("/bin/busybox/x", "/tmp", "rbind"))
		}, errdef.InvalidArgument, "mounts[5]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			tt.change(b)
			_, out, err := b.create()
			<-out.done // nobody holds the container's output any more
			if errdef.KindOf(err) != tt.kind || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Errorf("error %v (kind %v), want %q (kind %v)", err, errdef.KindOf(err), tt.text, tt.kind)
			}
		})
	}
}

// An image whose folders are symbolic links to the host makes nothing outside its root.
func TestSymlinksInTheRootLeadNowhere(t *testing.T) {
	canary := t.TempDir()
	for _, target := range []string{"/dev", "/proc", "/sys", "/mnt", "/etc"} {
		t.Run(target[1:], func(t *testing.T) {
			b := newBox(t)
			check(t, os.RemoveAll(filepath.Join(b.rootfs(), target)))
			check(t, os.Symlink(canary, filepath.Join(b.rootfs(), target)))
			b.spec.Mounts = append(b.spec.Mounts, mount("/mnt/sub/dir", t.TempDir(), "rbind"))
			b.spec.Process.Cwd = "/etc/cwd"
			c, out, err := b.create()
			if err == nil {
				check(t, c.Delete(true))
				wait(t, c.Init())
			}
			<-out.done
			if es, _ := os.ReadDir(canary); len(es) > 0 {
				t.Fatalf("the host's folder now holds %v", es)
			}
		})
	}
}

// A parked container holds nothing of its creator's, and nobody can trace it.
func TestParkedHoldsNothing(t *testing.T) {
	secret, err := os.Open("/etc/hostname")
	check(t, err)
	defer secret.Close()
	_, err = unix.FcntlInt(secret.Fd(), unix.F_SETFD, 0) // as a careless caller would have it
	check(t, err)
	b := newBox(t)
	c, _, err := b.create()
	check(t, err)
	pid := c.Init().Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	check(t, err)
	for _, fd := range fds {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if link != os.DevNull && !strings.HasPrefix(link, "pipe:") && !strings.HasPrefix(link, "socket:") {
			t.Errorf("descriptor %s is %s", fd.Name(), link)
		}
	}
	if len(fds) != 4 { // stdin, stdout, stderr, and the line to the host lane
		t.Errorf("%d descriptors", len(fds))
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
}

func TestHooks(t *testing.T) {
	b := newBox(t)
	log := filepath.Join(b.dir, "log")
	hook := func(kind string) string { return "cat >> " + log + "; echo ' " + kind + "' >> " + log }
	hooks := fmt.Sprintf(`{"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","-c",%q]}],"poststart":[{"path":"/bin/sh","args":["sh","-c",%q]}],"poststop":[{"path":"/bin/sh","args":["sh","-c",%q]}]}}`,
		hook("createRuntime"), hook("poststart"), hook("poststop"))
	check(t, json.Unmarshal([]byte(hooks), b.spec))
	b.run()
	text, err := os.ReadFile(log)
	check(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 {
		t.Fatalf("log %q", text)
	}
	for i, want := range []string{"createRuntime", "poststart", "poststop"} {
		if !strings.HasSuffix(lines[i], want) || !strings.Contains(lines[i], b.id) {
			t.Errorf("line %d: %q", i, lines[i])
		}
	}
	bad := newBox(t)
	check(t, json.Unmarshal([]byte(`{"hooks":{"createRuntime":[{"path":"/bin/sh","args":["sh","-c","echo broken; exit 1"]}]}}`), bad.spec))
	_, out, err := bad.create()
	<-out.done
	if err == nil || !strings.Contains(err.Error(), "hooks.createRuntime[0]") || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a hook that fails: %v", err)
	}
}

// A poststop hook that fails is told of, and neither keeps the others from running nor the state in place.
func TestPoststopHooksAllRun(t *testing.T) {
	b := newBox(t)
	mark := filepath.Join(b.dir, "mark")
	check(t, json.Unmarshal([]byte(fmt.Sprintf(`{"hooks":{"poststop":[{"path":"/bin/false"},{"path":"/bin/touch","args":["touch",%q]}]}}`, mark)), b.spec))
	c, out, err := b.create()
	check(t, err)
	check(t, c.Start())
	wait(t, c.Init())
	<-out.done
	if err := c.Delete(true); err == nil || !strings.Contains(err.Error(), "hooks.poststop[0]") {
		t.Errorf("delete: %v", err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the second hook did not run: %v", err)
	}
}

func TestMemoryLimitCounts(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null")
	limit := int64(64 << 20)
	check(t, json.Unmarshal([]byte(fmt.Sprintf(`{"memory":{"limit":%d}}`, limit)), b.spec.Linux.Resources))
	if out, _ := b.run(); strings.TrimSpace(out) != fmt.Sprint(limit) {
		t.Errorf("the container reads %q", out)
	}
}

func mount(dest, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: options}
}
