package e2e

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// traffic asks a page again and again until stop, which tells how often it was answered and what went wrong.
func (w *world) traffic(from, url string) (stop func() (int, []string)) {
	var done atomic.Bool
	var wg sync.WaitGroup
	var served int
	var failed []string
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !done.Load() {
			if _, err := w.fetch(from, url); err != nil {
				failed = append(failed, time.Now().Format("15:04:05.000 ")+err.Error())
			} else {
				served++
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() (int, []string) { done.Store(true); wg.Wait(); return served, failed }
}

// TestEngineDies kills the engine under load: containers go on, published ports serve without a gap, the next engine adopts all,
// and neither a line of a log nor an exit code is lost.
func TestEngineDies(t *testing.T) {
	t.Parallel()
	w := full(t)
	const rounds, count = 3, 1500
	w.Dhow("run", "-d", "--name", "web", "-p", "8080:80", "hello").OK()
	w.Dhow("run", "-d", "--name", "talker", bb, "sh", "-c",
		fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); [ $((i%%100)) = 0 ] && sleep 0.2; done; exit 9", count)).OK()
	w.Dhow("run", "-d", "--name", "sleeper", "--label", "kept=yes", "-m", "64m", "-v", "vol:/v", bb, "sleep", "1000").OK()
	w.Dhow("run", "-d", "--name", "ender", bb, "sh", "-c", "sleep 1; echo last words; exit 4").OK()
	w.Dhow("run", "-d", "--rm", "--name", "leaver", bb, "sleep", "1").OK()
	w.Dhow("run", "-d", "--name", "again", "--restart", "on-failure:1", bb, "sh", "-c", "echo up; sleep 1; exit 1").OK()
	if _, err := w.fetch("host", "http://127.0.0.1:8080/json"); err != nil {
		time.Sleep(200 * time.Millisecond)
	}
	outside, host := w.traffic("outside", "http://192.0.2.1:8080/json"), w.traffic("host", "http://127.0.0.1:8080/json")
	follower := w.follow(t, "talker")
	w.Kill()
	time.Sleep(1500 * time.Millisecond) // ender, leaver and again end while nobody looks
	for range rounds {
		w.Run()
		if got := w.Dhow("inspect", "-f", "{{.State.Running}} {{.Config.Labels.kept}}", "sleeper").OK(); got != "true yes" {
			t.Errorf("sleeper: %q", got)
		}
		time.Sleep(100 * time.Millisecond)
		w.Kill()
		time.Sleep(100 * time.Millisecond)
	}
	w.Run()
	for from, stop := range map[string]func() (int, []string){"outside": outside, "host": host} {
		n, failed := stop()
		if len(failed) > 0 || n < 20 {
			t.Errorf("from %s: %d requests served, %d failed: %v", from, n, len(failed), failed[:min(3, len(failed))])
		}
	}
	for name, want := range map[string]string{"talker": "9", "ender": "4", "again": "1"} {
		if got := w.Dhow("wait", name).OK(); got != want {
			t.Errorf("%s: exit code %s, want %s", name, got, want)
		}
	}
	got := lines(w.Dhow("logs", "talker").Out)
	for i, l := range got {
		if l != fmt.Sprintf("line %d", i) {
			t.Errorf("line %d of the log is %q", i, l)
			break
		}
	}
	if len(got) != count {
		t.Errorf("%d lines of %d in the log", len(got), count)
	}
	if out := w.Dhow("logs", "ender").Out; out != "last words\n" {
		t.Errorf("ender's log: %q", out)
	}
	// Each engine's start is a new beginning for on-failure:1, as docker's is; from the last on it counts.
	again := func() string { return w.Dhow("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again").OK() }
	eventually(t, "again is started again, and given up", func() bool { return again() == "1 exited" }, again)
	if n := strings.Count(w.Dhow("logs", "again").Out, "up\n"); n < 2 || n > rounds+3 {
		t.Errorf("again ran %d times", n)
	}
	eventually(t, "leaver is removed", func() bool { return w.Dhow("inspect", "leaver").Code != 0 })
	if out := w.Dhow("exec", "sleeper", "sh", "-c", "echo reached; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null").Out; out != "reached\n67108864\n" {
		t.Errorf("exec in an adopted container: %q", out)
	}
	w.Dhow("stop", "-t", "0", "sleeper").OK()
	w.Dhow("run", "--rm", "-p", "8080:80", "hello").Fails(125, "port is already allocated")
	follower()
	w.Dhow("rm", "-fv", "web", "sleeper", "talker", "ender", "again").OK()
	w.Dhow("volume", "rm", "vol").OK()
}

// follow reads a log as long as the engine lives; the client ends when the engine is killed and must not hang.
func (w *world) follow(t *testing.T, name string) (ended func()) {
	cmd := exec.Command(w.Program("dhow"), "logs", "-f", name)
	cmd.Env = append(os.Environ(), w.Env()...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the client
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
		}
		cmd.Wait()
	}()
	return func() {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			t.Error("logs -f hangs after the engine was killed")
		}
	}
}

// shimOf finds a container's shim by the folder in its command line.
func shimOf(t *testing.T, id string) int {
	t.Helper()
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), id) && strings.HasPrefix(string(b), "dhow-shim") {
			pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
			return pid
		}
	}
	t.Fatalf("no shim of %s", id)
	return 0
}

// TestShimDies kills a shim under an engine, both together, and a shim while no engine runs.
func TestShimDies(t *testing.T) {
	t.Parallel()
	w := full(t)
	id := w.Dhow("run", "-d", "--name", "ct", "-p", "8080:80", bb, "sh", "-c", "sleep 1000 & sleep 1000").OK()
	dead := func() {
		t.Helper()
		eventually(t, "the container is seen to have ended", func() bool {
			return w.Dhow("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ct").OK() == "exited 137"
		})
		if err := w.Dhow("inspect", "-f", "{{.State.Error}}", "ct").OK(); err == "" {
			t.Error("nothing says why it ended")
		}
	}
	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	dead()
	w.Dhow("start", "ct").OK()
	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	w.Kill()
	w.Run()
	dead()
	w.Dhow("start", "ct").OK()
	w.Kill()
	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	time.Sleep(100 * time.Millisecond)
	w.Run()
	dead()
	w.Dhow("rm", "ct").OK()
	w.Dhow("run", "-d", "--restart", "always", "--name", "back", bb, "sleep", "1000").OK()
	id = w.Dhow("inspect", "-f", "{{.Id}}", "back").OK()
	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	eventually(t, "the policy starts it again", func() bool {
		return strings.HasPrefix(w.Dhow("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "back").OK(), "running 1")
	})
}

// TestRandomKills kills the engine at random moments of a day's work, and expects the next one to find nothing it cannot explain.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	rounds := 25
	if testing.Short() {
		rounds = 4
	}
	if n, err := strconv.Atoi(os.Getenv("DHOW_E2E_KILLS")); err == nil {
		rounds = n
	}
	w := full(t)
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	t.Logf("seed %d", seed)
	app := strings.Replace(bb, "busybox:latest", "app:1", 1)
	for round := range rounds {
		stop := w.work(app)
		time.Sleep(time.Duration(r.Intn(400)) * time.Millisecond)
		if r.Intn(3) == 0 { // a shim or two go first
			for _, pid := range shims(w.RunRoot) {
				if r.Intn(2) == 0 {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		w.Kill()
		stop()
		w.Run()
		w.consistent(t, round)
		if t.Failed() {
			return
		}
	}
	if ids := strings.Fields(w.Dhow("ps", "-aq").OK()); len(ids) > 0 {
		w.Dhow(append([]string{"rm", "-fv"}, ids...)...).OK()
	}
	w.Dhow("run", "--rm", bb, "true").OK()
	w.Dhow("run", "--rm", app).OK()
	w.Dhow("volume", "prune", "-af").OK()
}

// work runs clients that do all kinds of things, none of them expected to succeed, until stop.
func (w *world) work(app string) (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	loop := func(cmds ...string) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !done.Load() {
				for _, c := range cmds {
					if done.Load() {
						return
					}
					cmd := exec.Command(w.Program("dhow"), strings.Fields(c)...)
					cmd.Env = append(os.Environ(), w.Env()...)
					timer := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
					cmd.Run()
					timer.Stop()
				}
			}
		}()
	}
	loop("run --rm -p 8080:80 -v /anon " + bb + " true")
	loop("run -d --name a -v named:/v -m 32m "+bb+" sleep 100", "stop -t 0 a", "start a", "rm -f a")
	loop("pull "+app, "rmi -f "+app)
	return func() { done.Store(true); wg.Wait() }
}

// consistent compares what the engine says with what there is.
func (w *world) consistent(t *testing.T, round int) {
	t.Helper()
	var running, all []string
	look := func() string {
		running, all = strings.Fields(w.Dhow("ps", "-q", "--no-trunc").OK()), strings.Fields(w.Dhow("ps", "-aq", "--no-trunc").OK())
		return fmt.Sprintf("%d containers, %d run; %d and %d folders, %d snapshots, %d shims", len(all), len(running),
			len(names(w.DataRoot+"/containers")), len(names(w.RunRoot+"/containers")), len(names(w.DataRoot+"/snapshots")), len(shims(w.RunRoot)))
	}
	eventually(t, fmt.Sprintf("round %d: only containers' own folders", round), func() bool {
		return look() == fmt.Sprintf("%d containers, %d run; %d and %d folders, %d snapshots, %d shims", len(all), len(running), len(all), len(running), len(all), len(running))
	}, look, func() string { return "\n" + w.Dhow("ps", "-a", "--no-trunc").Out + last(w.Log(), 30) })
	for _, id := range running {
		if r := w.Dhow("exec", id, "true"); r.Code != 0 {
			t.Errorf("round %d: %s runs, but: %s", round, id[:12], r.Err)
		}
	}
	for _, id := range all {
		if state := w.Dhow("inspect", "-f", "{{.State.Status}}", id).OK(); state != "running" && state != "exited" && state != "created" {
			t.Errorf("round %d: %s is %s", round, id[:12], state)
		}
	}
	for _, v := range strings.Fields(w.Dhow("volume", "ls", "-q").OK()) {
		if v != "named" && w.Dhow("ps", "-aq", "--filter", "volume="+v).OK() == "" {
			t.Errorf("round %d: nobody's volume %s is left", round, v)
		}
	}
	if groups := cgroups(w.Cgroup); groups != len(running) {
		t.Errorf("round %d: %d cgroups for %d running containers", round, groups, len(running))
	}
	if links := strings.Count(w.sh(t, "ip", "-o", "link", "show", "type", "veth"), "\n") - 1; links != len(running) {
		t.Errorf("round %d: %d links for %d running containers", round, links, len(running))
	}
}

func (w *world) sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + netnsPath(w.Netns), name}, args...)...).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// cgroups counts the most children that a parent has in any hierarchy.
func cgroups(parent string) (most int) {
	for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			most = max(most, len(names(d)))
		}
	}
	return most
}

func names(dir string) (out []string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if n := e.Name(); e.IsDir() && (n[0] != '.' || strings.HasPrefix(n, ".new-") || strings.HasPrefix(n, ".rm-")) {
			out = append(out, e.Name())
		}
	}
	return out
}

func shims(runRoot string) (out []int) {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		if b, _ := os.ReadFile(p); strings.HasPrefix(string(b), "dhow-shim") && strings.Contains(string(b), runRoot) {
			pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}
