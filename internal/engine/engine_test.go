package engine_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
)

func TestEngine(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	for _, c := range []struct {
		name string
		run  func(*testing.T, *harness.Engine)
	}{
		{"run", testRun}, {"errors", testErrors}, {"process", testProcess}, {"mounts", testMounts}, {"limits", testLimits},
		{"networks", testNetworks}, {"ports", testPorts}, {"exec", testExec}, {"life", testLife}, {"logs", testLogs}, {"restart policy", testRestart},
		{"listing", testListing}, {"not implemented", testNotImplemented}, {"why", testWhy},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := e.With(t)
			c.run(t, e)
			if ids := strings.Fields(e.Docker("ps", "-aq").Out); len(ids) > 0 {
				e.Docker(append([]string{"rm", "-fv"}, ids...)...).OK()
			}
			if l := e.Leaks(); len(l) > 0 {
				t.Errorf("left behind:\n%s", strings.Join(l, "\n"))
			}
		})
	}
}

const bb = harness.Image

func want(t *testing.T, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("got %q, want a match of %q", got, pattern)
	}
}

func testRun(t *testing.T, e *harness.Engine) {
	want(t, e.Docker("run", "--rm", bb, "echo", "hi").OK(), "^hi$")
	e.Docker("run", "--rm", bb, "sh", "-c", "exit 7").Fails(7)
	want(t, e.DockerIn("through stdin\n", "run", "--rm", "-i", bb, "cat").OK(), "^through stdin$")
	e.Docker("run", "--rm", bb, "sh", "-c", "sh -c 'kill -9 $$'; exit $?").Fails(137)
	r := e.Docker("run", "--rm", bb, "sh", "-c", "echo out; echo err >&2")
	want(t, r.Out, "^out\n$")
	want(t, r.Err, "^err\n$")
	want(t, e.Docker("run", "--rm", "-t", bb, "sh", "-c", "tty; stty size").OK(), "/dev/")
	want(t, e.Docker("ps", "-aq").OK(), "^$")
}

func testErrors(t *testing.T, e *harness.Engine) {
	e.Docker("run", "--rm", bb, "nosuch").Fails(127, "executable file not found")
	e.Docker("run", "--rm", bb, "/no/such").Fails(127, "no such file or directory")
	e.Docker("run", "--rm", bb, "/etc").Fails(126)
	e.Docker("run", "--rm", "--pull", "never", "nosuchimage", "true").Fails(125, "No such image: nosuchimage")
	e.Docker("run", "--rm", "--mount", "type=bind,source=/no/such,target=/x", bb, "true").Fails(125, "bind source path does not exist: /no/such")
	e.Docker("run", "--rm", "-u", "nobody99", bb, "true").Fails(125, "unable to find user nobody99")
	e.Docker("run", "--rm", "--cap-add", "NONSENSE", bb, "true").Fails(125, "NONSENSE")
	e.Docker("run", "--rm", "-m", "1m", bb, "true").Fails(125, "minimum memory limit")
	e.Docker("run", "--rm", "--network", "nosuchnet", bb, "true").Fails(125, "nosuchnet")
	e.Docker("run", "--rm", "-v", "relative/path:/x", bb, "true").Fails(125, "relative/path")
	e.Docker("rm", "nosuch").Fails(1, "No such container: nosuch")
	want(t, e.Docker("ps", "-aq").OK(), "^$")
}

func testProcess(t *testing.T, e *harness.Engine) {
	out := e.Docker("run", "--rm", "-e", "A=b", "-w", "/work/x", "-u", "1000:1001", "--hostname", "hh", bb, "sh", "-c", "id -u; id -g; pwd; echo $A $HOME; hostname").OK()
	want(t, out, "^1000\n1001\n/work/x\nb /\nhh$")
	status := "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status"
	out = e.Docker("run", "--rm", bb, "sh", "-c", status).OK()
	want(t, out, `CapInh:\s0000000000000000\nCapPrm:\s00000000a80425fb\nCapEff:\s00000000a80425fb\nCapBnd:\s00000000a80425fb\nCapAmb:\s0000000000000000\nNoNewPrivs:\s0\nSeccomp:\s2`)
	want(t, e.Docker("run", "--rm", "--cap-drop", "ALL", "--cap-add", "CHOWN", bb, "sh", "-c", status).OK(), `CapEff:\s0000000000000001\n`)
	want(t, e.Docker("run", "--rm", "--security-opt", "no-new-privileges", bb, "sh", "-c", status).OK(), `NoNewPrivs:\s1`)
	want(t, e.Docker("run", "--rm", "--security-opt", "seccomp=unconfined", bb, "sh", "-c", status).OK(), `Seccomp:\s0`)
	want(t, e.Docker("run", "--rm", "--privileged", bb, "sh", "-c", status).OK(), `CapEff:\s0000(0|1)[0-9a-f]+\n(.*\n)*Seccomp:\s0`)
	want(t, e.Docker("run", "--rm", "--entrypoint", "echo", bb, "x").OK(), "^x$")
	want(t, e.Docker("run", "--rm", "--ulimit", "nofile=1024:2048", bb, "sh", "-c", "ulimit -n; ulimit -Hn").OK(), "^1024\n2048$")
	e.Docker("run", "--rm", "--read-only", bb, "sh", "-c", "echo x > /f").Fails(1, "Read-only")
	want(t, e.Docker("run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", bb, "cat", "/proc/sys/net/ipv4/ip_forward").OK(), "^1$")
	want(t, e.Docker("run", "--rm", bb, "sh", "-c", "ls /proc/kcore /proc/acpi 2>&1 | wc -l; cat /proc/timer_list | wc -c; echo x > /proc/sys/kernel/hostname").Err, "Read-only")
}

func testMounts(t *testing.T, e *harness.Engine) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("from the host\n"), 0o644)
	want(t, e.Docker("run", "--rm", "-v", dir+":/b", bb, "sh", "-c", "cat /b/f; echo back > /b/g").OK(), "^from the host$")
	if b, _ := os.ReadFile(filepath.Join(dir, "g")); string(b) != "back\n" {
		t.Errorf("the bind mount is not the host's folder: %q", b)
	}
	e.Docker("run", "--rm", "-v", dir+":/b:ro", bb, "sh", "-c", "echo x > /b/h").Fails(1, "Read-only")
	e.Docker("run", "--rm", "-v", "vol:/v", bb, "sh", "-c", "echo kept > /v/f").OK()
	want(t, e.Docker("run", "--rm", "-v", "vol:/v", bb, "cat", "/v/f").OK(), "^kept$")
	want(t, e.Docker("run", "--rm", "-v", "new:/etc", bb, "ls", "/etc/passwd").Out+e.Docker("run", "--rm", "-v", "new:/etc", bb, "ls", "/").OK(), "etc")
	want(t, e.Docker("run", "--rm", "--tmpfs", "/t:size=1m,mode=700", bb, "sh", "-c", "mount | grep ' /t '; stat -c %a /t").OK(), "(?s)size=1024k.*700")
	want(t, e.Docker("run", "--rm", "--shm-size", "3m", bb, "sh", "-c", "df -k /dev/shm | tail -1").OK(), "3072")
	e.Docker("run", "--rm", "-v", dir+"/made/by/engine:/x", bb, "true").OK()
	if st, err := os.Stat(dir + "/made/by/engine"); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("missing source of -v: %v %v", st, err)
	}
	e.Docker("run", "-d", "--name", "holder", "-v", "vol:/v", bb, "sleep", "100").OK()
	e.Docker("volume", "rm", "vol").Fails(1, "in use")
	want(t, e.Docker("run", "--rm", "--volumes-from", "holder", bb, "cat", "/v/f").OK(), "^kept$")
	e.Docker("rm", "-f", "holder").OK()
	e.Docker("volume", "rm", "vol", "new").OK()
	e.Docker("run", "--rm", "-v", "/anon", bb, "true").OK()
	want(t, e.Docker("volume", "ls", "-q").OK(), "^$") // --rm takes anonymous volumes along
}

func testLimits(t *testing.T, e *harness.Engine) {
	cg := "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max pids/pids.max pids.max cpu*/cpu.cfs_quota_us cpu.max 2>/dev/null | sort -u"
	out := e.Docker("run", "--rm", "-m", "32m", "--pids-limit", "10", "--cpus", "0.5", bb, "sh", "-c", cg).OK()
	for _, w := range []string{"33554432", "(?m)^10$", "50000"} {
		want(t, out, w)
	}
	want(t, e.Docker("run", "--rm", bb, "sh", "-c", cg).OK(), "4096")
	r := e.Docker("run", "--name", "oom", "-m", "16m", bb, "sh", "-c", "tail /dev/zero")
	if r.Code != 137 && r.Code != 1 {
		t.Errorf("memory bomb: exit code %d, %s", r.Code, r.Err)
	}
	want(t, e.Docker("inspect", "-f", "{{.State.OOMKilled}}", "oom").OK(), "true")
}

func testNetworks(t *testing.T, e *harness.Engine) {
	want(t, e.Docker("run", "--rm", "--network", "none", bb, "sh", "-c", "ls /sys/class/net").OK(), "^lo$")
	want(t, e.Docker("run", "--rm", "--network", "host", bb, "sh", "-c", "ls /sys/class/net").OK(), "dhow0")
	e.Docker("network", "create", "--subnet", "10.99.0.0/24", "net1").OK()
	e.Docker("run", "-d", "--name", "srv", "--network", "net1", "--network-alias", "web", "--ip", "10.99.0.77", bb, "sleep", "100").OK()
	want(t, e.Docker("inspect", "-f", `{{(index .NetworkSettings.Networks "net1").IPAddress}}`, "srv").OK(), "^10.99.0.77$")
	for _, n := range []string{"srv", "web"} {
		want(t, e.Docker("run", "--rm", "--network", "net1", bb, "ping", "-c", "1", "-W", "2", n).OK(), `10\.99\.0\.77`)
	}
	want(t, e.Docker("run", "--rm", "--network", "container:srv", bb, "sh", "-c", "hostname -i; cat /etc/hosts").OK(), `10\.99\.0\.77`)
	want(t, e.Docker("run", "--rm", "--add-host", "db:1.2.3.4", bb, "cat", "/etc/hosts").OK(), `1\.2\.3\.4\s+db`)
	want(t, e.Docker("run", "--rm", "--dns", "9.9.9.9", bb, "cat", "/etc/resolv.conf").OK(), `nameserver 9\.9\.9\.9`)
	e.Docker("network", "rm", "net1").Fails(1, "net1")
	e.Docker("rm", "-f", "srv").OK()
	e.Docker("network", "rm", "net1").OK()
}

func testPorts(t *testing.T, e *harness.Engine) {
	e.Docker("run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8443:80", "hello").OK()
	for _, url := range []string{"http://127.0.0.1:8080/json", "http://127.0.0.1:8443/json"} {
		if v := get(t, e, url); v.PID != 1 {
			t.Errorf("%s: %+v", url, v)
		}
	}
	want(t, e.Docker("port", "web").OK(), "80/tcp -> 0.0.0.0:8080")
	want(t, e.Docker("ps", "--format", "{{.Ports}}").OK(), "8080->80/tcp")
	e.Docker("run", "--rm", "-p", "8080:80", "hello").Fails(125, "port is already allocated")
	e.Docker("rm", "-f", "web").OK()
	e.Docker("run", "-d", "--name", "all", "-P", "hello").OK()
	want(t, e.Docker("port", "all", "80").OK(), `0\.0\.0\.0:\d+`)
}

type hello struct {
	Hostname string
	PID      int
}

// get asks the hello server, which may still be about to listen.
func get(t *testing.T, e *harness.Engine, url string) (v hello) {
	t.Helper()
	for i := 0; ; i++ {
		r, err := e.HTTP().Get(url)
		if err == nil {
			defer r.Body.Close()
			if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&v); err != nil {
				t.Errorf("%s: %v", url, err)
			}
			return v
		}
		if i == 100 {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func testExec(t *testing.T, e *harness.Engine) {
	e.Docker("run", "-d", "--name", "ct", "-e", "FROM=container", bb, "sleep", "100").OK()
	e.Docker("exec", "ct", "sh", "-c", "exit 3").Fails(3)
	want(t, e.DockerIn("data", "exec", "-i", "ct", "cat").OK(), "^data$")
	want(t, e.Docker("exec", "-e", "X=y", "-w", "/tmp", "-u", "7:8", "ct", "sh", "-c", "echo $FROM $X; pwd; id -u; id -g").OK(), "^container y\n/tmp\n7\n8$")
	e.Docker("exec", "ct", "nosuch").Fails(127, "executable file not found")
	want(t, e.Docker("exec", "-t", "ct", "tty").OK(), "/dev/")
	e.Docker("exec", "-d", "ct", "sh", "-c", "echo x > /tmp/detached").OK()
	for i := 0; e.Docker("exec", "ct", "cat", "/tmp/detached").Code != 0; i++ {
		if i > 50 {
			t.Fatal("the detached exec did not run")
		}
		time.Sleep(20 * time.Millisecond)
	}
	want(t, e.Docker("exec", "ct", "sh", "-c", "grep CapEff /proc/self/status").OK(), "00000000a80425fb")
	want(t, e.Docker("exec", "--privileged", "ct", "sh", "-c", "grep CapEff /proc/self/status").OK(), "0000[01]1*ff")
	e.Docker("stop", "-t", "0", "ct").OK()
	e.Docker("exec", "ct", "true").Fails(1, "not running")
}

func testLife(t *testing.T, e *harness.Engine) {
	id := e.Docker("create", "--name", "ct", bb, "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done").OK()
	want(t, e.Docker("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "ct").OK(), "^created 0$")
	e.Docker("start", "ct").OK()
	waitLog(t, e, "ct", "up")
	e.Docker("start", "ct").OK() // 304: already running
	e.Docker("run", "--name", "ct", bb, "true").Fails(125, `"/ct" is already in use`)
	e.Docker("rm", "ct").Fails(1, "running")
	e.Docker("stop", "ct").OK()
	want(t, e.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id[:12]).OK(), "^exited 5$")
	want(t, e.Docker("wait", "ct").OK(), "^5$")
	e.Docker("start", "ct").OK()
	e.Docker("pause", "ct").OK()
	want(t, e.Docker("inspect", "-f", "{{.State.Status}}", "ct").OK(), "^paused$")
	e.Docker("unpause", "ct").OK()
	e.Docker("rename", "ct", "dt").OK()
	e.Docker("restart", "-t", "1", "dt").OK()
	want(t, e.Docker("top", "dt").OK(), "trap")
	want(t, e.Docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "dt").OK(), "^dt [1-9]")
	e.Docker("update", "-m", "64m", "--memory-swap", "128m", "dt").OK()
	want(t, e.Docker("exec", "dt", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null").Out, "67108864")
	e.Docker("kill", "dt").OK()
	want(t, e.Docker("wait", "dt").OK(), "^137$")
	e.Docker("rm", "dt").OK()
	e.Docker("inspect", "dt").Fails(1, "No such")
}

func waitLog(t *testing.T, e *harness.Engine, c, word string) {
	t.Helper()
	for i := 0; !strings.Contains(e.Docker("logs", c).Out, word); i++ {
		if i > 100 {
			t.Fatalf("no %q in the log of %s", word, c)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func testLogs(t *testing.T, e *harness.Engine) {
	e.Docker("run", "--name", "lg", bb, "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2").OK()
	r := e.Docker("logs", "lg")
	want(t, r.Out, "^line 1\nline 2\nline 3\nline 4\nline 5\n$")
	want(t, r.Err, "^bad\n$")
	want(t, e.Docker("logs", "-t", "lg").Out, `^\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z line 1\n`)
	e.Docker("run", "-d", "--name", "fl", bb, "sh", "-c", "for i in 1 2 3; do echo l$i; sleep 0.1; done").OK()
	want(t, e.Docker("logs", "-f", "fl").Out, "^l1\nl2\nl3\n$")
	want(t, e.Docker("logs", "-n", "2", "fl").Out, "^l2\nl3\n$")
	e.Docker("run", "-d", "--name", "rr", "--restart", "on-failure:2", bb, "sh", "-c", "echo life; sleep 0.1; exit 1").OK()
	want(t, e.Docker("logs", "-f", "rr").Out, "^life\nlife\nlife\n$") // through all restarts
	e.Docker("run", "-d", "--name", "no", "--log-driver", "none", bb, "echo", "x").OK()
	e.Docker("logs", "no").Fails(1, "does not support reading")
}

func testRestart(t *testing.T, e *harness.Engine) {
	e.Docker("run", "-d", "--name", "rs", "--restart", "on-failure:2", bb, "sh", "-c", "echo again; exit 1").OK()
	for i := 0; strings.Count(e.Docker("logs", "rs").Out, "again") < 3; i++ {
		if i > 200 {
			t.Fatalf("restarts: %q", e.Docker("logs", "rs").Out)
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond)
	want(t, e.Docker("inspect", "-f", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "rs").OK(), "^2 exited 1$")
	e.Docker("run", "-d", "--name", "al", "--restart", "always", bb, "sleep", "100").OK()
	e.Docker("kill", "al").OK()
	time.Sleep(300 * time.Millisecond)
	want(t, e.Docker("inspect", "-f", "{{.State.Status}}", "al").OK(), "^exited$") // a user's kill is obeyed
}

func testListing(t *testing.T, e *harness.Engine) {
	e.Docker("run", "-d", "--name", "one", "--label", "tier=front", bb, "sleep", "100").OK()
	e.Docker("run", "--name", "two", bb, "true").OK()
	want(t, e.Docker("ps", "--format", "{{.Names}}").OK(), "^one$")
	want(t, e.Docker("ps", "-a", "--format", "{{.Names}}").OK(), "^two\none$")
	want(t, e.Docker("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").OK(), "^two$")
	want(t, e.Docker("ps", "--filter", "label=tier=front", "--format", "{{.Names}}").OK(), "^one$")
	want(t, e.Docker("ps", "--filter", "name=tw", "-aq", "--no-trunc").OK(), "^[0-9a-f]{64}$")
	want(t, e.Docker("ps", "-a", "--filter", "ancestor="+bb, "-q").OK(), "^[0-9a-f]{12}\n[0-9a-f]{12}$")
	e.Docker("ps", "--filter", "nonsense=1").Fails(1, "invalid filter")
	want(t, e.Docker("info", "-f", "{{.Containers}} {{.ContainersRunning}} {{.Images}} {{.CgroupDriver}}").OK(), `^2 1 \d cgroupfs$`)
	want(t, e.Docker("system", "df").OK(), "Local Volumes")
	want(t, e.Docker("events", "--since", "10m", "--until=-1s", "--filter", "container=two", "--format", "{{.Action}}").OK(), "create\n(attach\n)?start\ndie$")
	e.Docker("rmi", bb).Fails(1, "")
	want(t, e.Docker("images", "--format", "{{.Repository}}").OK(), "busybox")
	want(t, e.Docker("container", "prune", "-f").OK(), "Deleted Containers")
	want(t, e.Docker("ps", "-a", "--format", "{{.Names}}").OK(), "^one$")
}

func testNotImplemented(t *testing.T, e *harness.Engine) {
	for _, c := range []struct{ flag, word string }{
		{"--init", "HostConfig.Init"}, {"--gpus=all", "DeviceRequests"}, {"--storage-opt=size=1g", "StorageOpt"}, {"--health-cmd=true", "Healthcheck"},
		{"--ipc=shareable", "IpcMode"}, {"--log-driver=syslog", "LogConfig"},
	} {
		e.Docker("create", c.flag, bb, "true").Fails(1, "not implemented", c.word)
	}
	want(t, e.Docker("ps", "-aq").OK(), "^$")
}

func testWhy(t *testing.T, e *harness.Engine) {
	id := e.Docker("run", "-d", "-m", "64m", "-e", "X=1", bb, "sleep", "100").OK()
	b, err := os.ReadFile(filepath.Join(e.RunRoot, "containers", id, "why.json"))
	if err != nil {
		t.Fatal(err)
	}
	var why map[string]string
	if err := json.Unmarshal(b, &why); err != nil {
		t.Fatal(err)
	}
	for k, w := range map[string]string{"linux.resources.memory.limit": "flag --memory 64MiB", "process.env X": "flag --env X", "process.args": "command line", "linux.seccomp": "default"} {
		if why[k] != w {
			t.Errorf("%s: %q, want %q", k, why[k], w)
		}
	}
	if _, err := os.Stat(filepath.Join(e.RunRoot, "oci", id, "program.txt")); err != nil {
		t.Error(err)
	}
}
