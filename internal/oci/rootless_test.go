package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/testkit/programs"
)

// ordinaryUser is nobody on any machine.
const ordinaryUser = 54321

// user runs the runtime's command line as an ordinary user, in a bundle of his own.
type user struct {
	*box
	bin     string
	prepare string // a shell script that runs as root in a mount namespace of its own before the user takes over
}

func newUser(t *testing.T, args ...string) *user {
	t.Helper()
	b := newBox(t, args...)
	max, _ := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if strings.TrimSpace(string(max)) == "0" {
		t.Skip("user namespaces are switched off (user.max_user_namespaces)")
	}
	u := &user{box: b, bin: filepath.Join(b.dir, "dhow-runtime")}
	check(t, programs.Build(u.bin, "github.com/dhow-containers/dhow/cmd/dhow-runtime"))
	id := []specs.LinuxIDMapping{{ContainerID: 0, HostID: ordinaryUser, Size: 1}}
	l := u.spec.Linux
	l.UIDMappings, l.GIDMappings, l.Resources = id, id, nil
	l.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "user"}, {Type: "cgroup"}}
	u.spec.Mounts = append(u.spec.Mounts, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"})
	for p := b.dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		check(t, os.Chmod(p, 0o755))
	}
	check(t, os.Mkdir(u.root, 0o700))
	check(t, filepath.Walk(b.dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, ordinaryUser, ordinaryUser)
	}))
	return u
}

func (u *user) save() {
	u.t.Helper()
	s, l := *u.spec, *u.spec.Linux
	s.Linux, l.CgroupsPath = &l, "" // the leak check keeps its path
	check(u.t, bundle.Save(u.dir, &s, nil))
	check(u.t, os.Chown(filepath.Join(u.dir, bundle.ConfigFile), ordinaryUser, ordinaryUser))
}

// run returns what the runtime printed, and its exit code. Files take the output: a container that is left running keeps them.
func (u *user) run(args ...string) (string, int) {
	u.t.Helper()
	out, err := os.Create(filepath.Join(u.dir, "said"))
	check(u.t, err)
	defer out.Close()
	line := append([]string{"--reuid", fmt.Sprint(ordinaryUser), "--regid", fmt.Sprint(ordinaryUser), "--clear-groups", "--", u.bin, "--root", u.root}, args...)
	cmd := exec.Command("setpriv", line...)
	if u.prepare != "" {
		cmd = exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-ec", u.prepare + "\nexec setpriv \"$@\"", "sh"}, line...)...)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = u.dir, out, out
	err = cmd.Run()
	text, readErr := os.ReadFile(out.Name())
	check(u.t, readErr)
	if err != nil && cmd.ProcessState == nil {
		u.t.Skipf("setpriv: %v", err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func (u *user) must(args ...string) string {
	u.t.Helper()
	out, code := u.run(args...)
	if code != 0 {
		u.t.Fatalf("%v: exit code %d: %s", args, code, out)
	}
	return out
}

func (u *user) until(what string, ok func() bool) {
	u.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			u.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func (u *user) status() string {
	u.t.Helper()
	var s struct{ Status string }
	check(u.t, json.Unmarshal([]byte(u.must("state", u.id)), &s))
	return s.Status
}

// An ordinary user maps himself alone, has no right to any cgroup, and gets the whole life of a container all the same.
func TestRootless(t *testing.T) {
	u := newUser(t, "sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/setgroups; hostname; ls -d /sys/kernel /dev/mqueue; ls /sys/fs/cgroup; echo x > /dev/null; touch /mnt/mine; sleep 1000 & exec sleep 1000")
	u.spec.Process.User = specs.User{}
	u.save()
	defer u.run("delete", "--force", u.id)
	u.must("create", u.id)
	if s := u.status(); s != "created" {
		t.Errorf("status %q after create", s)
	}
	u.must("start", u.id)
	mine := filepath.Join(u.rootfs(), "mnt/mine")
	u.until("start", func() bool { _, err := os.Stat(mine); return err == nil })
	var st syscall.Stat_t
	if check(t, syscall.Stat(mine, &st)); st.Uid != ordinaryUser {
		t.Errorf("what its root made belongs to user %d", st.Uid)
	}
	if out := u.must("exec", u.id, "sh", "-c", "id -u; readlink /proc/1/ns/user; readlink /proc/self/ns/user"); !strings.HasPrefix(out, "0\nuser:") {
		t.Errorf("exec: %q", out)
	} else if f := strings.Fields(out); f[1] != f[2] {
		t.Errorf("exec is in another user namespace: %q", out)
	}
	if out, code := u.run("exec", u.id, "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec: exit code %d: %s", code, out)
	}
	if out := u.must("ps", "--format", "json", u.id); strings.Count(out, ",") != 1 {
		t.Errorf("ps: two processes are there: %s", out)
	}
	if out, code := u.run("pause", u.id); code != 1 || !strings.Contains(out, "is in no cgroup of its own") {
		t.Errorf("pause: exit code %d: %s", code, out)
	}
	if out, code := u.run("delete", u.id); code != 1 || !strings.Contains(out, "stop") {
		t.Errorf("delete of a running container: exit code %d: %s", code, out)
	}
	u.must("kill", u.id, "KILL")
	u.until("kill", func() bool { return u.status() == "stopped" })
	u.must("delete", u.id)
	u.must("run", "--detach", u.id)
	u.must("delete", "--force", u.id)
	if out, code := u.run("state", u.id); code != 1 || !strings.Contains(out, "does not exist") {
		t.Errorf("state after delete: exit code %d: %s", code, out)
	}
}

func TestRootlessSees(t *testing.T) {
	u := newUser(t, "sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/setgroups; hostname; ls -d /sys/kernel /dev/mqueue; ls /sys/fs/cgroup; echo x > /dev/null && cat /proc/1/status > /dev/null")
	u.save()
	want := "0\n         0      54321          1\ndeny\nbox\n/dev/mqueue\n/sys/kernel\n"
	if out := withoutWarnings(u.must("run", u.id)); out != want {
		t.Errorf("the container sees %q, want %q", out, want)
	}
}

func withoutWarnings(s string) string {
	var out strings.Builder
	for _, line := range strings.SplitAfter(s, "\n") {
		if !strings.Contains(line, "warning") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// What an ordinary user cannot have is refused by name.
func TestRootlessRefusals(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct {
		change func(s *bundle.Spec)
		want   string
	}{
		{func(s *bundle.Spec) {
			s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[:4], nil, nil
		}, "linux.namespaces: we are not root: a user namespace is needed"},
		{func(s *bundle.Spec) { s.Linux.UIDMappings[0].HostID = 0 }, "linux.uidMappings"},
		{func(s *bundle.Spec) { s.Process.User.AdditionalGids = []uint32{5} }, "process.user.additionalGids"},
		{func(s *bundle.Spec) {
			n := int64(5)
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
		}, "linux.resources.pids"},
		{func(s *bundle.Spec) { s.Process.User.UID = 7 }, "process.user"},
	} {
		raw, err := json.Marshal(u.spec)
		check(t, err)
		c.change(u.spec)
		u.save()
		if out, code := u.run("run", u.id); code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d: %s", c.want, code, out)
		}
		u.spec = &bundle.Spec{}
		check(t, json.Unmarshal(raw, u.spec))
	}
}

// Ranges of IDs come from newuidmap and newgidmap, as /etc/subuid and /etc/subgid allow. The files are put over the machine's in a mount
// namespace.
func TestRootlessRanges(t *testing.T) {
	u := newUser(t, "sh", "-c", "id; cat /proc/self/uid_map /proc/self/setgroups; touch /mnt/theirs")
	for _, p := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s (Debian package uidmap) is not installed", p)
		}
	}
	for name, text := range map[string]string{"passwd": "dhow:x:54321:54321::/:/bin/sh\n", "group": "dhow:x:54321:\n", "subuid": "dhow:300000:1000\n", "subgid": "dhow:300000:1000\n"} {
		file := filepath.Join(u.dir, name)
		check(t, os.WriteFile(file, []byte(text), 0o644))
		if _, err := os.Stat("/etc/" + name); err != nil {
			t.Skipf("/etc/%s: nothing to put ours over: %v", name, err)
		}
		u.prepare += fmt.Sprintf("mount --bind '%s' /etc/%s\n", file, name)
	}
	set := func(first uint32) {
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: ordinaryUser, Size: 1}, {ContainerID: 1, HostID: first, Size: 1000}}
		u.spec.Linux.UIDMappings, u.spec.Linux.GIDMappings = m, m
		u.save()
	}
	u.spec.Process.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}}
	check(t, os.Chmod(filepath.Join(u.rootfs(), "mnt"), 0o777))
	set(300000)
	want := "uid=7 gid=8 groups=9\n         0      54321          1\n         1     300000       1000\nallow\n"
	if out := withoutWarnings(u.must("run", u.id)); out != want {
		t.Errorf("the container sees %q, want %q", out, want)
	}
	var st syscall.Stat_t
	if check(t, syscall.Stat(filepath.Join(u.rootfs(), "mnt/theirs"), &st)); st.Uid != 300006 {
		t.Errorf("what its user 7 made belongs to user %d", st.Uid)
	}
	set(400000)
	if out, code := u.run("run", u.id); code != 1 || !strings.Contains(out, "linux.uidMappings") || !strings.Contains(out, "/etc/subuid") {
		t.Errorf("IDs that are not his: exit code %d: %s", code, out)
	}
}

// A hierarchy in which the user has a cgroup of his own is used, limits and all; the others are done without.
func TestRootlessDelegated(t *testing.T) {
	u := newUser(t, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.max")
	const hierarchy = "/sys/fs/cgroup/pids"
	if _, err := os.Stat(hierarchy + "/tasks"); err != nil {
		t.Skipf("no pids hierarchy of cgroups v1 here: %v", err)
	}
	own := filepath.Join(hierarchy, u.id)
	check(t, os.Mkdir(own, 0o755))
	defer func() {
		if err := os.Remove(own); err != nil {
			t.Errorf("left behind: %v", err)
		}
	}()
	for _, f := range []string{"", "tasks", "cgroup.procs"} {
		check(t, os.Chown(filepath.Join(own, f), ordinaryUser, ordinaryUser))
	}
	u.prepare = "echo $$ > " + own + "/cgroup.procs"
	n := int64(77)
	u.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}, Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	u.save()
	out := u.must("run", u.id)
	if !strings.Contains(out, ":pids:/\n") || !strings.HasSuffix(out, "\n77\n") {
		t.Errorf("the container sees %s", out)
	}
	if _, err := os.Stat(filepath.Join(own, u.id)); err == nil {
		t.Error("its cgroup was left behind")
	}
}

// On v2 he is given a cgroup, is in one below it, and makes the container's beside that: with limits, and all that needs a cgroup.
func TestRootlessDelegatedUnified(t *testing.T) {
	u := newUser(t, "sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max > /mnt/said; exec sleep 1000")
	const hierarchy = "/sys/fs/cgroup"
	if _, err := os.Stat(hierarchy + "/cgroup.controllers"); err != nil {
		t.Skipf("no cgroups v2 only here: %v", err)
	}
	check(t, os.WriteFile(hierarchy+"/cgroup.subtree_control", []byte("+pids +memory"), 0o644))
	own := filepath.Join(hierarchy, u.id)
	check(t, os.MkdirAll(filepath.Join(own, "here"), 0o755))
	defer func() {
		os.Remove(filepath.Join(own, "here"))
		if err := os.Remove(own); err != nil {
			t.Errorf("left behind: %v", err)
		}
	}()
	for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "here", "here/cgroup.procs"} {
		check(t, os.Chown(filepath.Join(own, f), ordinaryUser, ordinaryUser))
	}
	u.prepare = "echo $$ > " + own + "/here/cgroup.procs"
	u.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(77))}, Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	u.save()
	defer u.run("delete", "--force", u.id)
	u.must("run", "--detach", u.id)
	said := filepath.Join(u.rootfs(), "mnt/said")
	u.until("start", func() bool {
		text, _ := os.ReadFile(said)
		return strings.Count(string(text), "\n") == 3
	})
	if text, _ := os.ReadFile(said); string(text) != "0::/\n77\n67108864\n" {
		t.Errorf("the container sees %q", text)
	}
	u.must("pause", u.id)
	if s := u.status(); s != "paused" {
		t.Errorf("status %q after pause", s)
	}
	u.must("resume", u.id)
	u.must("update", "--pids-limit", "55", u.id)
	if got := content(t, filepath.Join(own, u.id, "pids.max")); got != "55" {
		t.Errorf("pids.max %s after update", got)
	}
	if out := u.must("exec", u.id, "cat", "/proc/self/cgroup"); out != "0::/\n" {
		t.Errorf("exec is in %q", out)
	}
	if out := u.must("events", "--stats", u.id); !strings.Contains(out, `"limit":67108864`) {
		t.Errorf("events: %s", out)
	}
	u.must("kill", u.id, "KILL")
	u.until("kill", func() bool { return u.status() == "stopped" })
	u.must("delete", u.id)
	if _, err := os.Stat(filepath.Join(own, u.id)); err == nil {
		t.Error("its cgroup was left behind")
	}
}

// A source that only the container's root may reach is bound by him; one that only the host's root may reach is bound before.
func TestUserNamespaceSources(t *testing.T) {
	b := newBox(t, "cat", "/mnt/theirs", "/mnt/ours")
	id := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = id, id
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	for p := b.dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		check(t, os.Chmod(p, 0o755))
	}
	for name, owner := range map[string]int{"theirs": 300000, "ours": 0} {
		dir := filepath.Join(b.dir, name)
		check(t, os.Mkdir(dir, 0o700))
		check(t, os.WriteFile(filepath.Join(dir, "f"), []byte(name+"\n"), 0o644))
		check(t, os.WriteFile(filepath.Join(b.rootfs(), "mnt", name), nil, 0o644))
		check(t, os.Chown(dir, owner, owner))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/mnt/" + name, Source: filepath.Join(dir, "f"), Options: []string{"bind", "private"}})
	}
	c, out, err := b.create()
	check(t, err)
	defer c.Delete(true)
	check(t, c.Start())
	wait(t, c.Init())
	if got := <-out.done; got != "theirs\nours\n" {
		t.Errorf("the container reads %q", got)
	}
}
