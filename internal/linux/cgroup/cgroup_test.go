package cgroup

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	lmount "github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain: with DHOW_TEST_CHILD set this binary is a process to be put into cgroups.
func TestMain(m *testing.M) {
	switch os.Getenv("DHOW_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "wait": // says it is there, then does as it is told
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			word, arg, _ := strings.Cut(in.Text(), " ")
			switch word {
			case "open":
				f, err := os.OpenFile(arg, os.O_RDWR, 0)
				if err == nil {
					f.Close()
				}
				fmt.Println(err)
			case "eat":
				b := make([]byte, 64<<20)
				for i := range b {
					b[i] = byte(i)
				}
				fmt.Println(len(b))
			case "fork":
				fmt.Println(exec.Command("sleep", "1000").Start())
			}
		}
	}
	os.Exit(0)
}

type child struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Scanner
}

func start(t *testing.T) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe")}
	c.Env = append(os.Environ(), "DHOW_TEST_CHILD=wait", "GOMAXPROCS=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.in = r, w
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close(); c.Process.Kill(); c.Wait() })
	c.out = bufio.NewScanner(out)
	c.reads(t)
	return c
}

func (c *child) reads(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		return "gone"
	}
	return c.out.Text()
}

func (c *child) tell(t *testing.T, what string) string {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		t.Fatal(err)
	}
	return c.reads(t)
}

// fresh returns the layout, a path of our own in it, and its directories, which are gone and leak nothing when the test ends.
func fresh(t *testing.T) (plan.Layout, string, []plan.Dir) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	l, err := Detect()
	if err != nil {
		t.Skip(err)
	}
	where := "/dhow-test-" + rand.Text()[:8]
	dirs, err := plan.Dirs(l, where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(Kill(dirs), Remove(dirs)); err != nil {
			t.Error(err)
		}
		for _, d := range dirs {
			if _, err := os.Stat(d.Path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", d.Path, err)
			}
		}
	})
	return l, where, dirs
}

func ptr[T any](v T) *T { return &v }

func enter(t *testing.T, l plan.Layout, where string, r *specs.LinuxResources, pid int) {
	t.Helper()
	steps, err := plan.Create(l, where, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(steps, pid); err != nil {
		t.Fatal(err)
	}
}

func controller(dirs []plan.Dir, name string) (plan.Dir, bool) {
	for _, d := range dirs {
		if d.Has(name) {
			return d, true
		}
	}
	return plan.Dir{}, false
}

func TestLife(t *testing.T) {
	l, where, dirs := fresh(t)
	t.Logf("%v: %d directories", l.Mode, len(dirs))
	c := start(t)
	enter(t, l, where, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(256 << 20)), Swap: ptr(int64(512 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(100))},
	}, c.Process.Pid)

	member, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(member, []byte(where+"\n")); n != len(dirs) {
		t.Errorf("in %d of %d hierarchies:\n%s", n, len(dirs), member)
	}
	c.tell(t, "fork")
	pids, err := Pids(dirs)
	if err != nil || len(pids) != 2 || !slices.Contains(pids, c.Process.Pid) {
		t.Fatalf("Pids: %v, %v", pids, err)
	}
	s, err := Read(dirs)
	if err != nil || s.Memory.Limit != 256<<20 || s.Pids.Limit != 100 || s.Pids.Current < 2 || s.Memory.Usage == 0 || s.CPU.Total == 0 {
		t.Fatalf("Read: %+v, %v", s, err)
	}
	if s.Memory.SwapLimit != 256<<20 {
		t.Errorf("swap limit %d", s.Memory.SwapLimit)
	}
	values := Values(dirs)
	if d, _ := controller(dirs, "pids"); values[d.Path+"/pids.max"] != "100" {
		t.Errorf("Values: %v", values)
	}
	if err := Freeze(dirs); err != nil {
		t.Fatal(err)
	}
	if on, err := Frozen(dirs); !on || err != nil {
		t.Fatalf("Frozen: %v, %v", on, err)
	}
	if err := Thaw(dirs); err != nil {
		t.Fatal(err)
	}
	if on, err := Frozen(dirs); on || err != nil {
		t.Fatalf("thawed: %v, %v", on, err)
	}
	if err := Freeze(dirs); err != nil { // a frozen container must die all the same
		t.Fatal(err)
	}
	if err := Kill(dirs); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still alive")
	}
	if err := Remove(dirs); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dirs); err != nil {
		t.Fatalf("second Remove: %v", err)
	}
	if pids, err := Pids(dirs); len(pids) != 0 || err != nil {
		t.Fatalf("Pids of nothing: %v, %v", pids, err)
	}
	if _, err := Read(dirs); err == nil {
		t.Fatal("Read of nothing succeeds")
	}
}

// TestUpdateBothWays lowers and raises limits whose order of writing depends on the values in force.
func TestUpdateBothWays(t *testing.T) {
	l, where, dirs := fresh(t)
	steps, err := plan.Create(l, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	steps = slices.DeleteFunc(steps, func(s plan.Step) bool { return s.Kind == plan.Join })
	if err := Apply(steps, 0); err != nil {
		t.Fatal(err)
	}
	for _, mib := range []int64{512, 64, 1024, 32, 33, 2048} {
		for _, quota := range []int64{50000, 10000} {
			steps, err := plan.Update(l, where, &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: ptr(mib << 20), Swap: ptr(mib << 20)},
				CPU:    &specs.LinuxCPU{Quota: ptr(quota * mib / 32), Period: ptr(uint64(100000)), Burst: ptr(uint64(quota * mib / 64))},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := Apply(steps, 0); err != nil {
				t.Fatalf("to %d MiB, quota %d: %v", mib, quota, err)
			}
		}
		if s, err := Read(dirs); err != nil || s.Memory.Limit != uint64(mib<<20) {
			t.Fatalf("limit %d: %+v, %v", mib<<20, s.Memory, err)
		}
	}
}

func TestOOMKills(t *testing.T) {
	l, where, dirs := fresh(t)
	c := start(t)
	enter(t, l, where, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}},
		c.Process.Pid)
	if n, err := OOMKills(dirs); n != 0 || err != nil {
		t.Fatalf("before: %d, %v", n, err)
	}
	if got := c.tell(t, "eat"); got != "gone" {
		t.Fatalf("64 MiB fit into 32: %s", got)
	}
	if n, err := OOMKills(dirs); n != 1 || err != nil {
		t.Fatalf("after: %d, %v", n, err)
	}
}

func deviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"}, // null
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(5)), Access: "r"},   // zero, to read only
		{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(7)), Access: "rw"},  // full
		{Allow: false, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(7)), Access: "w"},
	}
}

func deviceCheck(t *testing.T, c *child) {
	t.Helper()
	for dev, ok := range map[string]bool{"/dev/null": true, "/dev/zero": false, "/dev/full": false, "/dev/kmsg": false} {
		if got := c.tell(t, "open "+dev); (got == "<nil>") != ok {
			t.Errorf("open %s: %s, want allowed %v", dev, got, ok)
		}
	}
}

func TestDevices(t *testing.T) {
	l, where, _ := fresh(t)
	c := start(t)
	enter(t, l, where, &specs.LinuxResources{Devices: deviceRules()}, c.Process.Pid)
	deviceCheck(t, c)
}

// TestDeviceProgramInKernel loads the v2 program where a unified hierarchy is mounted, be it hybrid, and replaces it.
func TestDeviceProgramInKernel(t *testing.T) {
	l, where, dirs := fresh(t)
	i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.V2 })
	if i < 0 {
		t.Skip("no cgroup v2 hierarchy is mounted")
	}
	c := start(t)
	enter(t, l, where, nil, c.Process.Pid)
	for round, list := range [][]specs.LinuxDeviceCgroup{deviceRules(), {{Allow: true, Access: "rwm"}}, {{Access: "rwm"}}, deviceRules()} {
		prog, err := plan.DeviceProgram(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := LoadDevices(dirs[i].Path, prog); err != nil {
			t.Fatal(err)
		}
		switch round {
		case 0, 3:
			deviceCheck(t, c)
		case 1:
			if got := c.tell(t, "open /dev/zero"); got != "<nil>" {
				t.Errorf("all allowed: %s", got)
			}
		case 2:
			if got := c.tell(t, "open /dev/null"); got == "<nil>" {
				t.Error("all denied, but /dev/null opens")
			}
		}
		d, err := os.Open(dirs[i].Path)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := attached(int(d.Fd()))
		d.Close()
		for _, fd := range fds {
			unix.Close(fd)
		}
		if len(fds) != 1 || err != nil {
			t.Errorf("%d programs attached, %v", len(fds), err)
		}
	}
}

func TestRemoveRefuses(t *testing.T) {
	for _, d := range []plan.Dir{{}, {Mount: "/sys/fs/cgroup/pids", Path: "/sys/fs/cgroup/pids"}, {Mount: "/a", Path: "/a/../b"},
		{Mount: "/a", Path: "/ab"}} {
		if err := Remove([]plan.Dir{d}); err == nil {
			t.Errorf("Remove(%+v) succeeds", d)
		}
	}
}

// Of two who remove a container at once the second finds nothing left to thaw.
func TestThawWhatIsGone(t *testing.T) {
	_, _, dirs := fresh(t)
	if err := Thaw(dirs); err != nil {
		t.Error(err)
	}
	if err := Freeze(dirs); err == nil {
		t.Error("what is not there was frozen")
	}
}

// Where a hierarchy is mounted read-only nothing was made: there is nothing to remove.
func TestRemoveNothingReadOnly(t *testing.T) {
	_, _, dirs := fresh(t)
	err := lmount.Apart(func() error {
		if err := lmount.Private(); err != nil {
			return err
		}
		for _, d := range dirs {
			if err := unix.Mount("", d.Mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return err
			}
		}
		return Remove(dirs)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNested(t *testing.T) {
	l, where, dirs := fresh(t)
	c := start(t)
	enter(t, l, where, nil, c.Process.Pid)
	inner, err := plan.Dirs(l, where+"/a/b")
	if err != nil {
		t.Fatal(err)
	}
	enter(t, l, where+"/a/b", nil, c.Process.Pid)
	if pids, err := Pids(dirs); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("Pids: %v, %v", pids, err)
	}
	if pids, err := Pids(inner); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("Pids of the inner one: %v, %v", pids, err)
	}
	for _, d := range inner {
		if _, err := os.Stat(filepath.Dir(d.Path)); err != nil {
			t.Error(err)
		}
	}
}

// TestKillListed is the way of kernels without cgroup.kill.
func TestKillListed(t *testing.T) {
	l, where, dirs := fresh(t)
	v1 := slices.DeleteFunc(slices.Clone(dirs), func(d plan.Dir) bool { return d.V2 })
	if len(v1) == 0 {
		v1 = dirs
	}
	c := start(t)
	enter(t, l, where, nil, c.Process.Pid)
	c.tell(t, "fork")
	if pids, err := Pids(v1); len(pids) != 2 || err != nil {
		t.Fatalf("Pids: %v, %v", pids, err)
	}
	d, err := home(v1)
	if err != nil {
		t.Fatal(err)
	}
	if err := killListed(v1, d); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	ok, err := until(func() (bool, error) { p, err := Pids(v1); return len(p) == 0, err })
	if !ok || err != nil {
		t.Fatalf("left: %v", err)
	}
}

func TestParse(t *testing.T) {
	const hybrid = `32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/x /sys/fs/cgroup/mem\040ory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:39 / /proc rw - proc proc rw
`
	l, err := Parse([]byte(hybrid), []byte("4:name=systemd:/\n3:memory:/docker/x/in\n2:freezer:/\n1:cpu,cpuacct:/a b\n0::/u\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", l)
	want := "{Mode:hybrid Controllers:[{Names:[cpu cpuacct] Mount:/sys/fs/cgroup/cpu,cpuacct Self:/a b} " +
		"{Names:[memory] Mount:/sys/fs/cgroup/mem ory Self:/in} {Names:[name=systemd] Mount:/sys/fs/cgroup/systemd Self:/}] " +
		"Unified:/sys/fs/cgroup/unified UnifiedControllers:[] SelfUnified:/u UnifiedOurs:}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	l, err = Parse([]byte("1 0 0:1 /a /sys/fs/cgroup rw - cgroup2 c rw\n"), []byte("0::/../b\n"))
	if err != nil || l.Mode != plan.V2 || l.SelfUnified != "/" {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := Parse(nil, nil); err == nil {
		t.Error("no cgroups at all must be an error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("1 0 0:1 /a\\040 /sys/fs/cgroup rw - cgroup2 c rw\n"), []byte("0::/../b\n3:cpu:/x"))
	f.Fuzz(func(t *testing.T, mounts, self []byte) {
		l, err := Parse(mounts, self)
		if err != nil {
			return
		}
		dirs, err := plan.Dirs(l, "dhow/x")
		if err != nil {
			return
		}
		for _, d := range dirs {
			if d.Mount != "/" && check(d) != nil {
				t.Fatalf("%+v leads to %+v", l, d)
			}
		}
	})
}

func FuzzStatFiles(f *testing.F) {
	f.Add("8:0 rbytes=1 wbytes=2\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseIOStat(s)
		parseKeyed([]byte(s))
	})
}

// TestParentsOfOthers: what we make hands CPUs down to the next container; a cgroup that was there stays as it was.
func TestParentsOfOthers(t *testing.T) {
	l, where, above := fresh(t)
	theirs, ok := controller(above, "cpuset")
	if !ok || theirs.V2 {
		t.Skip("no v1 hierarchy of cpuset")
	}
	if err := os.Mkdir(theirs.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds ours, too
		dirs, err := plan.Dirs(l, where+"/ours/"+rand.Text()[:8])
		if err != nil {
			t.Fatal(err)
		}
		steps, err := plan.Create(l, where+"/ours/"+filepath.Base(dirs[0].Path), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := start(t)
		if err := Apply(steps, c.Process.Pid); err != nil {
			t.Fatal(err)
		}
		for dir, want := range map[string]string{theirs.Path: "0", filepath.Join(theirs.Path, "ours"): "1"} {
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.clone_children")); err != nil || strings.TrimSpace(string(b)) != want {
				t.Errorf("%s: clone_children is %q (%v), want %s", dir, b, err, want)
			}
		}
		if err := errors.Join(Kill(dirs), Remove(dirs)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range above {
		if err := os.Remove(filepath.Join(d.Path, "ours")); err != nil {
			t.Error(err)
		}
	}
}
