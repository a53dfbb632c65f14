package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// set merges a fragment of config.json into the box's config; lists are replaced.
func (b *box) set(fragment string) {
	b.t.Helper()
	check(b.t, json.Unmarshal([]byte(fragment), b.spec))
}

// namespace adds a namespace, or gives it a path.
func (b *box) namespace(kind specs.LinuxNamespaceType, path string) {
	list := slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	b.spec.Linux.Namespaces = append(list, specs.LinuxNamespace{Type: kind, Path: path})
}

// inUserNamespace gives the box a user namespace whose root is 100000, and the root file system to it.
func (b *box) inUserNamespace() {
	b.t.Helper()
	b.namespace(specs.UserNamespace, "")
	b.set(`{"process":{"capabilities":null},"linux":{"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]}}`)
	check(b.t, filepath.WalkDir(b.rootfs(), func(p string, _ os.DirEntry, err error) error { return os.Lchown(p, 100000, 100000) }))
}

// says runs the box and compares what it printed.
func (b *box) says(want ...string) {
	b.t.Helper()
	out, code := b.run()
	for _, w := range want {
		if !strings.Contains(out, w) {
			b.t.Errorf("exit code %d; no %q in:\n%s", code, w, out)
		}
	}
}

// exec runs a shell command inside a running container and returns its output.
func (b *box) shell(c *Container, change func(*specs.Process), command string) string {
	b.t.Helper()
	out := newOutput(b.t)
	p := *b.spec.Process
	p.Args = []string{"sh", "-c", command}
	if change != nil {
		change(&p)
	}
	proc, err := c.Exec(ExecOptions{Process: &p, Stdio: [3]*os.File{nil, out.w, out.w}})
	check(b.t, err)
	out.w.Close()
	wait(b.t, proc)
	return <-out.done
}

// ownMounts puts the test into a mount namespace of its own that has the given folder as a shared tmpfs; the thread is not given back.
func ownMounts(t *testing.T, shared string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	runtime.LockOSThread()
	check(t, unix.Unshare(unix.CLONE_NEWNS))
	check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(t, unix.Mount("shared", shared, "tmpfs", 0, ""))
	check(t, unix.Mount("", shared, "", unix.MS_SHARED, ""))
	t.Cleanup(func() { unix.Unmount(shared, unix.MNT_DETACH) })
}

// TestInheritedMountNamespaceBelowShared: the same where the state lies on a mount that is shared with others, as systemd makes all of them.
func TestInheritedMountNamespaceBelowShared(t *testing.T) {
	shared := t.TempDir()
	ownMounts(t, shared)
	check(t, unix.Mkdir(filepath.Join(shared, "state"), 0o700))
	copied := t.TempDir() // a peer: what is mounted below shared is mounted here, too
	check(t, unix.Mount(shared, copied, "", unix.MS_BIND, ""))
	b := newBox(t, "cat", "/proc/1/comm")
	b.root = filepath.Join(shared, "state")
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	b.says("cat\n")
	if table := mountTable(t); strings.Contains(table, b.id) {
		t.Errorf("left behind:\n%s", table)
	}
	check(t, unix.Unmount(copied, unix.MNT_DETACH))
}

// Whatever processor has numbered our own mount namespace, a container that inherits it can be made, and may use the processors that one with its own may.
func TestInheritedMountNamespaceOfAnyProcessor(t *testing.T) {
	var all unix.CPUSet
	check(t, unix.SchedGetaffinity(0, &all))
	for made := range all.Count() {
		for here := range all.Count() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // never unlocked
				var one unix.CPUSet
				one.Set(made)
				check(t, unix.SchedSetaffinity(0, &one))
				ownMounts(t, t.TempDir())
				one.Zero()
				one.Set(here)
				check(t, unix.SchedSetaffinity(0, &one))
				b := newBox(t, "grep", "Cpus_allowed_list", "/proc/self/status")
				want, _ := b.run() // joining a cpuset gives a process all of its processors, on cgroups v2 before Linux 6.2
				b = newBox(t, "grep", "Cpus_allowed_list", "/proc/self/status")
				b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
				b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("grep -q 'Cpus_allowed_list:\t%d$' /proc/self/status", here)}}}}
				b.says(want)
			}()
			<-done
		}
	}
}

// mountTable is the mount table of the calling thread.
func mountTable(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	check(t, err)
	return string(b)
}

func uptime(t *testing.T, text string) float64 {
	t.Helper()
	f := strings.Fields(text)
	if len(f) == 0 {
		t.Fatalf("no uptime in %q", text)
	}
	v, err := strconv.ParseFloat(f[0], 64)
	check(t, err)
	return v
}

func TestTimeNamespace(t *testing.T) {
	if _, err := os.Stat("/proc/self/timens_offsets"); err != nil {
		t.Skip("this kernel has no time namespaces")
	}
	ours, err := os.ReadFile("/proc/uptime")
	check(t, err)
	const ahead = 1_000_000
	near := func(text string) {
		t.Helper()
		if d := uptime(t, text) - uptime(t, string(ours)) - ahead; d < 0 || d > 600 {
			t.Errorf("uptime %q, ours %q: not %d seconds more", text, ours, ahead)
		}
	}
	b := newBox(t)
	b.namespace(specs.TimeNamespace, "")
	b.set(`{"linux":{"timeOffsets":{"boottime":{"secs":1000000,"nanosecs":1},"monotonic":{"secs":500}}}}`)
	c := b.sleeping()
	near(b.shell(c, nil, "cat /proc/uptime"))
	other := newBox(t, "cat", "/proc/uptime")
	other.namespace(specs.TimeNamespace, fmt.Sprintf("/proc/%d/ns/time", c.Init().Pid))
	out, _ := other.run()
	near(out)
	user := newBox(t, "cat", "/proc/uptime")
	user.inUserNamespace()
	user.namespace(specs.TimeNamespace, "")
	user.spec.Linux.TimeOffsets = b.spec.Linux.TimeOffsets
	out, _ = user.run()
	near(out)
}

// A user namespace that another container made is joined with all other namespaces new, and its mappings may be told again.
func TestJoinUserNamespace(t *testing.T) {
	a := newBox(t)
	a.inUserNamespace()
	ca := a.sleeping()
	path := fmt.Sprintf("/proc/%d/ns/user", ca.Init().Pid)
	b := newBox(t, "sh", "-c", "id -u; cat /proc/self/uid_map; hostname; ls -ld /bin /dev/shm; echo $$")
	b.inUserNamespace()
	b.namespace(specs.UserNamespace, path)
	b.says("0\n         0     100000      65536\nbox\n", "\n1\n")
	b = newBox(t)
	b.inUserNamespace()
	b.namespace(specs.UserNamespace, path)
	b.spec.Linux.UIDMappings[0].Size--
	_, _, err := b.create()
	if err == nil || !strings.Contains(err.Error(), "linux.uidMappings: it is not so that the joined user namespace has these mappings") {
		t.Errorf("other mappings: %v", err)
	}
}

func TestManyRanges(t *testing.T) {
	b := newBox(t, "sh", "-c", "busybox wc -l < /proc/self/uid_map; id -u")
	b.inUserNamespace()
	b.spec.Linux.UIDMappings[0].Size = 1
	for i := uint32(1); i < 340; i++ {
		b.spec.Linux.UIDMappings = append(b.spec.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: i, HostID: 1000 + 2*i, Size: 1})
	}
	b.says("340\n0\n")
}

// Paths of the host that root of a user namespace could not reach are opened before the container is one.
func TestUserNamespaceBehindClosedFolders(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	check(t, os.MkdirAll(filepath.Join(closed, "open"), 0o755))
	check(t, os.WriteFile(filepath.Join(closed, "open/file"), []byte("seen\n"), 0o644))
	check(t, os.Chmod(closed, 0o700))
	b := newBox(t, "cat", "/mnt/file")
	b.inUserNamespace()
	check(t, os.Chmod(b.dir, 0o700))
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", filepath.Join(closed, "open"), "rbind", "ro"))
	b.says("seen\n")
}

func TestJoinMountNamespace(t *testing.T) {
	a := newBox(t)
	ca := a.sleeping()
	b := newBox(t, "sh", "-c", "readlink /proc/self/ns/mnt; ls /etc; echo $$; ls /mnt")
	path := fmt.Sprintf("/proc/%d/ns/mnt", ca.Init().Pid)
	want, err := os.Readlink(path)
	check(t, err)
	b.namespace(specs.MountNamespace, path)
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/mine"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(b.dir, "bound"), nil, 0o644))
	b.spec.Mounts = append(b.spec.Mounts, mount("/mnt", b.dir, "bind"))
	b.says(want+"\nmine\n1\n", "bound\n")
}

func TestNamespaceOfAnotherType(t *testing.T) {
	b := newBox(t)
	b.namespace(specs.NetworkNamespace, "/proc/self/ns/ipc")
	_, out, err := b.create()
	<-out.done
	if err == nil || !strings.Contains(err.Error(), ".path: setns join NEWNET: invalid argument") {
		t.Errorf("error %v", err)
	}
}

func TestScheduling(t *testing.T) {
	stat := func(policy, nice string) string { // after "(comm) S" the 16th and 38th field: nice, policy (proc(5))
		return "sed 's/.*) //' /proc/self/stat | { read a b c d e f g h i j k l m n o p nice rest; set -- $rest; shift 21; echo nice $nice policy $1; }"
	}
	command := strings.ReplaceAll(stat("", ""), "sed", "busybox sed")
	b := newBox(t, "sh", "-c", command)
	b.set(`{"process":{"scheduler":{"policy":"SCHED_BATCH","nice":7}}}`)
	b.says("nice 7 policy 3")
	b = newBox(t, "sh", "-c", command)
	b.set(`{"process":{"scheduler":{"policy":"SCHED_FIFO","priority":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]}}}`)
	out, err := b.try()
	if err == nil && !strings.Contains(out, "policy 1") && !strings.Contains(out, "policy 0") { // reset by the shell's forks
		t.Errorf("SCHED_FIFO: %q", out)
	}
	if err != nil && !strings.Contains(err.Error(), "process.scheduler: sched_setattr SCHED_FIFO") {
		t.Errorf("SCHED_FIFO: %v", err)
	}
}

// try is run for what this machine may refuse.
func (b *box) try() (string, error) {
	b.t.Helper()
	c, out, err := b.create()
	if err != nil {
		<-out.done
		return "", err
	}
	check(b.t, c.Start())
	wait(b.t, c.Init())
	check(b.t, c.Delete(false))
	return <-out.done, nil
}

func TestPriorityPolicyPersonality(t *testing.T) {
	b := newBox(t)
	b.set(`{"process":{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":6}},"linux":{"personality":{"domain":"LINUX32"},"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0"}}}`)
	c := b.sleeping()
	pid := c.Init().Pid
	prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
	if errno != 0 || prio != 2<<13|6 {
		t.Errorf("I/O priority %#x (%v)", prio, errno)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", pid))
	if err != nil {
		t.Logf("no numa_maps: %v", err)
	} else if !strings.Contains(string(maps), " bind:0 ") {
		t.Errorf("numa_maps %.200q", maps)
	}
	personality, err := os.ReadFile(fmt.Sprintf("/proc/%d/personality", pid))
	check(t, err)
	if strings.TrimSpace(string(personality)) != "00000008" {
		t.Errorf("personality %q", personality)
	}
	if out := b.shell(c, nil, "busybox uname -m"); runtime.GOARCH == "amd64" && out != "i686\n" {
		t.Errorf("uname -m in an exec says %q", out)
	}
}

func TestExecAffinity(t *testing.T) {
	b := newBox(t)
	b.set(`{"process":{"execCPUAffinity":{"initial":"0","final":"0"}}}`)
	c := b.sleeping()
	const list = "grep Cpus_allowed_list /proc/self/status"
	if out := b.shell(c, nil, list); !strings.HasSuffix(out, "\t0\n") {
		t.Errorf("final 0: %q", out)
	}
	before := b.shell(c, func(p *specs.Process) { p.ExecCPUAffinity = nil }, list)
	if after := b.shell(c, func(p *specs.Process) { p.ExecCPUAffinity = nil }, list); after != before {
		t.Errorf("the runtime's own affinity changed: %q, %q", before, after)
	}
	p := *b.spec.Process
	p.ExecCPUAffinity = &specs.CPUAffinity{Final: "8000"}
	if _, err := c.Exec(ExecOptions{Process: &p}); err == nil || !strings.Contains(err.Error(), "process.execCPUAffinity.final: sched_setaffinity on CPUs 8000") {
		t.Errorf("a CPU that is not there: %v", err)
	}
}

// What cannot be granted is told of, and the container runs (runtime-spec, config.md, capabilities).
func TestWarnings(t *testing.T) {
	b := newBox(t, "sh", "-c", "grep -E '^Cap(Eff|Amb)' /proc/self/status; cat /proc/self/oom_score_adj")
	b.set(`{"process":{"oomScoreAdj":-999,"capabilities":{"bounding":["CAP_KILL","CAP_FLY"],"effective":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_FLY"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL","CAP_CHOWN"]}}}`)
	var warnings []string
	b.warn = func(s string) { warnings = append(warnings, s) }
	out, _ := b.run()
	if !strings.Contains(out, "CapEff:\t0000000000000020\nCapAmb:\t0000000000000020\n") {
		t.Errorf("output %q", out)
	}
	all := strings.Join(warnings, "\n")
	for _, w := range []string{"CAP_FLY", "effective: CAP_CHOWN", "ambient: CAP_CHOWN"} {
		if !strings.Contains(all, w) {
			t.Errorf("no warning of %s in:\n%s", w, all)
		}
	}
	if clamped := strings.Contains(all, "process.oomScoreAdj"); clamped == strings.HasSuffix(out, "\n-999\n") {
		t.Errorf("clamped %v, output %q", clamped, out)
	}
}

func TestSysctl(t *testing.T) {
	for _, user := range []bool{false, true} {
		b := newBox(t, "sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/kernel/domainname")
		if user {
			b.inUserNamespace()
			b.set(`{"linux":{"sysctl":{"net.ipv4.ip_forward":"1"}}}`)
			b.says("1\n")
			continue
		}
		b.set(`{"linux":{"sysctl":{"net.ipv4.ip_forward":"1","kernel/shmmni":"77","kernel.domainname":"dom"}}}`)
		b.says("1\n77\ndom\n")
	}
}

// A container that inherits the mount namespace is in it, and its mounts are not in the host's table but for the file that holds them.
func TestInheritedMountNamespace(t *testing.T) {
	ours, err := os.Readlink("/proc/thread-self/ns/mnt") // the first thread may have been given away to another test's namespace
	check(t, err)
	b := newBox(t)
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	check(t, os.WriteFile(filepath.Join(b.rootfs(), "etc/mine"), nil, 0o644))
	c := b.sleeping()
	const look = "readlink /proc/self/ns/mnt; ls /etc; echo x > /dev/null; cat /proc/1/comm"
	if out := b.shell(c, nil, look); out != ours+"\nmine\nsleep\n" {
		t.Errorf("exec says %q", out)
	}
	elsewhere := make(chan string) // whoever executes from another mount namespace gets the container's root all the same
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		defer close(elsewhere)
		if err := unix.Unshare(unix.CLONE_NEWNS); err == nil {
			elsewhere <- b.shell(c, nil, look)
		}
	}()
	if out := <-elsewhere; out != ours+"\nmine\nsleep\n" {
		t.Errorf("exec from another mount namespace says %.200q", out)
	}
	if n := len(regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ `+regexp.QuoteMeta(b.dir)).FindAllString(mountTable(t), -1)); n != 2 { // what holds them, and what that lies on
		t.Errorf("%d of its mounts are in the host's table", n)
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
	b.spec.Process.Args = []string{"sh", "-c", look}
	b.says(ours + "\nmine\ncat\n")
	b.inUserNamespace()
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.namespaces: a user namespace needs a mount namespace") {
		t.Errorf("error %v", err)
	}
	b = newBox(t, "nothing")
	b.namespace(specs.MountNamespace, "/proc/self/ns/mnt")
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error %v", err)
	}
}

// A working folder that the user may not enter is his all the same, as engines' WORKDIR is; one that is not there is made below a read-only
// root, too.
func TestWorkingFolder(t *testing.T) {
	b := newBox(t, "sh", "-c", "pwd; ls 2>&1")
	check(t, os.Mkdir(filepath.Join(b.rootfs(), "private"), 0o700))
	b.spec.Process.Cwd, b.spec.Process.User.UID, b.spec.Process.User.GID = "/private", 1000, 1000
	if out, code := b.run(); out != "/private\nls: .: Permission denied\n" || code != 1 {
		t.Errorf("%q, code %d", out, code)
	}
	b.spec.Process.Cwd, b.spec.Root.Readonly, b.spec.Linux.ReadonlyPaths = "/mnt/new", true, []string{"/mnt"}
	b.spec.Process.Args = []string{"sh", "-c", "pwd; touch x 2>&1"}
	if out, code := b.run(); out != "/mnt/new\ntouch: x: Read-only file system\n" || code != 1 {
		t.Errorf("%q, code %d", out, code)
	}
	b = newBox(t, "sh", "-c", "pwd; ls -d .") // the owner is not mapped: its root has no rights over it, its user's group has
	b.inUserNamespace()
	group := filepath.Join(b.rootfs(), "group")
	check(t, errors.Join(os.Mkdir(group, 0o700), os.Chown(group, 0, 100000+1000), os.Chmod(group, 0o070)))
	b.spec.Process.Cwd, b.spec.Process.User.UID, b.spec.Process.User.GID = "/group", 1000, 1000
	if out, code := b.run(); out != "/group\n.\n" || code != 0 {
		t.Errorf("%q, code %d", out, code)
	}
}

// Of variables with one name the last counts: an exec's own replace the container's.
func TestVariablesTwice(t *testing.T) {
	b := newBox(t, "cat", "/proc/self/environ")
	b.spec.Process.Env = []string{"PATH=/nothing", "A=1", "HOME=/x", "B=2", "A=3", "PATH=/bin", "HOME="}
	if out, _ := b.run(); out != "B=2\x00A=3\x00PATH=/bin\x00HOME=/\x00" {
		t.Errorf("%q", out)
	}
}
