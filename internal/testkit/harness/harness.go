// Package harness owns whole engines for tests: dhowd in a network namespace, data root, run root and cgroup of its own, with real
// shims and containers under it.
//
// It promises that several engines run beside each other and beside the machine's own, and that every test ends with a leak check:
// mounts, cgroups, links, nft elements, loop devices, processes and files. It must never be linked into a program.
package harness

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/linux/tripwire"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// RegistryAddr is where an engine's own registry listens, inside its namespace.
const RegistryAddr = "127.0.0.1:5000"

// Image is what Engine.Image makes: busybox under a name that the engine can pull.
const Image = RegistryAddr + "/busybox:latest"

// Engine is a running engine.
type Engine struct {
	Socket, DataRoot, RunRoot, Cgroup string
	Netns                             *os.File

	t      testing.TB
	bin    string
	dir    string
	flags  []string
	before baseline
	see    func(tripwire.Call) bool
	stop   []func() // of those who watch
	cmd    *exec.Cmd
	ended  chan struct{}
	log    *os.File
}

// Start runs an engine until the test ends; then everything it left is removed by its own means, and the leak check runs. The test
// is skipped where the machine or the user cannot run containers.
func Start(t testing.TB, flags ...string) *Engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("running containers needs root")
	}
	dir, err := os.MkdirTemp("", "dhow-e-") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	bin, err := programs.Keep(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{
		t: t, bin: bin, dir: dir, flags: flags, DataRoot: dir + "/data", RunRoot: dir + "/run", Socket: dir + "/sock", Cgroup: "/dhow-test/" + filepath.Base(dir),
	}
	if i := slices.Index(flags, "--data-root"); i >= 0 {
		e.DataRoot = flags[i+1]
	}
	if e.log, err = os.Create(dir + "/log"); err != nil {
		t.Fatal(err)
	}
	if e.Netns, err = netlink.NewNetns(nil); err != nil {
		t.Skipf("no network namespaces: %v", err)
	}
	e.sh("ip", "link", "set", "lo", "up")
	e.before = look(e)
	t.Cleanup(e.end)
	e.Run()
	return e
}

// Run starts the engine's process (again) and waits until it answers.
func (e *Engine) Run() {
	e.t.Helper()
	args := append([]string{
		"--data-root", e.DataRoot, "--run-root", e.RunRoot, "--host", "unix://" + e.Socket, "--cgroup-parent", e.Cgroup, "--insecure-registry", RegistryAddr,
	}, e.flags...)
	e.cmd = exec.Command(filepath.Join(e.bin, "dhowd"), args...)
	e.cmd.Stdout, e.cmd.Stderr = e.log, e.log
	if err := netlink.Inside(e.Netns, e.start); err != nil {
		e.t.Fatal(err)
	}
	ended, cmd := make(chan struct{}), e.cmd
	e.ended = ended
	go func() { cmd.Wait(); close(ended) }()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", e.Socket); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			e.t.Fatalf("the engine ended at once:\n%s", e.Log())
		default:
		}
		if time.Since(start) > patience.Of(30*time.Second) {
			e.t.Fatalf("the engine does not answer:\n%s", e.Log())
		}
	}
}

// AddFlags adds flags for engines started from now on.
func AddFlags(e *Engine, flags ...string) { e.flags = append(slices.Clone(e.flags), flags...) }

// Watch lets see look at every call of engines started from now on that changes what a disk holds (tripwire.Arm). Nobody watches after
// Watch(nil).
func (e *Engine) Watch(see func(tripwire.Call) bool) { e.see = see }

// start starts the engine's process from the calling thread, which ends with its goroutine when the engine is watched.
func (e *Engine) start() error {
	if e.see == nil {
		return e.cmd.Start()
	}
	stop, err := tripwire.Arm(e.cmd.Start, e.see)
	if err == nil {
		e.stop = append(e.stop, stop) // not with the engine: shims live on
	}
	return err
}

// Signal sends a signal to the engine and waits for its end; containers go on.
func (e *Engine) Signal(s os.Signal) {
	e.t.Helper()
	e.cmd.Process.Signal(s)
	select {
	case <-e.ended:
	case <-time.After(patience.Of(30 * time.Second)):
		e.t.Fatalf("the engine does not end:\n%s", e.Log())
	}
}

// Alive tells whether the engine's process is.
func Alive(e *Engine) bool {
	select {
	case <-e.ended:
		return false
	default:
		return true
	}
}

// Kill kills the engine as a crash does.
func (e *Engine) Kill() { e.Signal(syscall.SIGKILL) }

// Settle waits until the space of removed layers is given back, or the engine has ended.
func Settle(e *Engine) {
	e.t.Helper()
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		left, _ := filepath.Glob(e.DataRoot + "/layers/tmp/rm-*")
		if len(left) == 0 || !Alive(e) {
			return
		}
		if time.Since(start) > patience.Of(30*time.Second) {
			e.t.Fatalf("removed, and still there: %v", left)
		}
	}
}

// With is the engine for a subtest, which then is the one that fails.
func (e *Engine) With(t testing.TB) *Engine {
	c := *e
	c.t = t
	return &c
}

// PID is the engine's process.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Log is what the engine has said.
func (e *Engine) Log() string {
	b, _ := os.ReadFile(e.log.Name())
	return string(b)
}

// sh runs a program in the engine's network namespace.
func (e *Engine) sh(name string, args ...string) string {
	e.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := netlink.Inside(e.Netns, cmd.Start); err != nil {
		e.t.Fatalf("%s: %v", name, err)
	}
	if err := cmd.Wait(); err != nil {
		e.t.Logf("%s %v: %v: %s", name, args, err, &out)
	}
	return out.String()
}

// Dial connects from within the engine's network namespace, as a program on its host would.
func (e *Engine) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = netlink.Inside(e.Netns, func() error {
		d := net.Dialer{Timeout: patience.Of(5 * time.Second)}
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// HTTP is a client on the engine's host.
func (e *Engine) HTTP() *http.Client {
	return &http.Client{Timeout: patience.Of(10 * time.Second), Transport: &http.Transport{DialContext: e.Dial, DisableKeepAlives: true}}
}

// Hostile serves images at an address inside the namespace. Without a fault set it is an ordinary registry.
func (e *Engine) Hostile(addr string) *registry.Hostile {
	e.t.Helper()
	h := registry.StartHostile(e.t)
	var l net.Listener
	err := netlink.Inside(e.Netns, func() (err error) { l, err = net.Listen("tcp", addr); return err })
	if err != nil {
		e.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l) // ends with Close
	e.t.Cleanup(func() { srv.Close() })
	return h
}

// Busybox serves the busybox image from a registry inside the namespace, and pulls it.
func (e *Engine) Busybox() *registry.Hostile {
	e.t.Helper()
	h := e.Hostile(RegistryAddr)
	h.Serve("busybox:latest", registry.Busybox(e.t))
	e.Docker("pull", "-q", Image).OK()
	return h
}

// Result is how a client's command ended.
type Result struct {
	Out, Err string
	Code     int
	t        testing.TB
	args     []string
}

// OK fails the test unless the command succeeded, and returns its output without the last newline.
func (r Result) OK() string {
	r.t.Helper()
	if r.Code != 0 {
		r.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(r.args, " "), r.Code, r.Out, r.Err)
	}
	return strings.TrimSuffix(r.Out, "\n")
}

// Fails fails the test unless the command ended with code and words in its error output.
func (r Result) Fails(code int, words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(r.Err, w) {
			r.t.Errorf("%s: error output has no %q:\n%s", strings.Join(r.args, " "), w, r.Err)
		}
	}
	if r.Code != code {
		r.t.Errorf("%s: exit code %d, want %d\n%s%s", strings.Join(r.args, " "), r.Code, code, r.Out, r.Err)
	}
}

// Docker runs the real docker client against the engine. The test is skipped when it is not installed.
func (e *Engine) Docker(args ...string) Result { e.t.Helper(); return e.DockerIn("", args...) }

// DockerIn is Docker with something on standard input.
func (e *Engine) DockerIn(stdin string, args ...string) Result {
	e.t.Helper()
	program, err := exec.LookPath("docker")
	if err != nil {
		e.t.Skipf("the docker client is not installed: %v", err)
	}
	return e.client(program, stdin, args)
}

// Dhow runs our own client against the engine.
func (e *Engine) Dhow(args ...string) Result {
	e.t.Helper()
	return e.client(e.Program("dhow"), "", args)
}

func (e *Engine) client(program, stdin string, args []string) Result {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience.Of(time.Minute))
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), e.Env()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	name := filepath.Base(program)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		e.t.Fatalf("%s %s: hangs\n%s%s\nengine:\n%s", name, strings.Join(args, " "), &out, &errs, e.Log())
	}
	return Result{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode(), t: e.t, args: append([]string{name}, args...)}
}

// end removes what the test left by the engine's own means, stops it, and looks for leaks.
func (e *Engine) end() {
	select {
	case <-e.ended:
		e.Run()
	default:
	}
	if e.t.Failed() {
		e.t.Logf("the end of the engine's log:\n%s", tail(e.Log(), 30))
	}
	if ids := strings.Fields(e.Dhow("ps", "-aq", "--no-trunc").Out); len(ids) > 0 {
		e.Dhow(append([]string{"rm", "-fv"}, ids...)...).OK()
	}
	if leaks := e.Leaks(); len(leaks) > 0 {
		e.t.Errorf("left behind while the engine runs and has no containers:\n%s", strings.Join(leaks, "\n"))
	}
	e.Signal(syscall.SIGTERM)
	for _, f := range e.stop {
		f()
	}
	e.log.Close()
	e.Netns.Close()
	removeCgroups("/dhow-test", e.Cgroup)
	if !e.t.Failed() {
		os.RemoveAll(e.dir)
	}
}

func tail(s string, n int) string {
	l := strings.Split(s, "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}
