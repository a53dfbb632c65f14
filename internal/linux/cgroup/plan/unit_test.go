package plan

import (
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNewUnit(t *testing.T) {
	v2, v1 := layout(t, "v2"), layout(t, "v1")
	for _, c := range []struct {
		l                Layout
		where            string
		uid              int
		name, slice, dir string
	}{
		{v2, "", 0, "dhow-web.scope", "system.slice", "/system.slice/dhow-web.scope"},
		{v2, "machine-a-b.slice:libpod:1", 0, "libpod-1.scope", "machine-a-b.slice", "/machine.slice/machine-a.slice/machine-a-b.slice/libpod-1.scope"},
		{v2, "-:x:1", 0, "x-1.scope", "-.slice", "/x-1.scope"},
		{v2, "::1", 0, "-1.scope", "system.slice", "/system.slice/-1.scope"},
		{v2, ":x:1", 1000, "x-1.scope", "user.slice", "/user.slice/user-1000.slice/user@1000.service/user.slice/x-1.scope"},
		{v1, ":x:1", 1000, "x-1.scope", "system.slice", "/user.slice/user-1000.slice/user@1000.service/system.slice/x-1.scope"},
	} {
		u, err := NewUnit(c.l, c.where, "web", c.uid)
		if err != nil || u.Name != c.name || u.Slice != c.slice || u.Path != c.dir || u.User != (c.uid != 0) {
			t.Errorf("NewUnit(%q, %d) = %+v, %v", c.where, c.uid, u, err)
		}
	}
	for _, bad := range []string{"/a/b", "a.slice:b", "a:b:c:d", "x:y:z", "a--b.slice:p:n", "-a.slice:p:n", "a/b.slice:p:n", ":../p:n", "::x.slice",
		"::" + strings.Repeat("x", 300), "::a\nb", "..slice:p/n:x", "::a b"} {
		if u, err := NewUnit(v2, bad, "web", 0); !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("NewUnit(%q) = %+v, %v", bad, u, err)
		}
	}
}

func TestAnnotatedProperties(t *testing.T) {
	good := map[string]string{"CollectMode": "'inactive-or-failed'", "TimeoutStopSec": "uint64 5", "After": "['a.service', \"b.service\"]", "CPUWeight": "@t 7",
		"Documentation": "@as []", "Quoted": `'a\'b'`, "OOMScoreAdjust": "-3", "SendSIGHUP": "true"}
	want := map[string]string{"CollectMode": `s "inactive-or-failed"`, "TimeoutStopUSec": "t 5000000", "After": "as [a.service b.service]", "CPUWeight": "t 7",
		"Documentation": "as []", "Quoted": `s "a'b"`, "OOMScoreAdjust": "i -3", "SendSIGHUP": "b true"}
	annotations := map[string]string{"org.other": "x"}
	for k, v := range good {
		annotations[annotationPrefix+k] = v
	}
	list, err := annotated(annotations)
	if err != nil || len(list) != len(want) {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, p := range list {
		if got := p.Type + " " + p.text(); got != want[p.Name] {
			t.Errorf("%s = %s, want %s", p.Name, got, want[p.Name])
		}
	}
	// CVE-2024-3154 and its kin: names and values that would be more than one property, or run something.
	for name, value := range map[string]string{"X": "1", "Ex-ec": "1", "ExecStartPre": "'/bin/sh'", "FailureAction": "'reboot'", "OnFailure": "['x.service']",
		"PIDs": "@au [1]", "Slice": "'-.slice'", "Description": "'a\n[Service]\nExecStart=/bin/sh'", "Desc\nription": "'a'", "Empty": "", "Open": "'x",
		"Two": "1 2", "Mixed": "[1, 'a']", "Untyped": "[]", "Big": "byte 256", "Bare": "reboot", "Nan": "@d NaN", "Variant": "<1>", "Tuple": "(1, 2)",
		"TimeoutSec": "'x'", "NegativeSec": "-1", "Escape": `'\x0a'`, "Nested": "[[1]]", "Type": "@z 1", "Wants": "['debug-shell.service']", "Requires": "['x.service']", "RequiresMountsFor": "['/x']", "BindsTo": "['x.service']",
		"Conflicts": "['sshd.service']", "PropagatesStopTo": "['sshd.service']", "DeviceAllow": "@as []",
		"RefuseManualStop": "true", "Delegate": "false", "DelegateSubgroup": "'x'", "DelegateControllers": "@as []"} {
		if list, err := annotated(map[string]string{annotationPrefix + name: value}); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%s=%q: %+v, %v", name, value, list, err)
		}
	}
}

// Annotations do not beat limits, as they did in CRI-O (CVE-2023-6476).
func TestAnnotationsBesideLimits(t *testing.T) {
	limit := int64(1 << 20)
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &limit}}
	for name, ok := range map[string]bool{"MemoryMax": false, "MemoryMaxScale": false, "TasksMax": false, "TasksMaxScale": false, "Description": true, "MemoryLow": true} {
		u := &Unit{Slice: "a.slice"}
		err := u.Describe(layout(t, "v2"), "c", r, map[string]string{annotationPrefix + name: "uint64 5"})
		if ok != (err == nil) || !ok && !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnitDevices(t *testing.T) {
	one := func(n int64) *int64 { return &n }
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: one(1), Minor: one(3), Access: "rwm"}, {Allow: true, Type: "c", Major: one(136), Access: "rwm"}}}
	get := func() string {
		list, err := UnitLimits(layout(t, "v2"), r)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, p := range list {
			b.WriteString(p.Name + "=" + p.text() + "\n")
		}
		return b.String()
	}
	if got := get(); got != "DevicePolicy=\"strict\"\nDeviceAllow=[[char-* m] [/dev/char/1:3 rwm] [char-pts rwm]]\n" {
		t.Error(got)
	}
	// Half a wildcard has no word in systemd; then only our own program decides.
	r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: one(8), Access: "r"})
	if got := get(); got != "DevicePolicy=\"auto\"\nDeviceAllow=[]\n" {
		t.Error(got)
	}
}

func FuzzParseProperty(f *testing.F) {
	for _, s := range []string{"uint64 5", "@as ['a', \"b\"]", "[1, 2]", "'a\\'b'", "-1.5e3", "@ay [1, byte 2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, bad := ParseProperty(s)
		if bad == "" && (p.Type == "" || p.Value == nil) {
			t.Fatalf("%q: %+v", s, p)
		}
		if v, ok := p.Value.(string); ok && strings.ContainsAny(v, "\n\x00") {
			t.Fatalf("%q: a control character came through: %q", s, v)
		}
	})
}
