package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// eventually tries for ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > patience.Of(10*time.Second) {
			t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

func TestEngineIsKilled(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	e.Docker("run", "-d", "--name", "web", "-p", "8080:80", "hello").OK()
	e.Docker("run", "-d", "--name", "talker", bb, "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 9").OK()
	e.Docker("run", "-d", "--name", "sleeper", bb, "sleep", "1000").OK()
	e.Docker("run", "-d", "--rm", "--name", "leaver", bb, "sleep", "1").OK()
	before := get(t, e, "http://127.0.0.1:8080/json")

	e.Kill()
	if after := get(t, e, "http://127.0.0.1:8080/json"); after != before {
		t.Errorf("while the engine is away: %+v, want %+v", after, before)
	}
	time.Sleep(1500 * time.Millisecond) // leaver ends with nobody looking, talker goes on
	start := time.Now()
	e.Run()
	t.Logf("recovered in %v", time.Since(start))
	if after := get(t, e, "http://127.0.0.1:8080/json"); after != before {
		t.Errorf("after the restart: %+v, want %+v", after, before)
	}
	want(t, e.Docker("ps", "--format", "{{.Names}}").OK(), "web")
	want(t, e.Docker("exec", "sleeper", "echo", "reached").OK(), "^reached$")
	want(t, e.Docker("wait", "talker").OK(), "^9$")
	if lines := strings.Count(e.Docker("logs", "talker").Out, "line "); lines != 300 {
		t.Errorf("%d lines of 300 in the log", lines)
	}
	eventually(t, "leaver is removed", func() bool { return e.Docker("inspect", "leaver").Code != 0 })
	e.Docker("stop", "-t", "0", "sleeper").OK()
	e.Docker("run", "--rm", "-p", "8080:80", "hello").Fails(125, "port is already allocated")
	e.Docker("rm", "-f", "web").OK()
	e.Docker("run", "-d", "-p", "8080:80", "hello").OK()
}

func TestExitWhileAway(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	e.Docker("run", "-d", "--name", "ender", bb, "sh", "-c", "sleep 0.3; exit 4").OK()
	e.Docker("run", "-d", "--name", "again", "--restart", "always", bb, "sh", "-c", "echo up; sleep 0.5; exit 1").OK()
	e.Docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", bb, "sleep", "100").OK()
	e.Docker("stop", "-t", "0", "stopped").OK()
	e.Kill()
	time.Sleep(time.Second)
	e.Run()
	want(t, e.Docker("wait", "ender").OK(), "^4$")
	want(t, e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ender").OK(), "^exited 4$")
	eventually(t, "the policy starts it again", func() bool { return strings.Count(e.Docker("logs", "again").Out, "up") >= 2 })
	want(t, e.Docker("inspect", "-f", "{{.State.Status}}", "stopped").OK(), "^exited$")
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

func TestShimIsKilled(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("run", "-d", "--name", "alone", "-p", "8080:80", bb, "sh", "-c", "sleep 1000 & sleep 1000").OK()
	pid := e.Docker("inspect", "-f", "{{.State.Pid}}", "alone").OK()
	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	eventually(t, "the container is seen to have ended", func() bool {
		return e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "alone").OK() == "exited 137"
	})
	want(t, e.Docker("inspect", "-f", "{{.State.Error}}", "alone").OK(), "shim was killed")
	if b, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && !strings.Contains(string(b), ") Z ") { // the machine's init may reap it late
		t.Errorf("the container's process lives on: %s", b)
	}
	e.Docker("start", "alone").OK()

	syscall.Kill(shimOf(t, id), syscall.SIGKILL)
	e.Kill() // both, and then an engine that finds a cgroup without a shim
	e.Run()
	want(t, e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "alone").OK(), "^exited 137$")
}

// TestShimIsStopped: a shim that does not answer while an engine starts is no reason to kill its container.
func TestShimIsStopped(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("run", "-d", "--name", "slow", bb, "sleep", "1000").OK()
	shim := shimOf(t, id)
	e.Kill()
	syscall.Kill(shim, syscall.SIGSTOP)
	defer syscall.Kill(shim, syscall.SIGCONT)
	e.Run() // waits for the shim, then goes on without it
	syscall.Kill(shim, syscall.SIGCONT)
	want(t, e.Docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "slow").OK(), "^running 0$")
	want(t, e.Docker("exec", "slow", "echo", "reached").OK(), "^reached$")
	e.Docker("rm", "-f", "slow").OK()
}

// TestUnrecordedRun: that a container runs which goes with its run is not always written down. An engine that finds its shim slow leaves it
// alone as any other; one that finds its shim gone too has it removed.
func TestUnrecordedRun(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("run", "-d", "--rm", "--network", "host", "--name", "brief", bb, "sleep", "1000").OK()
	shim := shimOf(t, id)
	e.Kill()
	syscall.Kill(shim, syscall.SIGSTOP)
	defer syscall.Kill(shim, syscall.SIGCONT)
	e.Run()
	syscall.Kill(shim, syscall.SIGCONT)
	want(t, e.Docker("inspect", "-f", "{{.State.Status}}", "brief").OK(), "^running$")
	want(t, e.Docker("exec", "brief", "echo", "reached").OK(), "^reached$")
	eventually(t, "its process is known", func() bool { return e.Docker("inspect", "-f", "{{.State.Pid}}", "brief").OK() != "0" })

	e.Kill()
	syscall.Kill(shim, syscall.SIGKILL)
	e.Run()
	eventually(t, "brief is removed", func() bool { return e.Docker("inspect", "brief").Code != 0 })
	want(t, e.Docker("ps", "-aq").OK(), "^$")
}

// TestLeftovers puts on disk what crashes at bad moments leave, and expects it gone.
func TestLeftovers(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("create", "--name", "kept", "-v", "/v", bb, "true").OK()
	e.Kill()
	ghost := strings.Repeat("ab", 32)
	for _, d := range []string{"data/containers/" + ghost, "run/containers/" + ghost, "run/oci/" + ghost, "data/snapshots/" + ghost + "/upper", "data/volumes/ghost/_data", "data/snapshots/.new-1/upper"} {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(e.DataRoot), d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll(filepath.Join(e.RunRoot, "containers", id), 0o700) // a start that came no further
	for _, h := range []string{"pids", "freezer", "unified", ""} {
		if st, err := os.Stat("/sys/fs/cgroup/" + h + "/cgroup.procs"); err == nil && !st.IsDir() {
			os.MkdirAll(filepath.Join("/sys/fs/cgroup", h, e.Cgroup, ghost, "sub"), 0o755)
		}
	}
	e.Run()
	for _, d := range []string{"data/containers", "run/containers", "run/oci", "data/snapshots"} {
		list, _ := os.ReadDir(filepath.Join(filepath.Dir(e.DataRoot), d))
		for _, n := range list {
			if n.Name() != id && n.Name() != ".scratch" {
				t.Errorf("left: %s/%s", d, n.Name())
			}
		}
	}
	if list, _ := os.ReadDir(e.DataRoot + "/volumes"); len(list) != 1 {
		t.Errorf("volumes: %v", list)
	}
	e.Docker("start", "-a", "kept").OK()
}

// TestManyAtOnce starts and removes containers from many clients at a time.
func TestManyAtOnce(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	e.Docker("run", "--rm", bb, "true").OK()
	fds := e.FDs()
	type result struct {
		i    int
		text string
	}
	out := make(chan result)
	const n = 24
	for i := range n {
		go func() {
			r := e.Docker("run", "--rm", "-v", fmt.Sprintf("shared%d:/v", i%3), "-p", fmt.Sprintf("%d:80", 9000+i), bb, "echo", strconv.Itoa(i))
			out <- result{i, r.Out + r.Err}
		}()
	}
	for range n {
		if r := <-out; strings.TrimSpace(r.text) != strconv.Itoa(r.i) {
			t.Errorf("container %d: %q", r.i, r.text)
		}
	}
	winners := make(chan int)
	for range 8 {
		go func() { winners <- e.Docker("create", "--name", "same", bb, "true").Code }()
	}
	won := 0
	for range 8 {
		if <-winners == 0 {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d clients created the same name", won)
	}
	eventually(t, fmt.Sprintf("descriptors come back to %d, have %d", fds, e.FDs()), func() bool { return e.FDs() <= fds+2 })
}

// TestStoppedShim: a shim that does not answer delays its own container's operations only.
func TestStoppedShim(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("run", "-d", "--name", "stuck", bb, "sleep", "1000").OK()
	e.Docker("run", "-d", "--name", "fine", bb, "sleep", "1000").OK()
	shim := shimOf(t, id)
	syscall.Kill(shim, syscall.SIGSTOP)
	defer syscall.Kill(shim, syscall.SIGCONT)
	go e.Docker("pause", "stuck")
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte("["+strings.ReplaceAll(e.Docker("ps", "--format", "json").OK(), "\n", ",")+"]"), &list); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
	e.Docker("inspect", "stuck").OK()
	e.Docker("exec", "fine", "true").OK()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("others waited %v", d)
	}
	syscall.Kill(shim, syscall.SIGCONT)
	eventually(t, "paused at last", func() bool {
		return e.Docker("inspect", "-f", "{{.State.Status}}", "stuck").OK() == "paused"
	})
	e.Docker("unpause", "stuck").OK()
	syscall.Kill(shim, syscall.SIGSTOP)
	e.Docker("rm", "-f", "stuck").OK() // also without the shim's help
}

// TestRandomKills kills the engine again and again amid starts, stops and removals, and expects one container that runs all the
// while to be undisturbed and nothing to be left in the end.
func TestRandomKills(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 3
	}
	e := harness.Start(t)
	e.Busybox()
	e.Docker("run", "-d", "--name", "web", "-p", "8080:80", "hello").OK()
	before := get(t, e, "http://127.0.0.1:8080/json")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("w%d-%d", w, i)
				switch (w + i) % 3 {
				case 0:
					e.Docker("run", "--rm", "--name", name, "-v", "/anon", "-p", fmt.Sprintf("%d:80", 9000+w), bb, "true")
				case 1:
					e.Docker("run", "-d", "--name", name, bb, "sleep", "1000")
					e.Docker("rm", "-fv", name)
				case 2:
					e.Docker("create", "--name", name, "-v", "vol"+name+":/v", bb, "true")
					e.Docker("start", name)
					e.Docker("rm", "-fv", name)
					e.Docker("volume", "rm", "vol"+name)
				}
			}
		})
	}
	for i := range kills {
		time.Sleep(time.Duration(50+(i*137)%400) * time.Millisecond)
		e.Kill()
		e.Run()
	}
	close(stop)
	wg.Wait()
	if after := get(t, e, "http://127.0.0.1:8080/json"); after != before {
		t.Errorf("the web server was disturbed: %+v, before %+v", after, before)
	}
	for _, id := range strings.Fields(e.Docker("ps", "-aq", "--no-trunc").OK()) {
		var v []struct {
			State struct {
				Running bool
				Pid     int
			}
		}
		if err := json.Unmarshal([]byte(e.Docker("inspect", id).OK()), &v); err != nil || len(v) != 1 {
			t.Fatal(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", v[0].State.Pid)); v[0].State.Running && err != nil {
			t.Errorf("container %s is said to run: %v", id[:12], err)
		}
	}
}

// A container that is removed when it ends has its state in memory and in its run's folder. When the machine goes down it is as ended as can
// be; one that was never started waits on.
func TestRemovedWhenTheMachineGoesDown(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	id := e.Docker("run", "-d", "--rm", "--network", "host", "--name", "leaver", bb, "sleep", "1000").OK()
	e.Docker("create", "--rm", "--name", "waits", bb, "true").OK()
	pid, err := strconv.Atoi(e.Docker("inspect", "-f", "{{.State.Pid}}", "leaver").OK())
	if err != nil {
		t.Fatal(err)
	}
	e.Kill()
	shim := shimOf(t, id)
	syscall.Kill(shim, syscall.SIGKILL)
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "both are gone", func() bool { return syscall.Kill(shim, 0) != nil && syscall.Kill(pid, 0) != nil })
	if err := os.RemoveAll(filepath.Join(e.RunRoot, "containers", id)); err != nil { // as /run is empty at boot
		t.Fatal(err)
	}
	e.Run()
	eventually(t, "leaver is removed", func() bool { return e.Docker("inspect", "leaver").Code != 0 })
	want(t, e.Docker("inspect", "-f", "{{.State.Status}}", "waits").OK(), "^created$")
}
