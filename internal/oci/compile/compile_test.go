package compile

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

var update = flag.Bool("update", false, "rewrite the golden listings")

// testFacts are a hybrid-cgroup host with a 6.18 kernel, unless a script says otherwise.
func testFacts() Facts {
	return Facts{Clone3: true,
		Arch: "amd64", Major: 6, Minor: 18, LastCap: 40, Stdio: [3]int{7, 8, 9},
		Cgroup: plan.Layout{Mode: plan.Hybrid, Controllers: []plan.Controller{
			{Names: []string{"memory"}, Mount: "/sys/fs/cgroup/memory", Self: "/"}, {Names: []string{"pids"}, Mount: "/sys/fs/cgroup/pids", Self: "/"},
			{Names: []string{"devices"}, Mount: "/sys/fs/cgroup/devices", Self: "/"}},
			Unified: "/sys/fs/cgroup/unified", SelfUnified: "/"},
	}
}

// base is the smallest valid config; scripts are merged over it.
const base = `{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"args":["/bin/true"],"cwd":"/"},
"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}`

// Each file of testdata holds config.json (merged over base), optionally facts.json, input.json (options of the command line), rootfs.json, systemd (the caller's UID; systemd makes the cgroup) and grep (only lines that contain
// one of these words are compared), and what must come out: listing, or error.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) []byte {
		for _, f := range a.Files {
			if f.Name == name {
				return f.Data
			}
		}
		return nil
	}
	in := Input{ID: "demo", Bundle: "/b", CgroupPath: "/demo", Keyring: "_ses.demo.NAME", MountsFile: "/run/demo/mounts", Spec: &bundle.Spec{}, Facts: testFacts()}
	must(t, json.Unmarshal([]byte(base), in.Spec))
	must(t, json.Unmarshal(get("config.json"), in.Spec))
	if b := get("facts.json"); b != nil {
		must(t, json.Unmarshal(b, &in.Facts))
	}
	if p := in.Spec.Linux.CgroupsPath; p != "" {
		in.CgroupPath = p
	}
	if uid := strings.TrimSpace(string(get("systemd"))); uid != "" {
		n, err := strconv.Atoi(uid)
		must(t, err)
		in.Unit, err = plan.NewUnit(in.Facts.Cgroup, in.Spec.Linux.CgroupsPath, in.ID, n)
		must(t, err)
		must(t, in.Unit.Describe(in.Facts.Cgroup, in.ID, in.Spec.Linux.Resources, in.Spec.Annotations))
		in.CgroupPath = in.Unit.Path
	}
	if b := get("rootfs.json"); b != nil {
		in.Rootfs = &bundle.Rootfs{}
		must(t, json.Unmarshal(b, in.Rootfs))
	}
	if b := get("input.json"); b != nil {
		must(t, json.Unmarshal(b, &in))
	}
	p, err := Compile(in)
	name, got := "error", ""
	if err != nil {
		got = err.Error() + "\n"
	} else {
		name, got = "listing", p.String()
		wellFormed(t, p, in.Facts.User[0] != 0)
	}
	if words := strings.Fields(string(get("grep"))); len(words) > 0 && err == nil {
		got = grep(got, words)
	}
	if err == nil {
		for _, w := range p.Warnings {
			got += "warning: " + w + "\n"
		}
	}
	if *update {
		var kept []txtar.File
		for _, f := range a.Files {
			if f.Name != "listing" && f.Name != "error" {
				kept = append(kept, f)
			}
		}
		a.Files = append(kept, txtar.File{Name: name, Data: []byte(got)})
		must(t, os.WriteFile(file, txtar.Format(a), 0o644))
		return
	}
	if want := string(get(name)); got != want {
		t.Errorf("%s: %s differs (run with -update to rewrite):\n--- got\n%s--- want\n%s", file, name, got, want)
	}
}

func grep(listing string, words []string) string {
	var out strings.Builder
	for _, line := range strings.SplitAfter(listing, "\n") {
		for _, w := range words {
			if strings.Contains(line, w) {
				out.WriteString(line)
				break
			}
		}
	}
	return out.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wellFormed checks what the interpreter relies on, and that the listing can be taken apart again.
func wellFormed(t *testing.T, p *prog.Program, ordinary bool) {
	t.Helper()
	lines, err := prog.ParseListing(strings.NewReader(p.String()))
	if err != nil || len(lines) != len(p.Ins) {
		t.Fatalf("the listing of %d instructions parses into %d lines: %v", len(p.Ins), len(lines), err)
	}
	for i, l := range lines {
		if in := &p.Ins[i]; l.Out != in.Out || l.Goto != in.Goto && len(in.Tolerate) > 0 || l.Undo != in.Undo || len(l.Tolerate) != len(in.Tolerate) {
			t.Fatalf("parsed as %+v: %s", l, p.Line(i))
		}
	}
	cloned := false
	for i, in := range p.Ins {
		if in.Goto != 0 && (in.Goto <= i || in.Goto > len(p.Ins) || p.Ins[in.Goto-1].Lane != in.Lane) {
			t.Errorf("instruction %d goes to %d: jumps lead forward, within their lane or to its end", i, in.Goto)
		}
		if in.Lane == prog.Child && !cloned {
			t.Errorf("instruction %d is the child's, before there is one", i)
		}
		cloned = cloned || in.Op == prog.Clone
		if int(in.Out) >= p.Regs && in.Out != 0 {
			t.Errorf("instruction %d writes register %d of %d", i, in.Out, p.Regs)
		}
		for _, a := range in.Args {
			if a.Kind == prog.InData && int(a.Val) >= len(p.Data) {
				t.Errorf("instruction %d uses data %d of %d", i, a.Val, len(p.Data))
			}
		}
	}
	i := firstCall(p, prog.SysPrctl)
	switch { // an ordinary user must reach /proc/PID until he has written the maps
	case i < 0 || p.Ins[i].Args[0].Val != u.PR_SET_DUMPABLE:
		t.Error("nothing makes the child non-dumpable")
	case !ordinary && p.Ins[i-1].Op != prog.Clone:
		t.Error("the child's first instruction must make it non-dumpable")
	case ordinary && (i > firstCall(p, prog.SysPivotRoot) || slices.ContainsFunc(p.Ins[i:], func(in prog.Ins) bool { return in.Op == prog.OpenPid })):
		t.Error("the child must be non-dumpable as soon as its IDs are mapped")
	}
}

func firstCall(p *prog.Program, s prog.Sys) int {
	for i := range p.Ins {
		if p.Ins[i].Op == prog.Syscall && p.Ins[i].Sys == s {
			return i
		}
	}
	return -1
}

// A config of the size that is read has room for more paths than 16 bits count; each has a register of its own.
func TestManyRegisters(t *testing.T) {
	in := Input{ID: "demo", Bundle: "/b", CgroupPath: "/demo", Spec: &bundle.Spec{}, Facts: testFacts()}
	must(t, json.Unmarshal([]byte(base), in.Spec))
	for range 40_000 {
		in.Spec.Linux.ReadonlyPaths = append(in.Spec.Linux.ReadonlyPaths, "/proc/sys")
	}
	p, err := Compile(in)
	must(t, err)
	owner := map[prog.Reg]string{}
	for i := range p.Ins {
		in := &p.Ins[i]
		if was := owner[in.Out]; in.Out != 0 && was != "" && was != in.Why {
			t.Fatalf("register %d of %d is for %s and for %s", in.Out, p.Regs, was, in.Why)
		}
		if strings.HasPrefix(in.Why, "linux.readonlyPaths") {
			owner[in.Out] = in.Why
		}
	}
	if len(owner) < 1<<16 {
		t.Errorf("%d registers", len(owner))
	}
}

// Equal inputs give equal programs, whatever the order of maps.
func TestDeterministic(t *testing.T) {
	var first string
	for range 20 {
		in := Input{ID: "demo", Bundle: "/b", CgroupPath: "/demo", Spec: &bundle.Spec{}, Facts: testFacts()}
		must(t, json.Unmarshal([]byte(base), in.Spec))
		must(t, json.Unmarshal([]byte(`{"linux":{"namespaces":[{"type":"mount"},{"type":"network"},{"type":"ipc"}],"sysctl":{"net.a":"1","net.b":"2","net.c":"3","kernel.sem":"4","kernel.shmmax":"5"}}}`), in.Spec))
		p, err := Compile(in)
		must(t, err)
		if first == "" {
			first = p.String()
		} else if p.String() != first {
			t.Fatal("two compilations differ")
		}
	}
}

// FuzzCompile: whatever config.json says, the compiler answers with a well-formed program or a classified error.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte(`{"linux":null}`))
	f.Add([]byte(`{"ociVersion":"1.0","root":{"path":"/"},"process":{"args":["x"],"cwd":"/","capabilities":{}},"mounts":[{"destination":"/a/../b","type":"proc"}],"linux":{"namespaces":[{"type":"mount"}],"devices":[{"path":"/dev/x","type":"c"}],"maskedPaths":["/x"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &bundle.Spec{}
		if json.Unmarshal(b, s) != nil {
			return
		}
		p, err := Compile(Input{ID: "demo", Bundle: "/b", CgroupPath: "/demo", Spec: s, Facts: testFacts()})
		if err != nil {
			if errdef.KindOf(err) == errdef.System {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		wellFormed(t, p, false)
	})
}
