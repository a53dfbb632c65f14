package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// terminal is a client that runs on a pseudo-terminal.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{}

	mu   sync.Mutex
	seen bytes.Buffer
}

// sit starts a client at a terminal of 24 lines and 80 columns. It is killed when the test ends.
func (w *world) sit(t *testing.T, program string, args ...string) *terminal {
	t.Helper()
	master, slave, err := tty.OpenPTY()
	if err != nil {
		t.Fatal(err)
	}
	tty.SetSize(int(slave.Fd()), 24, 80)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(append(os.Environ(), w.Env()...), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	x := &terminal{t: t, master: master, cmd: cmd, ended: make(chan struct{})}
	go func() { // ends when the last program leaves the terminal
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			x.mu.Lock()
			x.seen.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { cmd.Wait(); close(x.ended) }()
	t.Cleanup(func() { cancel(); <-x.ended; master.Close() })
	return x
}

func (x *terminal) screen() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen.String()
}

// sees waits for a pattern and forgets what came up to it.
func (x *terminal) sees(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	eventually(x.t, "on the screen "+pattern, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		loc := re.FindIndex(x.seen.Bytes())
		if loc != nil {
			x.seen.Next(loc[1])
		}
		return loc != nil
	}, x.screen)
}

func (x *terminal) types(s string) {
	x.t.Helper()
	if _, err := x.master.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

// ends waits for the client's end with an exit code.
func (x *terminal) ends(code int) {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(15 * time.Second):
		x.t.Fatalf("the client does not end; on the screen: %q", x.screen())
	}
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("exit code %d, want %d; on the screen: %q", got, code, x.screen())
	}
}

// TestTerminal drives both clients at a terminal: raw mode, sizes, detach keys, attach, exec, signals and progress.
func TestTerminal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("running containers needs root")
	}
	for name, program := range clients(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := full(t)
			for _, c := range []struct {
				name string
				run  func(*testing.T, *world, string)
			}{{"run", testRunTerminal}, {"detach", testDetach}, {"exec", testExecTerminal}, {"signals", testSignals}, {"progress", testProgress}} {
				t.Run(c.name, func(t *testing.T) { c.run(t, &world{Engine: w.With(t), outside: w.outside}, program) })
			}
		})
	}
}

func testRunTerminal(t *testing.T, w *world, client string) {
	x := w.sit(t, client, "run", "--rm", "-it", bb, "sh")
	x.sees(`# `)
	x.types("tty; stty size\n")
	x.sees(`/dev/(pts/0|console)\r\n`)
	x.sees(`24 80\r\n`)
	if err := tty.SetSize(int(x.master.Fd()), 40, 133); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(x.cmd.Process.Pid, syscall.SIGWINCH)
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		x.types("stty size\n")
		x.sees(`\n\d+ \d+\r\n`)
		x.types("stty size > /tmp/size; grep -q '40 133' /tmp/size && echo re''sized || echo no''t yet\n")
		x.sees(`not yet|resized`)
		if strings.Contains(w.Dhow("ps", "-q").OK(), "\n") {
			t.Fatal("more than one container")
		}
		id := w.Dhow("ps", "-q").OK()
		if w.Dhow("exec", id, "cat", "/tmp/size").Out == "40 133\n" {
			break
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("the new size does not arrive")
		}
	}
	x.types("sleep 100\n")
	time.Sleep(100 * time.Millisecond)
	x.types("\x03") // ctrl-c goes to the container's terminal, not to the client
	x.sees(`# `)
	x.types("exit 7\n")
	x.ends(7)
}

func testDetach(t *testing.T, w *world, client string) {
	x := w.sit(t, client, "run", "-it", "--name", "ct", bb, "sh")
	x.sees(`# `)
	x.types("kept=yes\n")
	x.sees(`# `)
	x.types("\x10\x11") // ctrl-p ctrl-q
	x.ends(0)
	if s := w.Dhow("inspect", "-f", "{{.State.Status}}", "ct").OK(); s != "running" {
		t.Fatalf("after the detach keys the container is %s", s)
	}
	x = w.sit(t, client, "attach", "ct")
	x.types("echo $kept sir\n")
	x.sees(`yes sir\r\n`)
	x.types("\x10p") // half of the keys goes through
	x.types("\x15exit 3\n")
	x.ends(3)
	x = w.sit(t, client, "start", "-ai", "ct")
	x.types("echo a''gain\n")
	x.sees(`again\r\n`)
	x.types("\x10\x11")
	x.ends(0)
	x = w.sit(t, client, "attach", "--detach-keys", "ctrl-a,z", "ct")
	x.types("echo there\n")
	x.sees(`there\r\n`)
	x.types("\x01z")
	own := filepath.Base(client) == "dhow"
	x.ends(map[bool]int{true: 0, false: 1}[own]) // docker's attach, unlike its run, calls this an error
	w.Dhow("rm", "-f", "ct").OK()
	if !own {
		return // docker's run makes the container first
	}
	x = w.sit(t, client, "run", "--rm", "-it", "--detach-keys", "nonsense-keys", bb, "true")
	x.ends(125)
	if out := w.Dhow("ps", "-aq").OK(); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

func testExecTerminal(t *testing.T, w *world, client string) {
	w.Dhow("run", "-d", "--name", "ct", bb, "sleep", "100").OK()
	x := w.sit(t, client, "exec", "-it", "ct", "sh")
	x.sees(`# `)
	x.types("tty; stty size\n")
	x.sees(`/dev/pts/\d+\r\n24 80\r\n`)
	x.types("exit 5\n")
	x.ends(5)
	x = w.sit(t, client, "exec", "-it", "ct", "nosuch")
	x.ends(127)
	x = w.sit(t, client, "exec", "-it", "ct", "sh")
	x.sees(`# `)
	w.Dhow("kill", "ct").OK() // and not removed at once: the client asks for the exit code when its session has ended
	x.ends(137)
	w.Dhow("rm", "-f", "ct").OK()
}

// testSignals interrupts a client that has no terminal in the container: the signal is passed on.
func testSignals(t *testing.T, w *world, client string) {
	x := w.sit(t, client, "run", "--rm", bb, "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done")
	x.sees(`ready\r\n`)
	x.types("\x03")
	x.sees(`caught\r\n`)
	x.ends(9)
	x = w.sit(t, client, "run", "--rm", bb, "sh", "-c", "trap 'echo caught; exit 8' TERM; echo ready; while :; do sleep 0.05; done")
	x.sees(`ready\r\n`)
	syscall.Kill(x.cmd.Process.Pid, syscall.SIGTERM)
	x.sees(`caught\r\n`)
	x.ends(8)
}

func testProgress(t *testing.T, w *world, client string) {
	app := strings.Replace(bb, "busybox:latest", "app:1", 1)
	x := w.sit(t, client, "pull", app)
	x.ends(0)
	if s := x.screen(); !strings.Contains(s, "\x1b[") || !strings.Contains(s, "Pull complete") {
		t.Errorf("no moving bars on a terminal: %q", s)
	}
	w.Dhow("rmi", app).OK()
}
