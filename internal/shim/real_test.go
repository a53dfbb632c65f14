package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

// Budgets of the shim, in bytes.
const (
	maxBinary = 5 << 20
	maxPSS    = 3 << 20
)

// built is dhow-shim as released, built once.
var built = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(os.TempDir(), fmt.Sprintf("dhow-shim-test-%d", os.Getpid())) // TestMain removes it
	return bin, programs.Build(bin, "github.com/dhow-containers/dhow/cmd/dhow-shim", "-trimpath", "-ldflags=-s -w")
})

// realShim makes a rig over dhow-shim and the real runtime, in a root file system that holds busybox.
func realShim(t testing.TB, args []string, change ...func(*wire.Config)) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, args, append(change, func(c *wire.Config) {
		c.ID = "shimtest-" + id.Short(id.New())
		c.OCIRoot = filepath.Join(c.RunDir, "oci")
		root := filepath.Join(c.Bundle, "root")
		for _, d := range []string{"bin", "proc", "dev", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(root, "bin/noexec"), []byte("x"), 0o644)
		for _, n := range []string{"sh", "sleep", "echo", "cat", "seq", "stty", "tty", "true", "kill", "setsid", "dd", "ps"} {
			os.Symlink("busybox", filepath.Join(root, "bin", n))
		}
	}, useBinary(bin))...)
}

// useBinary marks the config for newRig.
func useBinary(bin string) func(*wire.Config) {
	return func(c *wire.Config) { c.Log.Attrs = map[string]string{"binary": bin} }
}

func realSpec(c *wire.Config, args []string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Hostname: "shimtest",
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: c.Terminal},
		Root:    &specs.Root{Path: "root"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + c.ID,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
}

func TestRealRun(t *testing.T) {
	r := realShim(t, sh("echo out $$; echo err >&2; exit 7"))
	a := r.attach(false)
	r.run()
	var out, er bytes.Buffer
	last, err := a.Copy(&out, &er)
	if err != nil || last.Exit.Code != 7 || out.String() != "out 1\n" || er.String() != "err\n" {
		t.Errorf("%q %q %+v %v", out.String(), er.String(), last, err)
	}
	if e := r.ended(); e == nil || e.Code != 7 {
		t.Errorf("%+v", e)
	}
	if o, e := r.log(); o != "out 1\n" || e != "err\n" {
		t.Errorf("log %q %q", o, e)
	}
	if left, _ := os.ReadDir(r.cfg.OCIRoot); len(left) > 0 {
		t.Errorf("left in the runtime's folder: %v", left)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + r.cfg.ID); len(left) > 0 {
		t.Errorf("cgroups left: %v", left)
	}
}

func TestRealStartErrors(t *testing.T) {
	for arg, kind := range map[string]errdef.Kind{"no-such-command": errdef.NotFound, "/bin/noexec": errdef.Forbidden} {
		r := realShim(t, []string{arg})
		a := r.attach(false)
		_, err := wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpCreate}) // the runtime looks names up that early
		if err == nil {
			_, err = wire.Call(r.ctx, r.sock, wire.Request{Op: wire.OpStart})
		}
		if !errdef.Is(err, kind) {
			t.Errorf("%s: %v", arg, err)
		}
		if _, err := a.Copy(nil, nil); !errdef.Is(err, kind) {
			t.Errorf("%s, attached: %v", arg, err)
		}
		if e := r.ended(); e != nil {
			t.Errorf("%s: exit.json %+v", arg, e)
		}
	}
}

func TestRealSignalPauseExec(t *testing.T) {
	r := realShim(t, []string{"sleep", "60"})
	r.run()
	s, err := wire.OpenStream(r.ctx, r.sock, wire.Request{
		Op: wire.OpExec, Exec: "x", Stdin: true, Stdout: true, Stderr: true,
		Process: &specs.Process{Args: sh("cat; exit 11"), Cwd: "/", Env: []string{"PATH=/bin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.WriteStdin([]byte("hello"))
	s.CloseStdin()
	var out bytes.Buffer
	if last, err := s.Copy(&out, nil); err != nil || last.Exit.Code != 11 || out.String() != "hello" {
		t.Errorf("%q %+v %v", out.String(), last, err)
	}
	_, err = wire.OpenStream(r.ctx, r.sock, wire.Request{
		Op: wire.OpExec, Exec: "y", Stdout: true, Process: &specs.Process{Args: []string{"nope"}, Cwd: "/", Env: []string{"PATH=/bin"}},
	})
	if !errdef.Is(err, errdef.NotFound) {
		t.Errorf("exec of an unknown command: %v", err)
	}
	r.call(wire.Request{Op: wire.OpPause})
	r.call(wire.Request{Op: wire.OpResume})
	r.call(wire.Request{Op: wire.OpPause})
	r.call(wire.Request{Op: wire.OpSignal, Signal: 9})
	if e := r.wait(); e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

func TestRealTerminal(t *testing.T) {
	r := realShim(t, sh("stty size; read x; stty size; echo got $x; tty; exit 3"), func(c *wire.Config) {
		c.Terminal, c.Stdin, c.Height, c.Width = true, true, 33, 77
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
	if err != nil || last.Exit.Code != 3 || !strings.Contains(out.String(), "44 99\r\ngot hello\r\n/dev/") {
		t.Errorf("%q %+v %v", out.String(), last, err)
	}
}

// TestBudgets measures an idle shim of a running container: memory, processor time, size, and what it links.
func TestBudgets(t *testing.T) {
	r := realShim(t, []string{"sleep", "60"})
	r.run()
	time.Sleep(2 * settle)
	pid := r.cmd.Process.Pid
	pss := smaps(t, pid, "Pss:")
	if os.Getenv("SMAPS") != "" {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		t.Logf("%s", b)
	}
	t.Logf("PSS %d KiB (anonymous %d), threads %s", pss>>10, smaps(t, pid, "Pss_Anon:")>>10, status(t, pid, "Threads:"))
	if pss > maxPSS {
		t.Errorf("PSS %d KiB, budget %d", pss>>10, maxPSS>>10)
	}
	before := cpu(t, pid)
	switches := status(t, pid, "voluntary_ctxt_switches:")
	time.Sleep(3 * time.Second)
	if after := cpu(t, pid); after != before {
		t.Errorf("idle, it used the processor: %s -> %s", before, after)
	}
	if now := status(t, pid, "voluntary_ctxt_switches:"); now != switches {
		t.Logf("woke up while idle: %s -> %s", switches, now)
	}
	bin, _ := built()
	if st, err := os.Stat(bin); err != nil || st.Size() > maxBinary {
		t.Errorf("binary: %v, %v, budget %d", st.Size(), err, maxBinary)
	}
}

// TestHugePages: a shim does without transparent huge pages from its first instruction on, which the container's processes do not inherit.
func TestHugePages(t *testing.T) {
	own := status(t, os.Getpid(), "THP_enabled:")
	r := realShim(t, []string{"sleep", "60"})
	r.run()
	if own == "" {
		t.Skip("the kernel does not tell THP_enabled")
	}
	if now := status(t, r.cmd.Process.Pid, "THP_enabled:"); now != "0" {
		t.Errorf("the shim: %s", now)
	}
	s, err := wire.OpenStream(r.ctx, r.sock, wire.Request{
		Op: wire.OpExec, Exec: "x", Stdout: true,
		Process: &specs.Process{Args: []string{"cat", "/proc/1/status", "/proc/self/status"}, Cwd: "/", Env: []string{"PATH=/bin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	if _, err = s.Copy(&out, nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "THP_enabled:\t1\n"); n != 2 {
		t.Errorf("init and an exec: %s", out.String())
	}
}

func TestLinksLittle(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("asks the go command: %v", err)
	}
	deps, err := exec.Command("go", "list", "-deps", "github.com/dhow-containers/dhow/cmd/dhow-shim").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range strings.Fields(string(deps)) {
		switch d {
		case "net", "net/http", "crypto/tls", "log/slog", "text/template", "regexp", "google.golang.org/grpc", "go.etcd.io/bbolt":
			t.Errorf("dhow-shim links %s", d)
		}
	}
}

func smaps(t *testing.T, pid int, field string) (n int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skip(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, field) {
			fmt.Sscan(l[len(field):], &n)
		}
	}
	return n << 10
}

func status(t *testing.T, pid int, field string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, field) {
			return strings.TrimSpace(l[len(field):])
		}
	}
	return ""
}

// cpu returns user and system ticks.
func cpu(t *testing.T, pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f[11] + "+" + f[12]
}

func writeSpec(t testing.TB, dir string, spec *specs.Spec) {
	t.Helper()
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestExitStorm runs many short containers at once: every exit code arrives, at the waiter and on disk.
func TestExitStorm(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 25 {
				code := (worker*25 + i) % 120
				r := newRig(t, sh(fmt.Sprintf("echo %d; exit %d", code, code)))
				r.run()
				if e, err := wire.Wait(r.ctx, r.sock, r.cfg.StateDir); err != nil || e.Code != code {
					t.Errorf("told %+v %v, not %d", e, err, code)
				}
				if e := r.ended(); e == nil || e.Code != code {
					t.Errorf("exit.json %+v, not %d", e, code)
				}
				if out, _ := r.log(); out != fmt.Sprintf("%d\n", code) {
					t.Errorf("log %q, not %d", out, code)
				}
			}
		})
	}
	wg.Wait()
}

// TestWeightAfterWork: a shim that has logged a flood and served a hundred execs must not stay heavy.
func TestWeightAfterWork(t *testing.T) {
	r := realShim(t, sh("seq 1 2000000; sleep 60"))
	r.run()
	for i := range 100 {
		s, err := wire.OpenStream(r.ctx, r.sock, wire.Request{
			Op: wire.OpExec, Exec: fmt.Sprint(i), Stdout: true, Stderr: true,
			Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Copy(nil, nil); err != nil {
			t.Error(err)
		}
		s.Close()
	}
	time.Sleep(4 * settle)
	pss := smaps(t, r.cmd.Process.Pid, "Pss:")
	t.Logf("PSS %d KiB (anonymous %d), threads %s", pss>>10, smaps(t, r.cmd.Process.Pid, "Pss_Anon:")>>10, status(t, r.cmd.Process.Pid, "Threads:"))
	if pss > 2*maxPSS {
		t.Errorf("PSS %d KiB, budget %d", pss>>10, 2*maxPSS>>10)
	}
}

// BenchmarkLog is a container that writes as fast as it can: MB/s from its write(2) into the rotated log.
func BenchmarkLog(b *testing.B) {
	const mib = 256
	line := "2026/11/21 04:00:00 GET /index.html 200 0.003s and some more text, as servers log it\n"
	for b.Loop() {
		r := realShim(b, sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /tmp/lines; done"), func(c *wire.Config) {
			c.Log.MaxSize, c.Log.MaxFiles = 10<<20, 3
			c.Grace = 20 * time.Second
			dir := filepath.Join(c.Bundle, "root/tmp")
			os.MkdirAll(dir, 0o755)
			os.WriteFile(filepath.Join(dir, "lines"), []byte(strings.Repeat(line, mib<<20/16/len(line))), 0o644)
		})
		r.run()
		begin := time.Now()
		if _, err := wire.Wait(r.ctx, r.sock, r.cfg.StateDir); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(mib/time.Since(begin).Seconds(), "MiB/s")
	}
}

// BenchmarkRun is the life of a container that ends at once, from the start of its shim to the shim's end.
func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		r := realShim(b, []string{"true"}, func(c *wire.Config) { c.Volatile = true })
		begin := time.Now()
		r.run()
		if _, err := wire.Wait(r.ctx, r.sock, r.cfg.StateDir); err != nil {
			b.Fatal(err)
		}
		told := time.Since(begin)
		<-r.done
		b.ReportMetric(told.Seconds()*1000, "ms-create-to-exit")
		b.ReportMetric((time.Since(begin)-told).Seconds()*1000, "ms-to-gone")
	}
}

// A process that closes its terminal keeps it: no hangup, and what is written through /dev/console later still comes out.
func TestRealTerminalClosedAndReopened(t *testing.T) {
	r := realShim(t, sh("exec </dev/null >/dev/null 2>&1; busybox usleep 300000; echo later >/dev/console; busybox usleep 300000; exit 5"),
		func(c *wire.Config) { c.Terminal = true })
	a := r.attach(false)
	r.run()
	var out bytes.Buffer
	last, err := a.Copy(&out, nil)
	if err != nil || last.Exit.Code != 5 || out.String() != "later\r\n" {
		t.Errorf("%q %+v %v", out.String(), last.Exit, err)
	}
}
