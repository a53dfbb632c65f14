package plan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func layout(t testing.TB, name string) Layout {
	v1 := []Controller{
		{Names: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct", Self: "/"},
		{Names: []string{"cpuset"}, Mount: "/sys/fs/cgroup/cpuset", Self: "/"},
		{Names: []string{"memory"}, Mount: "/sys/fs/cgroup/memory", Self: "/user/me"},
		{Names: []string{"devices"}, Mount: "/sys/fs/cgroup/devices", Self: "/"},
		{Names: []string{"blkio"}, Mount: "/sys/fs/cgroup/blkio", Self: "/"},
		{Names: []string{"name=systemd"}, Mount: "/sys/fs/cgroup/systemd", Self: "/"},
	}
	more := []Controller{
		{Names: []string{"pids"}, Mount: "/sys/fs/cgroup/pids", Self: "/"},
		{Names: []string{"hugetlb"}, Mount: "/sys/fs/cgroup/hugetlb", Self: "/"},
		{Names: []string{"rdma"}, Mount: "/sys/fs/cgroup/rdma", Self: "/"},
		{Names: []string{"net_cls", "net_prio"}, Mount: "/sys/fs/cgroup/net_cls,net_prio", Self: "/"},
	}
	switch name {
	case "v1":
		return Layout{Mode: V1, Controllers: append(v1, more...)}
	case "hybrid": // pids lives on the unified hierarchy
		return Layout{Mode: Hybrid, Controllers: v1, Unified: "/sys/fs/cgroup/unified", UnifiedControllers: []string{"pids"},
			SelfUnified: "/"}
	case "v2":
		return Layout{Mode: V2, Unified: "/sys/fs/cgroup", SelfUnified: "/user.slice/me",
			UnifiedControllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"}}
	}
	t.Fatalf("no layout %q", name)
	return Layout{}
}

func listing(steps []Step, err error) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// TestGolden: each file has resources.json and perhaps path; the other sections are "create MODE" and "update MODE".
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r *specs.LinuxResources
			where, compared := "/docker/c0ffee", 0
			for i, f := range a.Files {
				verb, mode, _ := strings.Cut(f.Name, " ")
				var got string
				switch verb {
				case "resources.json":
					dec := json.NewDecoder(bytes.NewReader(f.Data))
					dec.DisallowUnknownFields()
					if err := dec.Decode(&r); err != nil {
						t.Fatal(err)
					}
					continue
				case "path":
					where = strings.TrimSpace(string(f.Data))
					continue
				case "create":
					got = listing(Create(layout(t, mode), where, r))
				case "update":
					got = listing(Update(layout(t, mode), where, r))
				default:
					t.Fatalf("unknown section %q", f.Name)
				}
				compared++
				if *update {
					a.Files[i].Data = []byte(got)
				} else if got != string(f.Data) {
					t.Errorf("%s:\ngot:\n%s\nwant:\n%s", f.Name, got, f.Data)
				}
			}
			if compared == 0 {
				t.Fatal("nothing compared")
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Controllers are handed down from where they are ours on; above, somebody else has done it or not.
func TestHandedDownFromOurs(t *testing.T) {
	l := layout(t, "v2")
	l.UnifiedOurs = "/sys/fs/cgroup/user.slice/mine"
	limit := int64(5)
	text := listing(Create(l, "/user.slice/mine/a/b", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}))
	for path, want := range map[string]bool{"/": false, "/user.slice/": false, "/user.slice/mine/": true, "/user.slice/mine/a/": true, "/user.slice/mine/a/b/": false} {
		if got := strings.Contains(text, "/sys/fs/cgroup"+path+"cgroup.subtree_control"); got != want {
			t.Errorf("controllers of %s are handed down: %v\n%s", path, got, text)
		}
	}
}

func TestPathRefused(t *testing.T) {
	for _, p := range []string{"", "/", ".", "//", "/a/../b", "..", "a/..", "/a\x00b", "a\nb", "/./", "/x/cgroup.procs",
		strings.Repeat("x", 256), strings.Repeat("/x", 2000)} {
		if _, err := Dirs(layout(t, "v1"), p); !errdef.Is(err, errdef.InvalidArgument) {
			t.Errorf("Dirs(%.40q): %v, want InvalidArgument", p, err)
		}
	}
	if _, err := Dirs(Layout{}, "/a"); !errdef.Is(err, errdef.Unavailable) {
		t.Errorf("Dirs without cgroups: %v", err)
	}
}

func FuzzDirs(f *testing.F) {
	f.Add("/a/b")
	f.Add("a/../../b")
	f.Fuzz(func(t *testing.T, p string) {
		dirs, err := Dirs(layout(t, "hybrid"), p)
		if err != nil {
			return
		}
		for _, d := range dirs {
			if !strings.HasPrefix(d.Path, d.Mount+"/") || filepath.Clean(d.Path) != d.Path {
				t.Fatalf("%q leads to %q, outside %q", p, d.Path, d.Mount)
			}
		}
	})
}

func TestWeight(t *testing.T) {
	last := uint64(0)
	for _, tt := range []struct{ shares, weight uint64 }{{0, 0}, {1, 1}, {2, 1}, {1024, 100}, {262144, 10000}, {1 << 40, 10000}} {
		if got := Weight(tt.shares); got != tt.weight {
			t.Errorf("Weight(%d) = %d, want %d", tt.shares, got, tt.weight)
		}
	}
	for shares := uint64(2); shares <= 262144; shares++ {
		w := Weight(shares)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("Weight(%d) = %d after %d", shares, w, last)
		}
		last = w
	}
}

// allowed is what a device list means, said plainly: each access on its own, the last rule that matches decides.
func allowed(rules []specs.LinuxDeviceCgroup, kind string, major, minor int64, access string) bool {
	for _, a := range access {
		ok := false
		for _, r := range rules {
			if (r.Type == "a" || r.Type == kind) && (r.Major == nil || *r.Major == major) && (r.Minor == nil || *r.Minor == minor) &&
				strings.ContainsRune(r.Access, a) {
				ok = r.Allow
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// runBPF interprets the few instructions DeviceProgram uses.
func runBPF(t *testing.T, prog []byte, ctx [3]uint32) uint64 {
	var reg [10]uint64
	for pc := 0; pc < len(prog)/8; pc++ {
		i := prog[pc*8:]
		dst, src := i[1]&15, i[1]>>4
		off, imm := int16(binary.LittleEndian.Uint16(i[2:])), int32(binary.LittleEndian.Uint32(i[4:]))
		jump := false
		switch i[0] {
		case ebpfLoadW:
			reg[dst] = uint64(ctx[off/4])
		case ebpfMov:
			reg[dst] = reg[src]
		case ebpfMovK:
			reg[dst] = uint64(int64(imm))
		case ebpfAndK:
			reg[dst] &= uint64(int64(imm))
		case ebpfRshK:
			reg[dst] >>= imm
		case ebpfJa:
			jump = true
		case ebpfJsetK:
			jump = reg[dst]&uint64(int64(imm)) != 0
		case ebpfJneK:
			jump = reg[dst] != uint64(int64(imm))
		case ebpfJneK32:
			jump = uint32(reg[dst]) != uint32(imm)
		case ebpfExit:
			return reg[0]
		default:
			t.Fatalf("instruction %d: opcode %#x", pc, i[0])
		}
		if jump {
			pc += int(off)
		}
	}
	t.Fatal("ran off the end")
	return 0
}

func TestDeviceProgramMeansTheRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	numbers := []int64{0, 1, 3, 1<<32 - 1}
	pick := func() *int64 {
		if rnd.IntN(3) == 0 {
			return nil
		}
		return &numbers[rnd.IntN(len(numbers))]
	}
	kinds, accesses := []string{"a", "b", "c"}, []string{"r", "w", "m", "rw", "rm", "wm", "rwm"}
	bits := map[rune]uint32{'m': accessMknod, 'r': accessRead, 'w': accessWrite}
	for range 3000 {
		rules := make([]specs.LinuxDeviceCgroup, rnd.IntN(8))
		for i := range rules {
			rules[i] = specs.LinuxDeviceCgroup{Allow: rnd.IntN(2) == 0, Type: kinds[rnd.IntN(3)], Major: pick(), Minor: pick(),
				Access: accesses[rnd.IntN(7)]}
		}
		prog, err := DeviceProgram(rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range kinds[1:] {
			for _, major := range numbers {
				for _, minor := range numbers {
					for _, access := range accesses {
						ctx := [3]uint32{map[string]uint32{"b": typeBlock, "c": typeChar}[kind], uint32(major), uint32(minor)}
						for _, a := range access {
							ctx[0] |= bits[a] << 16
						}
						got := runBPF(t, prog, ctx) == 1
						if want := allowed(rules, kind, major, minor, access); got != want {
							t.Fatalf("%s %d:%d %s: %v, want %v, by %+v", kind, major, minor, access, got, want, rules)
						}
					}
				}
			}
		}
	}
}
