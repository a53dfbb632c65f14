package seccomp

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// evaluate says what a profile means, one rule after the other, without any of Compile's structure.
func evaluate(p *specs.LinuxSeccomp, native string, audit, nr uint32, args [6]uint64) uint32 {
	def, _ := answer(p.DefaultAction, p.DefaultErrnoRet)
	arch := map[uint32]string{AuditAMD64: "amd64", AuditI386: "386", AuditARM64: "arm64", AuditARM: "arm",
		auditMIPSEL: "mipsle", auditMIPSEL64: "mips64le", auditPPC64LE: "ppc64le", auditRISCV64: "riscv64", auditLOONG64: "loong64"}[audit]
	listed := map[string]specs.Arch{"amd64": specs.ArchX86_64, "386": specs.ArchX86, "x32": specs.ArchX32, "arm64": specs.ArchAARCH64,
		"arm": specs.ArchARM, "mipsle": specs.ArchMIPSEL, "mips64le": specs.ArchMIPSEL64, "ppc64le": specs.ArchPPC64LE, "riscv64": specs.ArchRISCV64,
		"loong64": specs.ArchLOONGARCH64}
	on := func(arch string) bool {
		return arch != "" && (arch == native || slices.Contains(p.Architectures, listed[arch]))
	}
	amd64, x32 := on("amd64"), on("x32")
	if arch == "amd64" && nr&x32Bit != 0 {
		arch = "x32"
	}
	if arch == "x32" && !x32 && amd64 && nr == 0xffffffff {
		return def
	}
	if !on(arch) && !(arch == "amd64" && x32 && nr >= x32Bit) {
		return RetKillProcess
	}
	wide := !slices.Contains([]string{"386", "x32", "arm", "mipsle"}, arch)
	top := -1
	var rules []rule
	for _, s := range p.Syscalls {
		ret, _ := answer(s.Action, s.ErrnoRet)
		sets := [][]specs.LinuxSeccompArg{s.Args}
		if repeats(s.Args) {
			sets = nil
			for i := range s.Args {
				sets = append(sets, s.Args[i:i+1])
			}
		}
		var muxed []rule
		for _, name := range s.Names {
			n, ok := Number(arch, name)
			if ok {
				top = max(top, n)
			}
			mux, sub := subNumber(name)
			m, muxes := Number(arch, mux)
			refusesMux := (name == "socketcall" || name == "ipc") && len(s.Args) == 0
			for _, set := range sets {
				if ok && uint32(n) == nr && (ret != def || refusesMux) {
					rules = append(rules, rule{ret, set})
				}
				if muxes && uint32(m) == nr && ret != def {
					muxed = append(muxed, rule{ret, muxConds(mux, sub, set)})
				}
			}
		}
		rules = append(rules, muxed...)
	}
	if ret, ok := decide(rules, args, wide); ok {
		return ret
	}
	if top >= 0 && int64(nr) > int64(top) && def != RetAllow && def != RetLog && def>>16 != RetTrace>>16 {
		return RetErrno | enosys
	}
	if arch == "amd64" && nr >= x32Bit && !x32 {
		return RetKillProcess
	}
	return def
}

// muxConds are the conditions of a call that is made through socketcall or ipc.
func muxConds(mux string, sub uint64, conds []specs.LinuxSeccompArg) []specs.LinuxSeccompArg {
	out := []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: sub}}
	if mux == "ipc" {
		out[0] = specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 0xffff, ValueTwo: sub}
	}
	for _, c := range conds {
		if c.Index != 0 {
			out = append(out, c)
		}
	}
	return out
}

// decide: a rule that always holds wins, then the first that holds, where rules contradict each other in compareRules' order.
func decide(rules []rule, args [6]uint64, wide bool) (uint32, bool) {
	same := true
	for _, r := range rules {
		if !r.conditional(!wide) {
			return r.ret, true
		}
		same = same && r.ret == rules[0].ret
	}
	if !same {
		slices.SortStableFunc(rules, func(a, b rule) int { return compareRules(a.conds, b.conds) })
	}
	for _, r := range rules {
		if holds(r.conds, args, wide) {
			return r.ret, true
		}
	}
	return 0, false
}

func holds(conds []specs.LinuxSeccompArg, args [6]uint64, wide bool) bool {
	for _, c := range conds {
		v, a, b := args[c.Index], c.Value, c.ValueTwo
		if !wide {
			v, a, b = v&0xffffffff, a&0xffffffff, b&0xffffffff
		}
		ok := false
		switch c.Op {
		case specs.OpEqualTo:
			ok = v == a
		case specs.OpNotEqual:
			ok = v != a
		case specs.OpLessThan:
			ok = v < a
		case specs.OpLessEqual:
			ok = v <= a
		case specs.OpGreaterThan:
			ok = v > a
		case specs.OpGreaterEqual:
			ok = v >= a
		case specs.OpMaskedEqual:
			ok = v&a == b&a
		}
		if !ok {
			return false
		}
	}
	return true
}

// valid checks what the kernel's verifier would (sk_chk_filter): jumps inside the program, a return at its end.
func valid(t testing.TB, f *Filter) {
	t.Helper()
	for pc, i := range f.Insns {
		furthest := 1
		switch i.Code {
		case opRet:
			continue
		case opJa:
			furthest = int(i.K) + 1
		case opJeq, opJge, opJgt:
			furthest = int(max(i.Jt, i.Jf)) + 1
		}
		if pc+furthest >= len(f.Insns) {
			t.Fatalf("instruction %d of %d (%+v) leads outside", pc, len(f.Insns), i)
		}
	}
}

func audits(native string) []uint32 {
	if native == "amd64" {
		return []uint32{AuditAMD64, AuditI386, AuditARM64, auditPPC64LE, auditMIPSEL, auditRISCV64, auditLOONG64, auditMIPSEL64, 0xdead}
	}
	return []uint32{AuditARM64, AuditARM, AuditI386, auditMIPSEL}
}

func same(t *testing.T, p *specs.LinuxSeccomp, f *Filter, native string, audit, nr uint32, args [6]uint64) {
	t.Helper()
	got, want := f.Simulate(int(nr), audit, args), evaluate(p, native, audit, nr, args)
	if got != want {
		profile, _ := json.Marshal(p)
		if len(profile) > 4000 {
			profile = profile[:4000]
		}
		t.Fatalf("%s: %#x %s %v = %#x, want %#x\n%s", native, audit, Name(native, int(nr)), args, got, want, profile)
	}
}

func TestDefaultAgainstEvaluator(t *testing.T) {
	corners := []uint64{0, 1, 2, 8, 16, 37, 38, 39, 40, 41, 45, 46, 0x20000, 0x20008, 0x40000, 0x7e020000, 0x10000000, 0xffffffff, 1 << 32,
		1<<32 | 38, 1<<32 | 2, 1<<32 | 0x10000000, 1<<63 | 1, ^uint64(0)}
	for _, caps := range [][]string{nil, {"CAP_CHOWN", "CAP_SYS_CHROOT"}, {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"}} {
		for _, native := range []string{"amd64", "arm64"} {
			p := Default(caps)
			if native == "arm64" {
				p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
			}
			f, err := Compile(p, native)
			if err != nil {
				t.Fatal(err)
			}
			valid(t, f)
			for _, audit := range audits(native) {
				numbers := []uint32{0x3fffffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xf0001, 0xf0005, 0xf0006}
				for nr := range uint32(600) {
					numbers = append(numbers, nr, nr|x32Bit)
				}
				for _, nr := range numbers {
					same(t, p, f, native, audit, nr, [6]uint64{})
				}
				for _, name := range []string{"socket", "personality", "clone", "socketcall", "ipc", "getpid"} {
					for _, arch := range []string{"amd64", "386", "x32", "arm64", "arm"} {
						if nr, ok := Number(arch, name); ok {
							for _, v := range corners {
								same(t, p, f, native, audit, uint32(nr), [6]uint64{v, 1, 2})
							}
						}
					}
				}
			}
		}
	}
}

var (
	someValues = []uint64{0, 1, 5, 255, 0xffff, 0xffffffff, 1 << 32, 1<<32 | 1, 5<<32 | 5, 1 << 63, ^uint64(0)}
	someOps    = []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	someActions = []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap,
		specs.ActTrace, specs.ActLog}
)

func randomProfile(r *rand.Rand) *specs.LinuxSeccomp {
	action := func() (specs.LinuxSeccompAction, *uint) {
		a := someActions[r.IntN(len(someActions))]
		if (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			return a, errno(uint(r.IntN(40)))
		}
		return a, nil
	}
	p := &specs.LinuxSeccomp{}
	p.DefaultAction, p.DefaultErrnoRet = action()
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X,
		specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchPPC64LE, specs.ArchRISCV64, specs.ArchLOONGARCH64} {
		if r.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	few := []string{"socket", "socketcall", "accept", "shmat", "ipc", "clone", "personality", "no_such_call", "openat2", "read"}
	for range r.IntN(30) {
		var s specs.LinuxSyscall
		s.Action, s.ErrnoRet = action()
		for range 1 + r.IntN(3) {
			if r.IntN(2) == 0 {
				s.Names = append(s.Names, few[r.IntN(len(few))])
			} else {
				s.Names = append(s.Names, calls[r.IntN(len(calls))].name)
			}
		}
		for range r.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: someValues[r.IntN(len(someValues))],
				ValueTwo: someValues[r.IntN(len(someValues))], Op: someOps[r.IntN(len(someOps))]})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func TestRandomProfiles(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 150 {
		p, native := randomProfile(r), []string{"amd64", "arm64"}[r.IntN(2)]
		f, err := Compile(p, native)
		if err != nil {
			t.Fatal(err)
		}
		valid(t, f)
		var numbers []uint32
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				for _, arch := range []string{"amd64", "386", "x32", "arm64", "arm", "mipsle", "ppc64le"} {
					if nr, ok := Number(arch, name); ok {
						numbers = append(numbers, uint32(nr), uint32(nr)+1)
					}
				}
			}
		}
		numbers = append(numbers, 0, 102, 117, 999, x32Bit, x32Bit+999, 1<<31, 0xffffffff)
		for _, audit := range audits(native) {
			for _, nr := range numbers {
				for range 3 {
					var args [6]uint64
					for i := range args {
						args[i] = someValues[r.IntN(len(someValues))]
					}
					same(t, p, f, native, audit, nr, args)
				}
			}
		}
	}
}

// TestLongJumps: a profile whose halves are much further apart than a conditional jump reaches.
func TestLongJumps(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range calls {
		if i%3 == 0 {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{calls[i].name}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: uint64(i), Op: specs.OpGreaterThan}, {Index: 1, Value: 7 << 32, Op: specs.OpLessEqual}}})
		}
	}
	f, err := Compile(p, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	valid(t, f)
	if len(f.Insns) < 1000 {
		t.Fatalf("only %d instructions: no long jump tried", len(f.Insns))
	}
	for nr := range uint32(500) {
		for _, v := range []uint64{0, 100, 1000, 1 << 40} {
			same(t, p, f, "amd64", AuditAMD64, nr, [6]uint64{v, v})
		}
	}
}

// FuzzCompile: whatever a profile says, its filter is one that the kernel takes, and means what the evaluator says.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`), uint8(0), uint32(0), uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32","SCMP_ARCH_PPC64LE"],"syscalls":[
{"names":["socket","ipc","shmat"],"action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":0,"value":1,"valueTwo":5,"op":"SCMP_CMP_MASKED_EQ"},{"index":5,"value":4294967296,"op":"SCMP_CMP_LE"}]},
{"names":["socket"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":2,"op":"SCMP_CMP_NE"},{"index":1,"value":3,"op":"SCMP_CMP_GT"}]}]}`), uint8(1), uint32(102), uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/a","listenerMetadata":"b","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}`), uint8(9), uint32(1<<31), ^uint64(0))
	f.Fuzz(func(t *testing.T, profile []byte, which uint8, nr uint32, arg uint64) {
		var p specs.LinuxSeccomp
		if json.Unmarshal(profile, &p) != nil {
			return
		}
		native := []string{"amd64", "arm64"}[which&1]
		flt, err := Compile(&p, native)
		if err != nil {
			return
		}
		valid(t, flt)
		if len(flt.Insns) > maxInsns || len(flt.Insns) == 0 {
			t.Fatalf("%d instructions", len(flt.Insns))
		}
		if flt.Notify != (flt.Flags&flagNewListener != 0) || flt.Flags&FlagWaitKillableRecv != 0 && !flt.Notify {
			t.Fatalf("flags %#x", flt.Flags)
		}
		list := audits(native)
		same(t, &p, flt, native, list[int(which>>1)%len(list)], nr, [6]uint64{arg, arg, arg >> 32, arg << 32, arg + 1, ^arg})
	})
}

// FuzzParse: a profile of Docker's format is read or refused, and what was read is stable.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8","caps":["CAP_CHOWN"]},"excludes":{"arches":["arm"]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := Host{Arch: "amd64", Caps: []string{"CAP_CHOWN"}, Major: 5, Minor: 4}
		p, err := Parse(data, h)
		if err != nil || p == nil || p.DefaultAction == "" {
			return
		}
		if flt, err := Compile(p, "amd64"); err == nil {
			valid(t, flt)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text, h) // the spec's own format is Docker's without conditions
		if err != nil || again == nil {
			t.Fatalf("%s: %v", text, err)
		}
		if second, _ := json.Marshal(again); string(second) != string(text) {
			t.Fatalf("%s\nthen %s", text, second)
		}
	})
}
