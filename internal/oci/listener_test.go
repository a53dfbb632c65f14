package oci

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/linux/seccomp/agent"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// testAgent listens on a socket and answers the calls of every process whose listener it is sent.
type testAgent struct {
	path   string
	mu     sync.Mutex
	states []specs.ContainerProcessState
	seen   map[string]int // calls by name
	wg     sync.WaitGroup
	ln     *net.UnixListener
}

func newAgent(t *testing.T, name string, errno map[string]int32) *testAgent {
	t.Helper()
	a := &testAgent{path: name, seen: map[string]int{}}
	var err error
	a.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	check(t, err)
	a.wg.Go(func() {
		for {
			conn, err := a.ln.AcceptUnix()
			if err != nil {
				return
			}
			a.wg.Go(func() { a.serve(t, conn, errno) })
		}
	})
	return a
}

func (a *testAgent) serve(t *testing.T, conn *net.UnixConn, errno map[string]int32) {
	defer conn.Close()
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	n, m, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		t.Errorf("agent: message of %d bytes: %v", n, err)
		return
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(msgs) != 1 {
		t.Errorf("agent: %d control messages: %v", len(msgs), err)
		return
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Errorf("agent: %d descriptors: %v", len(fds), err)
		return
	}
	defer unix.Close(fds[0])
	var st specs.ContainerProcessState
	if err := json.Unmarshal(buf[:n], &st); err != nil {
		t.Errorf("agent: %v in %q", err, buf[:n])
	}
	a.mu.Lock()
	a.states = append(a.states, st)
	a.mu.Unlock()
	err = agent.Serve(fds[0], func(c agent.Call) agent.Answer {
		name := seccomp.Name("amd64", int(c.Nr))
		a.mu.Lock()
		a.seen[name]++
		a.mu.Unlock()
		if e, ok := errno[name]; ok {
			return agent.Answer{Errno: -e}
		}
		return agent.Answer{Flags: agent.Continue}
	})
	if err != nil {
		t.Errorf("agent: %v", err)
	}
}

// stop ends the agent, whose containers are gone, and returns what it was told.
func (a *testAgent) stop() []specs.ContainerProcessState {
	a.ln.Close()
	a.wg.Wait()
	return a.states
}

func (b *box) notify(path string, def specs.LinuxSeccompAction, names ...string) {
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: def, ListenerPath: path, ListenerMetadata: "hello"}
	if len(names) > 0 {
		b.spec.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}}
	}
}

// TestListener: a call is answered by the agent, which was told of the container as the spec says; the container has no listener itself.
func TestListener(t *testing.T) {
	b := newBox(t, "sh", "-c", "mkdir /tmp/x 2>&1; ls -l /proc/self/fd | grep -c seccomp; echo $$")
	a := newAgent(t, filepath.Join(t.TempDir(), "agent"), map[string]int32{"mkdir": int32(syscall.ENOMEDIUM)})
	b.notify(a.path, specs.ActAllow, "mkdir")
	b.spec.Annotations = map[string]string{"k": "v"}
	c, out, err := b.create()
	check(t, err)
	pid := c.Init().Pid
	check(t, c.Start())
	wait(t, c.Init())
	check(t, c.Delete(false))
	if got := <-out.done; !strings.Contains(got, "No medium found") || !strings.HasSuffix(got, "\n0\n1\n") {
		t.Errorf("the container says %q", got)
	}
	states := a.stop()
	if len(states) != 1 {
		t.Fatalf("%d messages to the agent", len(states))
	}
	s := states[0]
	if s.Version != specs.Version || s.Pid != pid || s.Metadata != "hello" || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName ||
		s.State.Status != specs.StateCreating || s.State.Pid != pid || s.State.ID != b.id || s.State.Bundle != b.dir || s.State.Annotations["k"] != "v" {
		t.Errorf("the agent was told %+v", s)
	}
}

// TestListenerOfEverything: not even read, write, capset and execve pass without the agent, in a container and in what joins it.
func TestListenerOfEverything(t *testing.T) {
	for _, nnp := range []bool{false, true} {
		b := newBox(t, "sh", "-c", "echo here; exec sleep 1000")
		a := newAgent(t, "@"+b.id, nil) // an abstract name
		b.notify(a.path, specs.ActNotify)
		b.spec.Process.NoNewPrivileges = nnp
		b.spec.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagLog}
		c, out, err := b.create()
		check(t, err)
		if st, err := c.Status(); err != nil || st != "created" {
			t.Errorf("status %s, %v", st, err)
		}
		check(t, c.Start())
		execOut := newOutput(t)
		null, err := os.Open(os.DevNull)
		check(t, err)
		p, err := c.Exec(ExecOptions{Process: &specs.Process{Args: []string{"sh", "-c", "until grep -q sleep /proc/1/comm; do :; done; echo joined; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: nnp,
			Capabilities: b.spec.Process.Capabilities}, Stdio: [3]*os.File{null, execOut.w, execOut.w}})
		null.Close()
		execOut.w.Close()
		check(t, err)
		if code := wait(t, p); code != 3 {
			t.Errorf("exec ended with %d", code)
		}
		check(t, c.Signal(syscall.SIGKILL, true))
		wait(t, c.Init())
		check(t, c.Delete(false))
		if got := <-out.done + <-execOut.done; got != "here\njoined\n" {
			t.Errorf("output %q", got)
		}
		states := a.stop()
		if len(states) != 2 || states[1].State.Status != specs.StateRunning || states[1].State.Pid != states[0].Pid || states[1].Pid != p.Pid {
			t.Errorf("the agent was told %+v", states)
		}
		for _, name := range []string{"read", "write", "execve", "prctl"} {
			if a.seen[name] == 0 {
				t.Errorf("%s never reached the agent: %v", name, a.seen)
			}
		}
	}
}

// TestListenerDetached: who creates is not who starts; the agent has the listener before the container is started.
func TestListenerDetached(t *testing.T) {
	b := newBox(t, "mkdir", "/tmp/y")
	a := newAgent(t, filepath.Join(t.TempDir(), "agent"), nil)
	b.notify(a.path, specs.ActAllow, "mkdir", "execve")
	c := b.createDetached()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		n := len(a.states)
		a.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent was not told of a created container")
		}
	}
	other, err := Load(b.root, b.id)
	check(t, err)
	check(t, other.Start())
	if code := wait(t, c.Init()); code != 0 {
		t.Errorf("ended with %d", code)
	}
	check(t, other.Delete(false))
	a.stop()
	if _, err := os.Stat(filepath.Join(b.rootfs(), "tmp/y")); err != nil || a.seen["mkdir"] != 1 || a.seen["execve"] == 0 {
		t.Errorf("%v, %v", err, a.seen)
	}
}

func (b *box) createDetached() *Container {
	b.t.Helper()
	check(b.t, bundle.Save(b.dir, b.spec, nil))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(b.t, err)
	defer null.Close()
	c, err := Create(CreateOptions{ID: b.id, Root: b.root, Bundle: b.dir, Spec: b.spec, Stdio: [3]*os.File{null, null, null}, Detached: true})
	check(b.t, err)
	return c
}

// TestListenerRefused: what cannot work is told by the field, and leaves nothing.
func TestListenerRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(s *specs.LinuxSeccomp)
	}{
		{"nobody listens", "linux.seccomp.listenerPath: connect /nowhere/agent: no such file or directory (is the seccomp agent running?)", func(*specs.LinuxSeccomp) {}},
		{"relative", `listenerPath: "agent" is neither an absolute path nor @`, func(s *specs.LinuxSeccomp) { s.ListenerPath = "agent" }},
		{"missing", "linux.seccomp: listenerPath: missing, but SCMP_ACT_NOTIFY is used", func(s *specs.LinuxSeccomp) { s.ListenerPath, s.ListenerMetadata = "", "" }},
		{"metadata alone", "linux.seccomp: listenerMetadata: set without listenerPath", func(s *specs.LinuxSeccomp) { s.ListenerPath, s.Syscalls = "", nil }},
		{"too long", "is longer than the 107 bytes", func(s *specs.LinuxSeccomp) { s.ListenerPath = "/" + strings.Repeat("x", 107) }},
		{"read refused", "linux.seccomp: refuses read", func(s *specs.LinuxSeccomp) {
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno})
		}},
	} {
		b := newBox(t)
		b.notify("/nowhere/agent", specs.ActAllow, "mkdir")
		tt.change(b.spec.Linux.Seccomp)
		_, out, err := b.create()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %s", tt.name, err, tt.want)
		}
		<-out.done
	}
}

// TestListenerGone: an agent that ends is no agent: calls answer ENOSYS, nobody waits for it.
func TestListenerGone(t *testing.T) {
	b := newBox(t, "sh", "-c", "mkdir /tmp/x 2>&1")
	path := filepath.Join(t.TempDir(), "agent")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	b.notify(path, specs.ActAllow, "mkdir")
	c, out, err := b.create()
	check(t, err)
	check(t, ln.Close()) // with the message unread in its queue: the descriptor in it is gone with the socket
	check(t, c.Start())
	wait(t, c.Init())
	check(t, c.Delete(false))
	if got := <-out.done; !strings.Contains(got, "Function not implemented") {
		t.Errorf("the container says %q", got)
	}
}

// TestFilterActions: what the actions do in a container.
func TestFilterActions(t *testing.T) {
	errno := uint(unix.ENOTTY)
	for _, tt := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		output string
		code   int
	}{
		{specs.ActErrno, nil, "mkdir: can't create directory '/tmp/x': Operation not permitted\n", 1},
		{specs.ActErrno, &errno, "mkdir: can't create directory '/tmp/x': Inappropriate ioctl for device\n", 1},
		{specs.ActTrace, nil, "mkdir: can't create directory '/tmp/x': Function not implemented\n", 1}, // nobody traces
		{specs.ActTrap, nil, "", 128 + int(unix.SIGSYS)},
		{specs.ActKill, nil, "", 128 + int(unix.SIGSYS)},
		{specs.ActKillThread, nil, "", 128 + int(unix.SIGSYS)},
		{specs.ActKillProcess, nil, "", 128 + int(unix.SIGSYS)},
		{specs.ActLog, nil, "", 0},
		{specs.ActAllow, nil, "", 0},
	} {
		b := newBox(t, "mkdir", "/tmp/x")
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: tt.action, ErrnoRet: tt.errno}}}
		if out, code := b.run(); out != tt.output || code != tt.code {
			t.Errorf("%s: %q, %d", tt.action, out, code)
		}
	}
}

// TestFilterForbidsItsOwnLoading: without no_new_privs one call follows the filter.
func TestFilterForbidsItsOwnLoading(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"capset"}, Action: specs.ActErrno}}}
	_, out, err := b.create()
	if err == nil || !strings.Contains(err.Error(), "linux.seccomp: refuses capset") {
		t.Error(err)
	}
	<-out.done
	b.spec.Process.NoNewPrivileges = true
	if got, code := b.run(); code != 0 {
		t.Errorf("%q, %d", got, code)
	}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{} // runc takes it for no filter at all
	if got, code := b.run(); code != 0 {
		t.Errorf("%q, %d", got, code)
	}
}

// startContainer hooks run under a filter that notifies, loaded before start: the agent is asked about their calls, too.
func TestListenerStartHooks(t *testing.T) {
	hook := func(args ...string) specs.Hook {
		return specs.Hook{Path: "/bin/busybox", Args: args, Env: []string{"PATH=/bin"}}
	}
	seconds := 20
	for _, nnp := range []bool{false, true} {
		for _, def := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActNotify} {
			b := newBox(t, "ls", "/mnt")
			b.spec.Process.NoNewPrivileges = nnp
			b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{hook("sh", "-c", "mkdir /mnt/hooked; cat > /mnt/state; grep -c . /proc/self/fdinfo/0 > /mnt/fds; ls /proc/self/fd >> /mnt/fds"), hook("true")}}
			b.spec.Hooks.StartContainer[0].Timeout = &seconds
			a := newAgent(t, "@"+b.id, nil)
			b.notify(a.path, def, map[specs.LinuxSeccompAction][]string{specs.ActAllow: {"mkdir"}}[def]...)
			c, out, err := b.create()
			check(t, err)
			if st, err := c.Status(); err != nil || st != "created" {
				t.Errorf("status %s, %v", st, err)
			}
			if _, err := os.Stat(filepath.Join(b.rootfs(), "mnt/hooked")); err == nil {
				t.Error("the hook ran before start")
			}
			check(t, c.Start())
			wait(t, c.Init())
			check(t, c.Delete(false))
			if got := <-out.done; got != "fds\nhooked\nstate\n" {
				t.Errorf("output %q", got)
			}
			if states := a.stop(); len(states) != 1 || a.seen["mkdir"] != 1 {
				t.Errorf("the agent was told %+v and saw %v", states, a.seen)
			}
			text, err := os.ReadFile(filepath.Join(b.rootfs(), "mnt/state"))
			check(t, err)
			var st specs.State
			if err := json.Unmarshal(text, &st); err != nil || st.ID != b.id || st.Pid != 1 || st.Status != specs.StateCreated {
				t.Errorf("the hook read %s (%v)", text, err)
			}
			if fds, err := os.ReadFile(filepath.Join(b.rootfs(), "mnt/fds")); err != nil || strings.Count(string(fds), "\n") != 5 {
				t.Errorf("the hook holds %q (%v)", fds, err)
			}
		}
	}
	b := newBox(t)
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{hook("false")}}
	a := newAgent(t, "@"+b.id, nil)
	b.notify(a.path, specs.ActAllow, "mkdir")
	c, out, err := b.create()
	check(t, err)
	if err := c.Start(); err == nil || !strings.Contains(err.Error(), "hooks.startContainer[0]: hook /bin/busybox: exit status 1") {
		t.Errorf("a hook that fails: %v", err)
	}
	check(t, c.Delete(true))
	<-out.done
	a.stop()
	b.notify(a.path, specs.ActAllow, "mkdir")
	b.spec.Linux.Seccomp.Syscalls = append(b.spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"waitid"}, Action: specs.ActErrno})
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.seccomp: refuses waitid, by which startContainer hooks are run") {
		t.Errorf("error %v", err)
	}
}

// Hooks are of the container's life: an exec runs none.
func TestExecRunsNoHooks(t *testing.T) {
	b := newBox(t)
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"touch", "/mnt/hooked"}}}}
	c := b.sleeping()
	check(t, os.Remove(filepath.Join(b.rootfs(), "mnt/hooked")))
	if out := b.shell(c, nil, "ls /mnt; echo done"); out != "done\n" {
		t.Errorf("exec says %q", out)
	}
}
