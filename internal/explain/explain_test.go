package explain

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

func TestMountinfo(t *testing.T) {
	in := `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
98 22 0:45 /a\040b /mnt/c\011d ro,nosuid - tmpfs t\134mp rw,size=1024k
`
	got, err := parseMountinfo([]byte(in))
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	m := got[1]
	if m.root != "/a b" || m.point != "/mnt/c\td" || m.source != `t\mp` || m.fstype != "tmpfs" || !m.has("ro") || m.has("nodev") || tmpfsSize(m.super) != 1<<20 {
		t.Errorf("%+v", m)
	}
	if _, err := parseMountinfo([]byte("22 1 254:0 / /\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a short line: %v", err)
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseMountinfo(own); err != nil || len(got) != strings.Count(string(own), "\n") {
		t.Errorf("our own mountinfo: %d entries, %v", len(got), err)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("98 22 0:45 /a\\040b /mnt ro,nosuid shared:1 - tmpfs tmp rw,size=1024k\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseMountinfo(b)
		if err != nil {
			return
		}
		for _, m := range got {
			_ = m.String()
		}
	})
}

func TestMountDifference(t *testing.T) {
	entry := func(fstype, options, super string) *mountEntry {
		return &mountEntry{fstype: fstype, root: "/", options: strings.Split(options, ","), super: strings.Split(super, ",")}
	}
	for _, c := range []struct {
		m    specs.Mount
		e    *mountEntry
		want string
	}{
		{specs.Mount{Type: "proc", Options: []string{"nosuid", "noexec"}}, entry("proc", "rw,nosuid,noexec,nodev", "rw"), ""},
		{specs.Mount{Type: "proc", Options: []string{"nosuid", "noexec"}}, entry("proc", "rw,nosuid", "rw"), "it is not noexec"},
		{specs.Mount{Type: "bind", Options: []string{"rbind", "ro", "rro"}}, entry("ext4", "rw", "rw"), "it is not ro"},
		{specs.Mount{Type: "bind", Options: []string{"rbind"}}, entry("ext4", "ro", "rw"), "it is read-only"},
		{specs.Mount{Type: "bind", Options: []string{"ro", "rw"}}, entry("ext4", "rw", "rw"), ""},
		{specs.Mount{Type: "bind", Options: []string{"ro"}}, entry("iso9660", "rw", "ro"), ""},
		{specs.Mount{Type: "tmpfs", Options: []string{"noexec", "exec"}}, entry("tmpfs", "rw", "rw"), ""},
		{specs.Mount{Type: "tmpfs", Options: []string{"size=64m"}}, entry("tmpfs", "rw", "rw,size=65536k"), ""},
		{specs.Mount{Type: "tmpfs", Options: []string{"size=64m"}}, entry("tmpfs", "rw", "rw,size=131072k"), "its size is 128MiB"},
		{specs.Mount{Type: "sysfs"}, entry("tmpfs", "rw", "rw"), "it is tmpfs, not sysfs"},
		{specs.Mount{Type: "cgroup"}, entry("tmpfs", "rw", "rw"), ""},
	} {
		if got := mountDifference(c.m, c.e); got != c.want {
			t.Errorf("%v on %v: %q, want %q", c.m, c.e, got, c.want)
		}
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		file, planned, now string
		want               bool
	}{
		{"pids.max", "100", "100", true}, {"pids.max", "100", "max", false}, {"pids.max", "max", "max", true},
		{"memory.limit_in_bytes", "10000000", "9998336", true}, // rounded down to pages
		{"memory.limit_in_bytes", "10000000", "9994240", false},
		{"memory.memsw.limit_in_bytes", "-1", "9223372036854771712", true}, {"memory.max", "1048576", "max", false},
		{"memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0", true}, {"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0", false},
		{"blkio.throttle.read_bps_device", "8:0 1000", "8:0 1000\n8:16 5", true}, {"blkio.throttle.read_bps_device", "8:0 1000", "8:0 2000", false},
		{"cpu.max", "50000 100000", "50000 100000", true}, {"cpu.max", "50000 100000", "max 100000", false}, {"cpu.shares", "512", "513", false},
	} {
		if got := holds(c.file, c.planned, c.now); got != c.want {
			t.Errorf("holds(%s, %q, %q) = %v", c.file, c.planned, c.now, got)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	r := rules{}
	for _, step := range []string{"-a", "+c 1:3 r", "+c 1:3 mw", "+b 8:0 rwm", "-b 8:0 w", "+c 5:1 rw", "-c 5:1 rwm"} {
		if step[0] == '+' {
			r.allow(step[1:])
		} else {
			r.deny(step[1:])
		}
	}
	if got := strings.Join(r.list(), "; "); got != "b 8:0 rm; c 1:3 rwm" {
		t.Error(got)
	}
	r.allow("a")
	all := rules{}
	all.allow("a *:* rwm")
	if !slices.Equal(r.list(), all.list()) || len(all.list()) != 1 {
		t.Error(r.list(), all.list())
	}
	all.allow("") // nonsense of a kernel to come must not panic
}

func TestDeniedCalls(t *testing.T) {
	arg := []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}
	strict := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read", "socket"}, Action: specs.ActAllow}, {Names: []string{"clone"}, Action: specs.ActAllow, Args: arg},
		{Names: []string{"socket"}, Action: specs.ActErrno, Args: arg}, {Names: []string{"mount"}, Action: specs.ActErrno},
	}}
	denied, some := deniedCalls(strict, "amd64")
	if !slices.Contains(denied, "mount") || !slices.Contains(denied, "write") || slices.Contains(denied, "read") || slices.Contains(denied, "socket") || !slices.Equal(some, []string{"clone"}) {
		t.Errorf("strict: %v, %v", denied, some)
	}
	open := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"mount"}, Action: specs.ActErrno}, {Names: []string{"socket"}, Action: specs.ActErrno, Args: arg},
	}}
	if denied, some = deniedCalls(open, "amd64"); !slices.Equal(denied, []string{"mount"}) || !slices.Equal(some, []string{"socket"}) {
		t.Errorf("open: %v, %v", denied, some)
	}
	// The default profile must say of each always-denied call what its compiled filter says.
	f, err := seccomp.Compile(seccomp.Default(nil), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	denied, some = deniedCalls(seccomp.Default(nil), "amd64")
	for nr := range maxCall {
		n := seccomp.Name("amd64", nr)
		if n == "" || slices.Contains(some, n) {
			continue
		}
		const allow = 0x7fff0000
		if got := f.Simulate(nr, seccomp.AuditAMD64, [6]uint64{}) != allow; got != slices.Contains(denied, n) {
			t.Errorf("%s: the filter denies it: %v, the page says %v", n, got, !got)
		}
	}
}

func TestSockets(t *testing.T) {
	in := `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000
   1: 020011AC:0050 010011AC:C350 01 00000000:00000000
   2: 00000000:0050 00000000:0000 0A 00000000:00000000
`
	got, err := parseSockets("tcp", []byte(in))
	want := []listener{{"tcp", netip.MustParseAddrPort("127.0.0.1:8080")}, {"tcp", netip.MustParseAddrPort("0.0.0.0:80")}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	to := netip.MustParseAddrPort("172.17.0.2:8080")
	if got[0].reached("tcp", to) || !got[1].reached("tcp", netip.MustParseAddrPort("172.17.0.2:80")) || got[1].reached("udp", netip.MustParseAddrPort("172.17.0.2:80")) {
		t.Error("who is reached is wrong")
	}
	six, err := parseSocket("00000000000000000000000001000000:0050")
	if err != nil || six != netip.MustParseAddrPort("[::1]:80") {
		t.Errorf("%v, %v", six, err)
	}
	if _, err := parseSocket("zz:1"); err == nil {
		t.Error("nonsense is accepted")
	}
}

func TestLimitLine(t *testing.T) {
	name, v, ok := limitLine("Max open files            1024                 524288               files     \n")
	if !ok || name != "RLIMIT_NOFILE" || v != "1024 524288" {
		t.Error(name, v, ok)
	}
	if _, _, ok := limitLine("Limit                     Soft Limit           Hard Limit           Units     "); ok {
		t.Error("the heading is no limit")
	}
	if !above("1 unlimited", 5) || above("1 5", 5) || above("1 4", 5) {
		t.Error("above")
	}
}

// TestNotRunning: what has never run has rows with promises and without a kernel's side, and nothing differs.
func TestNotRunning(t *testing.T) {
	limit := int64(100)
	spec := &bundle.Spec{
		Root:    &specs.Root{Readonly: true},
		Process: &specs.Process{Args: []string{"x", "a b"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc"}},
		Linux: &specs.Linux{CgroupsPath: "/x/y", Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}, MaskedPaths: []string{"/proc/kcore"},
			Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}},
	}
	layout := plan.Layout{Mode: plan.V2, Unified: "/sys/fs/cgroup", UnifiedControllers: []string{"pids"}}
	r := Make(Subject{ID: "i", Spec: spec, Layout: layout, Why: map[string]string{"linux.resources.pids.limit": "flag --pids-limit 100"}})
	if r.Differences != 0 || r.Pid != 0 || len(r.Notes) != 1 || r.Program.Note == "" {
		t.Errorf("%+v", r)
	}
	rows := map[string]Row{}
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			if row.Kernel != "" || row.Differs {
				t.Errorf("%s: %+v has a kernel's side", s.Name, row)
			}
			rows[s.Name+" "+row.What] = row
		}
	}
	for key, planned := range map[string]string{
		"process command": `x "a b"`, "namespaces mnt": "its own", "namespaces net": "the host's", "mounts /proc": "proc",
		"paths /proc/kcore": "masked", "rlimits RLIMIT_CORE": "1 2", "rootfs /": "ro", "cgroups pids.max": "100",
	} {
		if rows[key].Planned != planned {
			t.Errorf("%s: %+v, want %q", key, rows[key], planned)
		}
	}
	if got := rows["cgroups pids.max"].Asked; got != "flag --pids-limit 100" {
		t.Errorf("pids.max is asked by %q", got)
	}
}

func TestLabel(t *testing.T) {
	for _, tt := range []struct {
		asked, label, what string
		differs            bool
	}{{"", "", "", false}, {"", "u:r:t:s0", "security label", false}, {"p", "p (enforce)", "AppArmor profile", false},
		{"p", "unconfined", "AppArmor profile", true}, {"unconfined", "unconfined", "AppArmor profile", false}} {
		v := &view{}
		v.Spec = &bundle.Spec{Process: &specs.Process{ApparmorProfile: tt.asked}}
		var s Section
		v.label(&s, tt.label)
		if tt.what == "" {
			if len(s.Rows) > 0 {
				t.Errorf("%+v: %+v", tt, s.Rows)
			}
			continue
		}
		if len(s.Rows) != 1 || s.Rows[0].What != tt.what || s.Rows[0].Differs != tt.differs {
			t.Errorf("%+v: %+v", tt, s.Rows)
		}
	}
}
