package shim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/selfmem"
	"github.com/dhow-containers/dhow/internal/shim/logfile"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// rig is a shim process over the fake runtime.
type rig struct {
	t    testing.TB
	cfg  wire.Config
	cmd  *exec.Cmd
	sock string
	ctx  context.Context
	done chan struct{}
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func newRig(t testing.TB, args []string, change ...func(*wire.Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	cfg := wire.Config{
		ID: "test", Bundle: dir, RunDir: dir, StateDir: dir, OCIRoot: dir, Grace: 300 * time.Millisecond,
		Log: wire.LogConfig{Driver: "json-file", Path: filepath.Join(dir, "log"), MaxSize: 1 << 30, MaxFiles: 2},
	}
	for _, c := range change {
		c(&cfg)
	}
	bin := cfg.Log.Attrs["binary"] // set by realShim
	cfg.Log.Attrs = nil
	os.MkdirAll(cfg.RunDir, 0o700)
	if bin != "" {
		writeSpec(t, dir, realSpec(&cfg, args))
	} else {
		writeBundle(t, dir, cfg.Terminal, args)
	}
	b, err := json.Marshal(cfg)
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.RunDir, wire.ConfigFile), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience.Of(60*time.Second))
	r := &rig{t: t, cfg: cfg, sock: wire.SocketPath(cfg.RunDir), ctx: ctx, done: make(chan struct{})}
	ready, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	r.cmd = exec.Command("/proc/self/exe", cfg.RunDir)
	r.cmd.Env = append(os.Environ(), "DHOW_TEST_ROLE=shim", "GORACE=atexit_sleep_ms=0")
	if bin != "" {
		r.cmd = exec.Command(bin, cfg.RunDir)
		r.cmd.Env = append(os.Environ(), selfmem.NoHugePages()...) // as the engine starts it
	}
	r.cmd.Dir = cfg.RunDir
	r.cmd.ExtraFiles = []*os.File{theirs}
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	go func() { r.cmd.Wait(); close(r.done) }()
	if n, _ := ready.Read(make([]byte, 1)); n != 1 {
		t.Fatal("the shim is not ready")
	}
	t.Cleanup(func() {
		wire.Call(ctx, r.sock, wire.Request{Op: wire.OpShutdown, All: true})
		select {
		case <-r.done:
		case <-time.After(patience.Of(5 * time.Second)):
			t.Errorf("the shim did not end")
			r.cmd.Process.Signal(syscall.SIGQUIT)
			r.cmd.Process.Kill()
		}
		cancel()
	})
	return r
}

func (r *rig) call(req wire.Request) wire.Reply {
	r.t.Helper()
	reply, err := wire.Call(r.ctx, r.sock, req)
	if err != nil {
		r.t.Fatalf("%s: %v", req.Op, err)
	}
	return reply
}

func (r *rig) run() {
	r.t.Helper()
	r.call(wire.Request{Op: wire.OpCreate})
	r.call(wire.Request{Op: wire.OpStart})
}

func (r *rig) wait() wire.Exit {
	r.t.Helper()
	e, err := wire.Wait(r.ctx, r.sock, r.cfg.StateDir)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// ended waits for the end of the shim and returns exit.json.
func (r *rig) ended() *wire.Exit {
	r.t.Helper()
	begin := time.Now()
	select {
	case <-r.done:
	case <-time.After(patience.Of(10 * time.Second)):
		r.t.Fatal("the shim goes on")
	}
	if d := time.Since(begin); d > farewell/2 {
		r.t.Errorf("the shim took %s to end: something did not let go", d)
	}
	if _, err := os.Lstat(r.sock); !os.IsNotExist(err) {
		r.t.Errorf("the socket is still there: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(r.cfg.StateDir, wire.ExitFile))
	if os.IsNotExist(err) {
		return nil
	}
	var e wire.Exit
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return &e
}

func (r *rig) log() (stdout, stderr string) {
	r.t.Helper()
	l, err := logfile.Open(r.cfg.Log.Path, logfile.Options{Tail: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	var out, er strings.Builder
	for {
		e, err := l.Next(r.ctx)
		if err == io.EOF {
			return out.String(), er.String()
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if e.Stream == "stderr" {
			er.Write(e.Line)
		} else {
			out.Write(e.Line)
		}
	}
}

func (r *rig) attach(stdin bool) *wire.Stream {
	r.t.Helper()
	s, err := wire.OpenStream(r.ctx, r.sock, wire.Request{Op: wire.OpAttach, Stdin: stdin, Stdout: true, Stderr: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}

func TestRun(t *testing.T) {
	r := newRig(t, sh("echo out; echo err >&2; exit 7"))
	a := r.attach(false)
	if st := r.call(wire.Request{Op: wire.OpState}).State; st.Status != "new" {
		t.Errorf("state %+v", st)
	}
	pid := r.call(wire.Request{Op: wire.OpCreate}).Pid
	if st := r.call(wire.Request{Op: wire.OpState}).State; st.Status != "created" || st.Pid != pid || st.StartTime == 0 {
		t.Errorf("state %+v", st)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpCreate}); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("second create: %v", err)
	}
	waited := make(chan wire.Exit, 3)
	for range 3 {
		go func() {
			reply, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpWait})
			if err != nil {
				t.Error(err)
				waited <- wire.Exit{}
				return
			}
			waited <- *reply.Exit
		}()
	}
	time.Sleep(50 * time.Millisecond)
	r.call(wire.Request{Op: wire.OpStart})
	for range 3 {
		if e := <-waited; e.Code != 7 || e.Signal != 0 || e.At.IsZero() {
			t.Errorf("exit %+v", e)
		}
	}
	var out, er bytes.Buffer
	last, err := a.Copy(&out, &er)
	if err != nil || last.Exit == nil || last.Exit.Code != 7 || out.String() != "out\n" || er.String() != "err\n" {
		t.Errorf("attached: %q %q %+v %v", out.String(), er.String(), last, err)
	}
	if err := wire.Gone(r.ctx, r.sock); err != nil {
		t.Error(err)
	}
	if e := r.ended(); e == nil || e.Code != 7 {
		t.Errorf("exit.json %+v", e)
	}
	if o, e := r.log(); o != "out\n" || e != "err\n" {
		t.Errorf("log %q %q", o, e)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpState}); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSignals(t *testing.T) {
	for sig, want := range map[int]int{9: 137, 15: 143, 6: 134} {
		r := newRig(t, []string{"sleep", "60"})
		r.run()
		r.call(wire.Request{Op: wire.OpSignal, Signal: sig})
		if e := r.wait(); e.Code != want || e.Signal != sig {
			t.Errorf("signal %d: %+v", sig, e)
		}
	}
	r := newRig(t, []string{"sleep", "60"})
	r.run()
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpSignal, Signal: 4711}); !errdef.Is(err, errdef.InvalidArgument) {
		t.Errorf("signal 4711: %v", err)
	}
	// The shim itself is not moved by what ends others, and the container does not inherit deafness.
	r.cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(20 * time.Millisecond)
	r.call(wire.Request{Op: wire.OpSignal, Signal: 15})
	if e := r.wait(); e.Signal != 15 {
		t.Errorf("%+v", e)
	}
}

func TestFailures(t *testing.T) {
	t.Run("create", func(t *testing.T) {
		r := newRig(t, []string{"fail-create"})
		a := r.attach(true)
		a.WriteStdin([]byte("never read"))
		_, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpCreate})
		if !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "hostname") {
			t.Errorf("%v", err)
		}
		if _, err := a.Copy(nil, nil); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("attached: %v", err)
		}
		if e := r.ended(); e != nil {
			t.Errorf("exit.json %+v", e)
		}
	})
	t.Run("start", func(t *testing.T) {
		r := newRig(t, []string{"no-such-command"})
		a := r.attach(false)
		r.call(wire.Request{Op: wire.OpCreate})
		_, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpStart})
		if !errdef.Is(err, errdef.NotFound) {
			t.Errorf("%v", err)
		}
		if _, err := a.Copy(nil, nil); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("attached: %v", err)
		}
		if e := r.ended(); e != nil {
			t.Errorf("exit.json %+v", e)
		}
	})
	t.Run("log", func(t *testing.T) {
		r := newRig(t, sh("true"), func(c *wire.Config) { c.Log.Path = "/nonexistent/log" })
		if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpCreate}); err == nil {
			t.Error("created without a log")
		}
		r.ended()
	})
	t.Run("killed before start", func(t *testing.T) {
		r := newRig(t, sh("true"))
		r.call(wire.Request{Op: wire.OpCreate})
		r.call(wire.Request{Op: wire.OpSignal, Signal: 9})
		if e := r.ended(); e == nil || e.Code != 137 || e.Error == "" {
			t.Errorf("exit.json %+v", e)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		r := newRig(t, sh("sleep 60"))
		r.call(wire.Request{Op: wire.OpCreate})
		r.call(wire.Request{Op: wire.OpShutdown})
		if e := r.ended(); e != nil {
			t.Errorf("exit.json %+v", e)
		}
		r = newRig(t, sh("sleep 60"))
		r.run()
		if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpShutdown}); !errdef.Is(err, errdef.Conflict) {
			t.Errorf("shutdown of a running one: %v", err)
		}
		r.call(wire.Request{Op: wire.OpPause})
		r.call(wire.Request{Op: wire.OpShutdown, All: true})
		if e := r.ended(); e == nil || e.Code != 137 {
			t.Errorf("exit.json %+v", e)
		}
	})
	t.Run("second shim", func(t *testing.T) {
		r := newRig(t, sh("sleep 60"))
		if _, err := wire.Listen(r.sock); !errdef.Is(err, errdef.Conflict) {
			t.Errorf("%v", err)
		}
		r.call(wire.Request{Op: wire.OpState})
	})
}

func TestLongRunDir(t *testing.T) {
	r := newRig(t, sh("exit 3"), func(c *wire.Config) { c.RunDir = filepath.Join(c.RunDir, strings.Repeat("x", 200)) })
	r.run()
	if e := r.wait(); e.Code != 3 {
		t.Errorf("%+v", e)
	}
}

// TestClientKilled is the engine's death: output goes on into the log, and the next engine attaches and waits.
func TestClientKilled(t *testing.T) {
	r := newRig(t, sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 5"))
	a := r.attach(false)
	r.run()
	for range 3 {
		if _, _, _, err := a.Next(); err != nil {
			t.Fatal(err)
		}
	}
	a.Close() // what the kernel does to a killed client's socket
	if e := r.wait(); e.Code != 5 {
		t.Errorf("%+v", e)
	}
	r.ended()
	out, _ := r.log()
	if n := strings.Count(out, "\n"); n != 20000 || !strings.HasSuffix(out, "line 19999\n") {
		t.Errorf("%d lines", n)
	}
}

// TestSlowClient wants every byte at a client that dawdles, and the exit told although it does.
func TestSlowClient(t *testing.T) {
	r := newRig(t, sh("seq 1 400000"))
	want := sha256.New()
	for i := 1; i <= 400000; i++ {
		fmt.Fprintln(want, i)
	}
	a := r.attach(false)
	r.run()
	time.Sleep(500 * time.Millisecond)
	if st := r.call(wire.Request{Op: wire.OpState}).State; st.Status != "running" {
		t.Errorf("%+v: no back-pressure?", st)
	}
	got := sha256.New()
	n := 0
	for {
		_, p, last, err := a.Next()
		if errors.Is(err, io.EOF) && last != nil {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(p)
		if n += len(p); n > 2_000_000 && n < 2_070_000 {
			time.Sleep(100 * time.Millisecond)
		}
		if n > 2_600_000 && n < 2_670_000 { // the process has written all, the client has not read all
			if e := r.wait(); e.Code != 0 {
				t.Errorf("%+v", e)
			}
		}
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes arrived, not what was written", n)
	}
	out, _ := r.log()
	if s := sha256.Sum256([]byte(out)); !bytes.Equal(s[:], want.Sum(nil)) {
		t.Errorf("%d bytes in the log, not what was written", len(out))
	}
}

func TestStdin(t *testing.T) {
	once := func(c *wire.Config) { c.Stdin, c.StdinOne = true, true }
	r := newRig(t, sh("cat; echo end"), once)
	a := r.attach(true)
	big := bytes.Repeat([]byte("0123456789abcdef"), 50000)
	go func() { // before create
		a.WriteStdin(big)
		a.CloseStdin()
	}()
	time.Sleep(20 * time.Millisecond)
	r.run()
	var out bytes.Buffer
	if _, err := a.Copy(&out, nil); err != nil || out.String() != string(big)+"end\n" {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}

	// Without StdinOnce it stays open for the next client.
	r = newRig(t, sh("read a; read b; echo $a $b"), func(c *wire.Config) { c.Stdin = true })
	r.run()
	a = r.attach(true)
	a.WriteStdin([]byte("one\n"))
	a.CloseStdin()
	a.Close()
	time.Sleep(100 * time.Millisecond) // between clients there is no order but time
	b := r.attach(true)
	b.WriteStdin([]byte("two\n"))
	out.Reset()
	if _, err := b.Copy(&out, nil); err != nil || out.String() != "one two\n" {
		t.Errorf("%q, %v", out.String(), err)
	}

	// A client that vanishes ends the input with StdinOnce.
	r = newRig(t, sh("cat; exit 9"), once)
	a = r.attach(true)
	r.run()
	a.Close()
	if e := r.wait(); e.Code != 9 {
		t.Errorf("%+v", e)
	}

	// Without stdin there is none.
	r = newRig(t, sh("cat; exit 4"))
	r.run()
	if e := r.wait(); e.Code != 4 {
		t.Errorf("%+v", e)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t, sh("stty size; read x; stty size; echo got $x; tty >/dev/null && exit 3"), func(c *wire.Config) {
		c.Terminal, c.Stdin, c.StdinOne, c.Height, c.Width = true, true, true, 33, 77
	})
	a := r.attach(true)
	r.run()
	var out bytes.Buffer
	for !strings.Contains(out.String(), "33 77") {
		_, p, _, err := a.Next()
		if err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		out.Write(p)
	}
	r.call(wire.Request{Op: wire.OpResize, Height: 44, Width: 99})
	a.WriteStdin([]byte("hello\r"))
	last, err := a.Copy(&out, nil)
	if err != nil || last.Exit.Code != 3 || !strings.Contains(out.String(), "44 99\r\ngot hello\r\n") {
		t.Errorf("%q %+v %v", out.String(), last, err)
	}
}

// TestGrace lets a descendant hold the output open.
func TestGrace(t *testing.T) {
	r := newRig(t, sh("echo before; setsid sh -c 'while :; do echo noise; sleep 0.01; done' & exit 6"))
	r.run()
	begin := time.Now()
	if e := r.wait(); e.Code != 6 {
		t.Errorf("%+v", e)
	}
	if d := time.Since(begin); d < r.cfg.Grace || d > r.cfg.Grace+2*time.Second {
		t.Errorf("told after %s", d)
	}
	r.ended()
	if out, _ := r.log(); !strings.HasPrefix(out, "before\n") {
		t.Errorf("log %q", out)
	}
}

func (r *rig) exec(id string, in, out bool, tty bool, args ...string) (*wire.Stream, error) {
	return wire.OpenStream(r.ctx, r.sock, wire.Request{
		Op: wire.OpExec, Exec: id, Stdin: in, Stdout: out, Stderr: out, Height: 20, Width: 30,
		Process: &specs.Process{Args: args, Cwd: "/", Terminal: tty},
	})
}

func TestExec(t *testing.T) {
	r := newRig(t, []string{"sleep", "60"})
	r.run()
	s, err := r.exec("a", true, true, false, sh("cat; echo err >&2; exit 11")...)
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.WriteStdin([]byte("input")); s.CloseStdin() }()
	var out, er bytes.Buffer
	last, err := s.Copy(&out, &er)
	if err != nil || last.Exit == nil || last.Exit.Code != 11 || out.String() != "input" || er.String() != "err\n" {
		t.Errorf("%q %q %+v %v", out.String(), er.String(), last, err)
	}
	s.Close()
	if x := r.call(wire.Request{Op: wire.OpExecState, Exec: "a"}).Exec; x.Exit == nil || x.Exit.Code != 11 || x.Pid != s.First.Pid {
		t.Errorf("%+v", x)
	}
	if _, err := r.exec("a", false, true, false, "true"); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("same ID: %v", err)
	}
	if _, err := r.exec("b", false, true, false, "no-such-command"); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("unknown command: %v", err)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpExecState, Exec: "b"}); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("state of a failed exec: %v", err)
	}

	// Detached: the connection may go, the exit is kept.
	d := r.call(wire.Request{Op: wire.OpExec, Exec: "d", Process: &specs.Process{Args: sh("sleep 0.2; exit 12")}})
	if x := r.call(wire.Request{Op: wire.OpExecState, Exec: "d"}).Exec; x.Exit != nil || x.Pid != d.Pid {
		t.Errorf("%+v", x)
	}
	x := r.call(wire.Request{Op: wire.OpExecState, Exec: "d"}).Exec
	for start := time.Now(); x.Exit == nil && time.Since(start) < patience.Of(5*time.Second); time.Sleep(20 * time.Millisecond) {
		x = r.call(wire.Request{Op: wire.OpExecState, Exec: "d"}).Exec
	}
	if x.Exit == nil || x.Exit.Code != 12 {
		t.Errorf("%+v", x)
	}

	// A terminal, its size, a signal.
	s, err = r.exec("t", true, true, true, sh("stty size; read x; stty size; sleep 60")...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out.Reset()
	for step := 0; step < 2; {
		_, p, _, err := s.Next()
		if err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		out.Write(p)
		if step == 0 && strings.Contains(out.String(), "20 30") {
			step++
			r.call(wire.Request{Op: wire.OpResize, Exec: "t", Height: 21, Width: 31})
			s.WriteStdin([]byte("\r"))
		}
		if strings.Contains(out.String(), "21 31") {
			step = 2
		}
	}
	r.call(wire.Request{Op: wire.OpSignal, Exec: "t", Signal: 9})
	if last, err := s.Copy(nil, nil); err != nil || last.Exit.Code != 137 {
		t.Errorf("%+v %v", last, err)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpSignal, Exec: "t", Signal: 9}); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("signal after the end: %v", err)
	}

	// A running exec ends with its container, and its client is told.
	s, err = r.exec("z", false, true, false, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	r.call(wire.Request{Op: wire.OpSignal, Signal: 9})
	if last, err := s.Copy(nil, nil); err != nil || last.Exit.Code != 137 {
		t.Errorf("%+v %v", last, err)
	}
	r.ended()
}

func TestExecsForgotten(t *testing.T) {
	r := newRig(t, []string{"sleep", "60"})
	r.run()
	for i := range keepExecs + 10 {
		s, err := r.exec(fmt.Sprint(i), false, true, false, "true")
		if err != nil {
			t.Fatal(err)
		}
		s.Copy(nil, nil)
		s.Close()
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpExecState, Exec: "0"}); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("%v", err)
	}
	r.call(wire.Request{Op: wire.OpExecState, Exec: fmt.Sprint(keepExecs + 9)})
}

func TestPause(t *testing.T) {
	r := newRig(t, []string{"sleep", "60"})
	r.run()
	r.call(wire.Request{Op: wire.OpPause})
	if st := r.call(wire.Request{Op: wire.OpState}).State; st.Status != "paused" {
		t.Errorf("%+v", st)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpPause}); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("%v", err)
	}
	if _, err := r.exec("x", false, true, false, "true"); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("exec while paused: %v", err)
	}
	r.call(wire.Request{Op: wire.OpResume})
	if st := r.call(wire.Request{Op: wire.OpState}).State; st.Status != "running" {
		t.Errorf("%+v", st)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpUpdate, Resources: &specs.LinuxResources{}}); !errdef.Is(err, errdef.NotImplemented) {
		t.Errorf("the kind was lost: %v", err)
	}
	if _, err := wire.Call(r.ctx, r.sock, wire.Request{Op: "dance"}); !errdef.Is(err, errdef.NotImplemented) {
		t.Errorf("%v", err)
	}
}

// TestOrphans lets grandchildren be orphaned to the shim, while execs come and go whose exits must not be taken.
func TestOrphans(t *testing.T) {
	r := newRig(t, sh("i=0; while [ $i -lt 100 ]; do (sleep 0.0$((i%5)) & ) ; i=$((i+1)); done; sleep 60"))
	r.run()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			s, err := r.exec(fmt.Sprint(i), false, true, false, "sh", "-c", fmt.Sprintf("sleep 0.03 & exit %d", i))
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if last, err := s.Copy(nil, nil); err != nil || last.Exit.Code != i {
				t.Errorf("%d: %+v %v", i, last, err)
			}
		})
	}
	wg.Wait()
	time.Sleep(300 * time.Millisecond)
	if z := zombies(t, r.cmd.Process.Pid); z != 0 {
		t.Errorf("%d zombies", z)
	}
}

func zombies(t *testing.T, parent int) (n int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if f[0] == "Z" && f[1] == fmt.Sprint(parent) {
			n++
		}
	}
	return n
}

// TestNoLeak attaches, waits and execs many times with clients that vanish.
func TestNoLeak(t *testing.T) {
	r := newRig(t, sh("while :; do echo tick; sleep 0.01; done"), func(c *wire.Config) { c.Stdin = true })
	r.run()
	fds := func() int {
		d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	time.Sleep(100 * time.Millisecond)
	before := fds()
	for i := range 300 {
		a := r.attach(true)
		a.WriteStdin([]byte("x"))
		a.Close()
		ctx, cancel := context.WithTimeout(r.ctx, time.Millisecond)
		wire.Call(ctx, r.sock, wire.Request{Op: wire.OpWait})
		cancel()
		if i%10 == 0 {
			if s, err := r.exec(fmt.Sprint(i), true, true, false, "sleep", "0.1"); err == nil {
				s.Close()
			}
		}
	}
	after := 0
	for range 50 {
		time.Sleep(100 * time.Millisecond)
		if after = fds(); after <= before {
			return
		}
	}
	t.Errorf("%d descriptors, before %d", after, before)
}

// TestDeadlines: an engine's call must not hang on a shim that is stopped.
func TestDeadlines(t *testing.T) {
	r := newRig(t, []string{"sleep", "60"})
	r.run()
	r.cmd.Process.Signal(syscall.SIGSTOP)
	var ws syscall.WaitStatus // the signal is on its way until the kernel says that all threads stopped
	if _, err := syscall.Wait4(r.cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("stop: %v (%v)", ws, err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, 100*time.Millisecond)
	defer cancel()
	_, err := wire.Call(ctx, r.sock, wire.Request{Op: wire.OpState})
	if !errors.Is(err, context.DeadlineExceeded) || errdef.KindOf(err) != errdef.Cancelled {
		t.Errorf("%v", err)
	}
	r.cmd.Process.Signal(syscall.SIGCONT)
	r.call(wire.Request{Op: wire.OpState})
}
