package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/facts"
)

// ownNetwork puts the test into a network namespace of its own; the thread is not given back.
func ownNetwork(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip (Debian package iproute2) is not installed")
	}
	runtime.LockOSThread()
	check(t, unix.Unshare(unix.CLONE_NEWNET))
}

func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v %s", args, err, out)
	}
	return string(out)
}

// veth makes a device v with three addresses that last, one of the link only and one that does not last.
func veth(t *testing.T) {
	t.Helper()
	ip(t, "link add v type veth peer name peer")
	ip(t, "link set v address 02:00:00:00:00:07")
	ip(t, "link set v mtu 1400 up")
	ip(t, "link set peer up")
	ip(t, "address add 10.9.8.7/24 broadcast 10.9.8.255 dev v")
	ip(t, "address add 10.9.8.6/32 dev v label v:two")
	ip(t, "address add 10.9.7.5/24 scope link dev v")
	ip(t, "address add 2001:db8::7/64 nodad dev v")
	ip(t, "address add 2001:db8::9/64 nodad valid_lft 1000 preferred_lft 500 dev v")
}

func TestNetDevices(t *testing.T) {
	ownNetwork(t)
	for _, as := range []string{"", "inside", "eth%d"} {
		veth(t)
		b := newBox(t, "sh", "-c", "busybox ip address")
		b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"v": {Name: as}}
		name := map[string]string{"": "v", "inside": "inside", "eth%d": "eth0"}[as]
		out, _ := b.run()
		for _, w := range []string{" " + name + "@", ",UP", "mtu 1400", "02:00:00:00:00:07", "inet 10.9.8.7/24 brd 10.9.8.255 scope global " + name, "inet 10.9.8.6/32 scope global", "inet6 2001:db8::7/64 scope global"} {
			if !strings.Contains(out, w) {
				t.Errorf("as %q: no %q in:\n%s", as, w, out)
			}
		}
		for _, w := range []string{"10.9.7.5", "2001:db8::9"} {
			if strings.Contains(out, w) {
				t.Errorf("as %q: %s in:\n%s", as, w, out)
			}
		}
		for out := ip(t, "link"); strings.Contains(out, "peer"); out = ip(t, "link") { // it goes with the namespace of its other end
			runtime.Gosched()
		}
	}
}

// A container that cannot be made gives the devices back as they were.
func TestNetDevicesComeBack(t *testing.T) {
	ownNetwork(t)
	veth(t)
	ip(t, "link add w type veth peer name peerw")
	addresses := func() string {
		var out []string
		for _, l := range strings.Split(ip(t, "address show dev v"), "\n") {
			if strings.Contains(l, "global") && !strings.Contains(l, "valid_lft") && !strings.Contains(l, "dynamic") {
				out = append(out, strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(l), " v"), " v:two"))
			}
		}
		return strings.Join(out, "\n")
	}
	before := addresses()
	for what, change := range map[string]func(b *box){
		"linux.netDevices[w].name":                                 func(b *box) { b.spec.Linux.NetDevices["w"] = specs.LinuxNetDevice{Name: "a%dd%"} },
		"linux.netDevices[w]: a device called lo is there already": func(b *box) { b.spec.Linux.NetDevices["w"] = specs.LinuxNetDevice{Name: "lo"} },
		"linux.netDevices[x]: there is no such network device":     func(b *box) { b.spec.Linux.NetDevices["x"] = specs.LinuxNetDevice{} },
		"linux.netDevices[lo]: ":                                   func(b *box) { b.spec.Linux.NetDevices["lo"] = specs.LinuxNetDevice{Name: "other"} },
		"exec: \"nothing\"":                                        func(b *box) { b.spec.Process.Args = []string{"nothing"} },
	} {
		b := newBox(t)
		b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"v": {Name: "inside"}}
		change(b)
		_, err := b.try()
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "undoing") {
			t.Errorf("error %v, want %q", err, what)
		}
		if out := ip(t, "link show dev v"); !strings.Contains(out, ",UP") {
			t.Errorf("after %q: %s", what, out)
		}
		if after := addresses(); after != before {
			t.Errorf("after %q: addresses\n%s\nbefore\n%s", what, after, before)
		}
		if out := ip(t, "link show dev w"); strings.Contains(out, ",UP") {
			t.Errorf("after %q: %s", what, out)
		}
	}
}

// fakeResctrl is a tree as Intel RDT's file system looks, which this kind of machine does not have: what is made in it has no files.
func fakeResctrl(t *testing.T, classes ...string) (root string, host facts.Host) {
	t.Helper()
	root = t.TempDir()
	for _, c := range append(classes, "") {
		check(t, os.MkdirAll(filepath.Join(root, c, "mon_groups"), 0o755))
		check(t, os.WriteFile(filepath.Join(root, c, "tasks"), nil, 0o644))
		check(t, os.WriteFile(filepath.Join(root, c, "schemata"), []byte("    L3:0=0007ff;1=0007ff\n"), 0o644))
	}
	return root, func() (compile.Facts, error) {
		f, err := facts.Begin()()
		f.Resctrl.Root = root
		return f, err
	}
}

func TestResctrl(t *testing.T) {
	root, host := fakeResctrl(t, "gold")
	b := newBox(t, "true")
	b.host = host
	b.set(`{"linux":{"intelRdt":{"closID":"gold","schemata":["L3:0=7ff"]}}}`)
	c := b.sleeping()
	b.shell(c, nil, "true")
	for file, want := range map[string]string{"gold/tasks": "0", "gold/schemata": "L3:0=7ff\n", "tasks": ""} { // a file, unlike resctrl's, keeps the writes at its start
		if got, _ := os.ReadFile(filepath.Join(root, file)); !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 {
			t.Errorf("%s holds %q", file, got)
		}
	}
	check(t, c.Delete(true))
	wait(t, c.Init())
	if _, err := os.Stat(filepath.Join(root, "gold")); err != nil {
		t.Errorf("a named class goes with the container: %v", err)
	}
}

// What was made in resctrl before a step fails is removed, and nothing of others'.
func TestResctrlUndone(t *testing.T) {
	root, host := fakeResctrl(t)
	b := newBox(t)
	b.host = host
	b.set(`{"linux":{"intelRdt":{"l3CacheSchema":"L3:0=f","enableMonitoring":true}}}`)
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.intelRdt.l3CacheSchema: openat schemata L3:0=f") { // the fake folder has no files
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, b.id)); err == nil {
		t.Error("the class of service was left behind")
	}
	check(t, os.Mkdir(filepath.Join(root, b.id), 0o755))
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.intelRdt.closID: mkdirat class of service: file exists") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, b.id)); err != nil {
		t.Error("somebody else's class of service was removed")
	}
}

// A device that may not leave, the host's loopback above all, is not so much as taken down for a moment.
func TestNetDevicesThatStay(t *testing.T) {
	ownNetwork(t)
	ip(t, "link set lo up")
	ip(t, "address add 2001:db8::99/128 nodad dev lo")
	ip(t, "link add bridge type bridge")
	ip(t, "link set bridge addrgenmode none")
	ip(t, "link set bridge up")
	ip(t, "address add 2001:db8:1::1/64 nodad dev bridge")
	ip(t, "route add 10.77.0.0/16 dev lo")
	before := ip(t, "address show dev lo") + ip(t, "address show dev bridge") + ip(t, "route") + ip(t, "-6 route")
	for _, name := range []string{"lo", "bridge"} {
		b := newBox(t)
		b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: {Name: "inside"}}
		if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "linux.netDevices["+name+"]: move it: invalid argument") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if after := ip(t, "address show dev lo") + ip(t, "address show dev bridge") + ip(t, "route") + ip(t, "-6 route"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}
