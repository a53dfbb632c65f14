package explainer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/explain"
	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
)

const bb = harness.Image

// client speaks to the engine's socket.
func client(e *harness.Engine) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
		},
	}}
}

// look asks the engine for the report of a container.
func look(t *testing.T, e *harness.Engine, name string) *explain.Report {
	t.Helper()
	resp, err := client(e).Get("http://engine/dhow/containers/" + name + "/explain")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var r explain.Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("explain %s: %s, %v", name, resp.Status, err)
	}
	return &r
}

// find returns the row of a section whose name matches.
func find(t *testing.T, r *explain.Report, section, pattern string) explain.Row {
	t.Helper()
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			if s.Name == section && regexp.MustCompile("^(?:"+pattern+")$").MatchString(row.What) {
				return row
			}
		}
	}
	b, _ := json.MarshalIndent(r.Sections, "", " ")
	t.Fatalf("%s: no row %s in\n%s", section, pattern, b)
	return explain.Row{}
}

// expect checks a row's reason, promise, kernel's side and whether the two differ.
func expect(t *testing.T, r *explain.Report, section, what, asked, planned, kernel string, differs bool) {
	t.Helper()
	row := find(t, r, section, what)
	ok := func(pattern, s string) bool { return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(s) }
	if !ok(asked, row.Asked) || !ok(planned, row.Planned) || !ok(kernel, row.Kernel) || row.Differs != differs {
		t.Errorf("%s: got %+v\nwant asked %q, planned %q, kernel %q, differs %v", section, row, asked, planned, kernel, differs)
	}
}

func clean(t *testing.T, r *explain.Report) {
	t.Helper()
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			if row.Differs || strings.HasPrefix(row.Note, "not read") {
				t.Errorf("%s: %+v", s.Name, row)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	for _, c := range []struct {
		name string
		run  func(*testing.T, *harness.Engine)
	}{{"as promised", testPromised}, {"behind its back", testDifferences}, {"privileged", testPrivileged}, {"joined", testJoined}} {
		t.Run(c.name, func(t *testing.T) {
			e := e.With(t)
			defer func() {
				e.Docker("rm", "-fv", "side", "web")
			}()
			c.run(t, e)
		})
	}
}

func start(e *harness.Engine, args ...string) (pid, id string) {
	e.Docker(append([]string{"run", "-d", "--name", "web"}, args...)...).OK()
	f := strings.Fields(e.Docker("inspect", "-f", "{{.State.Pid}} {{.Id}}", "web").OK())
	return f[0], f[1]
}

func testPromised(t *testing.T, e *harness.Engine) {
	pid, id := start(e, "-p", "8080:80", "-m", "64m", "--cpus", "0.5", "--pids-limit", "77", "--cap-drop", "NET_RAW", "--cap-add", "SYS_NICE", "--ulimit",
		"nofile=1024:2048", "--security-opt", "no-new-privileges", "-v", "vol:/data", "--tmpfs", "/t:size=1m", "--device", "/dev/null:/dev/zz:r", "-e", "A=b", "-w", "/tmp", bb, "httpd", "-f", "-p", "80")
	time.Sleep(100 * time.Millisecond) // httpd listens
	r := look(t, e, "web")
	clean(t, r)
	if fmt.Sprint(r.Pid) != pid || r.ID != id || r.Status != "running" {
		t.Errorf("%s %d %s, want %s %s running", r.ID, r.Pid, r.Status, id, pid)
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		link, err := os.Readlink("/proc/" + pid + "/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		inode := regexp.QuoteMeta(strings.TrimPrefix(link, ns+":"))
		expect(t, r, "namespaces", ns, "default|flag --network.*", "its own", inode+" its own, 1 member", false)
	}
	expect(t, r, "namespaces", "user", "default", "the host's", `\[\d+\] the host's, \d+ members`, false)
	expect(t, r, "cgroups", `memory\.(limit_in_bytes|max)`, "flag --memory 64MiB", `67108864 \(64MiB\)`, `67108864 \(64MiB\)`, false)
	expect(t, r, "cgroups", `pids\.max`, "flag --pids-limit 77", "77", "77", false)
	expect(t, r, "cgroups", `cpu\.(cfs_quota_us|max)`, "flag --cpus 0.5", "50000.*", "50000.*", false)
	expect(t, r, "capabilities", "NET_RAW", "flag --cap-drop NET_RAW", "none", "none", false)
	expect(t, r, "capabilities", "SYS_NICE", "flag --cap-add SYS_NICE", "bounding permitted effective", "bounding permitted effective", false)
	expect(t, r, "capabilities", "CHOWN", "default", "bounding permitted effective", "bounding permitted effective", false)
	expect(t, r, "security", "seccomp", "default", "filter", "filter", false)
	expect(t, r, "security", "always denied", "default", `\d+ calls: .*\bmount\b.*`, "", false)
	expect(t, r, "security", "no_new_privs", "flag --security-opt no-new-privileges", "1", "1", false)
	expect(t, r, "rlimits", "RLIMIT_NOFILE", "flag --ulimit nofile=1024:2048", "1024 2048", "1024 2048", false)
	expect(t, r, "mounts", "/t", "flag --tmpfs /t.*", "tmpfs .*size=1m", "tmpfs rw,.*", false)
	expect(t, r, "volumes", "vol", "flag --volume vol:/data", ".*/_data at /data", ".*/_data rw.*", false)
	expect(t, r, "paths", "/proc/keys", "default", "masked", "masked", false)
	expect(t, r, "paths", "/proc/sys", "default", "read-only", "read-only", false)
	expect(t, r, "devices", "/dev/zz", "flag --device /dev/null", "c 1:3", "c 1:3", false)
	expect(t, r, "rootfs", "/", "default", "overlay rw", "overlay rw.*", false)
	expect(t, r, "process", `\$A`, "flag --env A", "b", "b", false)
	expect(t, r, "process", "working folder", "flag --workdir /tmp", "/tmp", "/tmp", false)
	expect(t, r, "ports", `0\.0\.0\.0:8080/tcp`, "flag -p 8080:80", `publish4 -> 172\.\d+\.\d+\.\d+:80`, `publish4 -> 172\.\d+\.\d+\.\d+:80`, false)
	if row := find(t, r, "ports", `0\.0\.0\.0:8080/tcp`); row.Note != "" {
		t.Errorf("httpd listens, yet: %s", row.Note)
	}
	expect(t, r, "network", "route default", "flag --network.*", `via 172.* on eth0`, `via 172.* on eth0`, false)
	expect(t, r, "processes", "httpd -f -p 80", "", "", "host "+pid+", container 1, user 0, .*", false)
	if r.Program.Host == 0 || r.Program.Child == 0 || len(r.Program.Lines) < r.Program.Host+r.Program.Child {
		t.Errorf("program: %d host, %d child, %d lines", r.Program.Host, r.Program.Child, len(r.Program.Lines))
	}
}

// cgroupFile finds a file of the container's cgroup in whichever hierarchy.
func cgroupFile(t *testing.T, e *harness.Engine, id, file string) string {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		if l, _ := filepath.Glob(filepath.Join(pattern, e.Cgroup, id, file)); len(l) > 0 {
			return l[0]
		}
	}
	t.Fatalf("no %s of %s", file, id)
	return ""
}

func inside(t *testing.T, ns *os.File, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := netlink.Inside(ns, cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, &out)
	}
}

func testDifferences(t *testing.T, e *harness.Engine) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	os.WriteFile(file, []byte("old"), 0o644)
	pid, id := start(e, "-p", "8081:80", "-m", "64m", "-v", file+":/f", bb, "sleep", "100")
	clean(t, look(t, e, "web"))
	if row := find(t, look(t, e, "web"), "ports", `0\.0\.0\.0:8081/tcp`); row.Note != "nothing inside listens on port 80/tcp" {
		t.Errorf("nobody listens, yet: %q", row.Note)
	}
	if err := os.WriteFile(cgroupFile(t, e, id, "pids.max"), []byte("55"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(file+"new", []byte("new"), 0o644)
	os.Rename(file+"new", file)
	inside(t, e.Netns, "nft", "delete", "element", "inet", "dhow", "publish4", "{ tcp . 8081 }")
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	inside(t, ns, "ip", "addr", "add", "10.98.7.6/32", "dev", "eth0")
	inside(t, ns, "ip", "route", "del", "default")
	r := look(t, e, "web")
	expect(t, r, "cgroups", `pids\.max`, "default", `\d+`, "55", true)
	expect(t, r, "mounts", "/f", "flag --volume .*:/f", "bind .*", ".*", true)
	expect(t, r, "ports", `0\.0\.0\.0:8081/tcp`, "flag -p 8081:80", "publish4 -> .*", "no such element", true)
	expect(t, r, "network", "route default", "flag --network.*", "via .*", "missing", true)
	if r.Differences != 5 { // and the address
		t.Errorf("%d differences, want 5", r.Differences)
	}
}

func testPrivileged(t *testing.T, e *harness.Engine) {
	start(e, "--privileged", bb, "sh", "-c", "mkdir -p /mnt && mount -t tmpfs x /mnt && rm /dev/null && mknod /dev/null c 1 5 && mount -o remount,rw,size=1m /dev/shm; exec sleep 100")
	var r *explain.Report
	for range 50 { // until it has done that
		if r = look(t, e, "web"); r.Differences >= 3 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	expect(t, r, "mounts", "/mnt", "", "", "tmpfs rw.*", true)
	expect(t, r, "mounts", "/dev/shm", "default", "tmpfs .*size=67108864", "tmpfs rw.*", true)
	expect(t, r, "devices", "/dev/null", "flag --privileged", "c 1:3", "c 1:5", true)
	expect(t, r, "security", "seccomp", "flag --privileged.*", "no filter", "no filter", false)
	expect(t, r, "capabilities", "SYS_ADMIN", "flag --privileged", "bounding permitted effective", "bounding permitted effective", false)
	if r.Differences != 3 {
		t.Errorf("%d differences, want 3", r.Differences)
	}
}

func testJoined(t *testing.T, e *harness.Engine) {
	start(e, "--network", "none", bb, "sleep", "100")
	e.Docker("run", "-d", "--name", "side", "--network", "container:web", "--pid", "container:web", "-u", "1000:1000", bb, "sleep", "100").OK()
	r := look(t, e, "side")
	clean(t, r)
	expect(t, r, "namespaces", "net", "flag --network container:.*", "container web", `\[\d+\] container web's, 2 members`, false)
	expect(t, r, "namespaces", "pid", "flag --pid container:.*", "container web", `\[\d+\] container web's, 2 members`, false)
	expect(t, r, "namespaces", "mnt", "default", "its own", `\[\d+\] its own, 1 member`, false)
	expect(t, r, "process", "user:group", "flag --user 1000:1000", "1000:1000", "1000:1000", false)
	expect(t, r, "capabilities", "CHOWN", "default", "bounding", "bounding", false)
	r = look(t, e, "web")
	clean(t, r)
	if row := find(t, r, "namespaces", "net"); row.Note != "shared with container side" {
		t.Errorf("%+v", row)
	}
}

// TestLife: created, running, updated, adopted by the next engine, paused, ended.
func TestLife(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	e.Docker("create", "--name", "web", "-m", "64m", "-u", "5", "-p", "127.0.0.1:8082:80", "-p", "53/udp", bb, "sleep", "100").OK()
	r := look(t, e, "web")
	clean(t, r)
	expect(t, r, "cgroups", `memory\.(limit_in_bytes|max)`, "flag --memory 64MiB", `67108864 \(64MiB\)`, "", false)
	expect(t, r, "process", "user:group", "flag --user 5", "5:0", "", false)
	expect(t, r, "ports", "80/tcp", "flag --publish", "host port 127.0.0.1 8082", "", false)
	expect(t, r, "ports", "53/udp", "flag --publish", "host port of the engine's choice", "", false)
	if r.Status != "created" || len(r.Program.Lines) > 0 {
		t.Errorf("%s, %d lines", r.Status, len(r.Program.Lines))
	}
	e.Docker("start", "web").OK()
	clean(t, look(t, e, "web"))
	e.Docker("update", "--memory", "80m", "--memory-swap", "160m", "--pids-limit", "9", "web").OK()
	r = look(t, e, "web")
	clean(t, r)
	expect(t, r, "cgroups", `pids\.max`, "flag --pids-limit 9", "9", "9", false)
	e.Kill()
	e.Run()
	clean(t, look(t, e, "web")) // the next engine knows as much
	e.Docker("pause", "web").OK()
	if r = look(t, e, "web"); r.Status != "paused" {
		t.Error(r.Status)
	}
	clean(t, r)
	e.Docker("unpause", "web").OK()
	e.Docker("stop", "-t", "0", "web").OK()
	r = look(t, e, "web")
	clean(t, r)
	if r.Status != "exited" || r.Pid != 0 {
		t.Errorf("%s %d", r.Status, r.Pid)
	}
	before := e.FDs()
	e.Docker("start", "web").OK()
	for range 30 {
		look(t, e, "web")
	}
	e.Docker("stop", "-t", "0", "web").OK()
	for start := time.Now(); e.FDs() > before+2; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 3*time.Second {
			t.Errorf("%d descriptors before 30 reports, %d after", before, e.FDs())
			break
		}
	}
	resp, err := client(e).Get("http://engine/dhow/containers/nosuch/explain")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("explain nosuch: %s", resp.Status)
	}
}

// TestEnding: a report of a container that ends meanwhile is a report, and reports of many containers do not disturb each other.
func TestEnding(t *testing.T) {
	e := harness.Start(t)
	e.Busybox()
	start(e, bb, "sh", "-c", "sleep 0.4")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
				r := look(t, e, "web")
				if r.ID == "" || len(r.Sections) == 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
	wg.Wait()
	clean(t, look(t, e, "web"))
}
