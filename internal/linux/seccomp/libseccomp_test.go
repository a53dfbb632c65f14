package seccomp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// reference is a process that makes filters by libseccomp (testdata/libseccomp.c).
type reference struct {
	t     *testing.T
	in    io.Writer
	out   *bufio.Reader
	known map[string][]int // numbers by libseccomp's architectures, in the order of refArchs
}

// refArchs are the architectures that libseccomp.c knows by index.
var refArchs = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchMIPSEL,
	specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC64LE, specs.ArchRISCV64}

func newReference(t *testing.T) *reference {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc (Debian package gcc): libseccomp cannot be asked")
	}
	if _, err := os.Stat("/usr/include/seccomp.h"); err != nil {
		t.Skip("no /usr/include/seccomp.h (Debian package libseccomp-dev): libseccomp cannot be asked")
	}
	bin := filepath.Join(t.TempDir(), "reference")
	if out, err := exec.Command(gcc, "-O1", "-o", bin, "testdata/libseccomp.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("compile libseccomp.c: %v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("libseccomp.c: %v", err)
		}
	})
	return &reference{t: t, in: in, out: bufio.NewReader(out), known: map[string][]int{}}
}

func (r *reference) line() []string {
	r.t.Helper()
	l, err := r.out.ReadString('\n')
	if err != nil {
		r.t.Fatalf("libseccomp.c: %v", err)
	}
	return strings.Fields(l)
}

// numbers asks for a name's numbers; nil for one that libseccomp does not know.
func (r *reference) numbers(name string) []int {
	r.t.Helper()
	if n, ok := r.known[name]; ok {
		return n
	}
	fmt.Fprintf(r.in, "name %s\n", name)
	var out []int
	some := false
	for _, w := range r.line()[1:] {
		n := 0
		fmt.Sscan(w, &n)
		some = some || n != -1
		out = append(out, n)
	}
	if !some {
		out = nil
	}
	r.known[name] = out
	return out
}

// compile makes the filter as runc does: entry by entry, name by name; what answers as the default does is left out; a rule that looks at one
// argument twice becomes one rule for each condition. refused is the number of rules that libseccomp did not take.
func (r *reference) compile(p *specs.LinuxSeccomp) (f *Filter, refused int) {
	r.t.Helper()
	def, err := answer(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "filter %d\n", def)
	for _, a := range p.Architectures {
		fmt.Fprintf(&b, "arch %d\n", slices.Index(refArchs, a))
	}
	for _, s := range p.Syscalls {
		ret, err := answer(s.Action, s.ErrnoRet)
		if err != nil {
			r.t.Fatal(err)
		}
		if ret == def {
			continue
		}
		for _, name := range s.Names {
			if r.numbers(name) == nil {
				continue
			}
			sets := [][]specs.LinuxSeccompArg{s.Args}
			if repeats(s.Args) {
				sets = nil
				for i := range s.Args {
					sets = append(sets, s.Args[i:i+1])
				}
			}
			for _, args := range sets {
				fmt.Fprintf(&b, "rule %d %s %d", ret, name, len(args))
				for _, a := range args {
					fmt.Fprintf(&b, " %d %d %d %d", a.Index, 1+slices.Index(refOps, a.Op), a.Value, a.ValueTwo)
				}
				b.WriteByte('\n')
			}
		}
	}
	b.WriteString("end\n")
	if _, err := io.WriteString(r.in, b.String()); err != nil {
		r.t.Fatal(err)
	}
	f = &Filter{}
	for {
		w := r.line()
		switch w[0] {
		case "error":
			refused++
		case "insn":
			var i Insn
			fmt.Sscan(strings.Join(w[1:], " "), &i.Code, &i.Jt, &i.Jf, &i.K)
			f.Insns = append(f.Insns, i)
		case "end":
			return f, refused
		}
	}
}

// refOps are enum scmp_compare from 1 on.
var refOps = []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
	specs.OpGreaterThan, specs.OpMaskedEqual}

// tops are the highest numbers that a profile names, by architecture: above them runc answers ENOSYS where the default refuses.
func (r *reference) tops(p *specs.LinuxSeccomp) map[specs.Arch]int {
	tops := map[specs.Arch]int{}
	for i, a := range refArchs {
		tops[a] = -1
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				n := r.numbers(name)
				if n == nil {
					continue
				}
				tops[a] = max(tops[a], n[i])
				if direct, ok := Number(goOf(a), name); ok && n[i] < -1 && n[i] > -1000 { // libseccomp tells the multiplexed number only
					tops[a] = max(tops[a], direct)
				}
			}
		}
	}
	return tops
}

// goOf is Go's name of an architecture.
func goOf(a specs.Arch) string {
	column, known := columnOfSpec(a)
	if !known || column < 0 {
		return ""
	}
	return goArch(column)
}

// patched is what libseccomp's filter answers with runc's addition.
func patched(p *specs.LinuxSeccomp, f *Filter, tops map[specs.Arch]int, audit, nr uint32, args [6]uint64) uint32 {
	arch := map[uint32]specs.Arch{AuditAMD64: specs.ArchX86_64, AuditI386: specs.ArchX86, AuditARM64: specs.ArchAARCH64, AuditARM: specs.ArchARM,
		auditMIPSEL: specs.ArchMIPSEL, auditMIPSEL64: specs.ArchMIPSEL64, auditPPC64LE: specs.ArchPPC64LE, auditRISCV64: specs.ArchRISCV64}[audit]
	if arch == specs.ArchX86_64 && nr&x32Bit != 0 {
		arch = specs.ArchX32
	}
	on := arch == specs.ArchX86_64 || slices.Contains(p.Architectures, arch)
	if def, _ := answer(p.DefaultAction, p.DefaultErrnoRet); on && refuses(def) && tops[arch] >= 0 && int64(nr) > int64(tops[arch]) {
		return RetErrno | enosys
	}
	return f.Simulate(int(nr), audit, args)
}

// agree compares two filters of one profile, -1 where there is nothing to compare with: every number on every architecture, with arguments around the profile's own values.
func (r *reference) agree(p *specs.LinuxSeccomp, rnd *rand.Rand) (differences int) {
	n, _ := r.differences(p, rnd)
	return n
}

// differences also tells of the first.
func (r *reference) differences(p *specs.LinuxSeccomp, rnd *rand.Rand) (differences int, report string) {
	r.t.Helper()
	ours, err := Compile(p, "amd64")
	if err != nil {
		r.t.Fatal(err)
	}
	valid(r.t, ours)
	theirs, refused := r.compile(p)
	if refused > 0 || !sane(theirs) {
		return -1, ""
	}
	tops := r.tops(p)
	values := []uint64{0, 1, 1 << 31, 1 << 32, ^uint64(0)}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				values = append(values, v, v+1, v-1, v^1<<32, v&0xffffffff, v|1<<63)
			}
		}
	}
	conditional := map[uint32]bool{102: true, 117: true, 4102: true, 4117: true}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			for _, n := range r.numbers(name) {
				conditional[uint32(n)] = conditional[uint32(n)] || len(s.Args) > 0
			}
		}
	}
	check := func(audit, nr uint32, args [6]uint64) {
		if conditional[nr] && !slices.Contains([]uint32{AuditAMD64, AuditI386, AuditARM64, AuditARM}, audit) {
			return // elsewhere only numbers are compared; no kernel of ours makes these calls
		}
		if audit == AuditI386 && nr == 117 || audit == auditPPC64LE && nr == 117 || audit == auditMIPSEL && nr == 4117 { // ipc: libseccomp does not know that the upper half is a version
			args[0] &= 0xffff
		}
		got, want := ours.Simulate(int(nr), audit, args), patched(p, theirs, tops, audit, nr, args)
		if got != want {
			if differences++; differences == 1 {
				report = fmt.Sprintf("%#x %d %#x = %#x, libseccomp says %#x\n%s", audit, nr, args, got, want, r.about(p, nr))
			}
		}
	}
	few := map[uint32]bool{}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			for _, n := range r.numbers(name) {
				if n >= 0 {
					few[uint32(n)] = true
				}
			}
		}
	}
	few[102], few[117], few[4102], few[4117] = true, true, true, true
	for _, audit := range []uint32{AuditAMD64, AuditI386, AuditARM64, AuditARM, auditMIPSEL, auditMIPSEL64, auditPPC64LE, auditRISCV64, 0, 0xdead} {
		base := map[uint32]uint32{auditMIPSEL: 4000, auditMIPSEL64: 5000}[audit]
		for nr := range uint32(600) {
			check(audit, nr+base, [6]uint64{})
			check(audit, nr|x32Bit, [6]uint64{1, 1, 1, 1, 1, 1})
		}
		for _, nr := range []uint32{983041, 983042, 983045, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			check(audit, nr, [6]uint64{})
		}
		for nr := range few {
			for range 20 {
				var args [6]uint64
				for i := range args {
					args[i] = values[rnd.IntN(len(values))]
				}
				if rnd.IntN(3) == 0 { // numbers of socketcall and ipc
					args[0] = uint64(rnd.IntN(26))
				}
				check(audit, nr, args)
			}
		}
	}
	return differences, report
}

// sane tells whether a filter loads the number before it compares it. With x32 and few rules libseccomp 2.5.4 forgets to, and compares the
// architecture with numbers.
func sane(f *Filter) bool {
	for _, audit := range []uint32{AuditAMD64, AuditI386, AuditARM64, AuditARM} {
		pc := 1
		for f.Insns[pc].Code == opJeq && f.Insns[pc].K > 1<<30 && f.Insns[pc].K&0xffff < 0x200 {
			i := f.Insns[pc]
			if pc++; i.K == audit {
				pc += int(i.Jt)
				break
			}
			pc += int(i.Jf)
		}
		if i := f.Insns[pc]; i.Code != opRet && i.Code != opJa && (i.Code != opLoad || i.K != offNr) {
			return false
		}
	}
	return true
}

// about prints the part of a profile that speaks of a number.
func (r *reference) about(p *specs.LinuxSeccomp, nr uint32) string {
	q := *p
	q.Syscalls = nil
	for _, s := range p.Syscalls {
		if slices.ContainsFunc(s.Names, func(name string) bool {
			mux, _ := subNumber(name)
			return slices.Contains(r.numbers(name), int(nr)) || mux != "" && (nr == 102 || nr == 117)
		}) {
			q.Syscalls = append(q.Syscalls, s)
		}
	}
	text, _ := json.Marshal(q)
	return string(text)
}

// knownTo drops the names that libseccomp does not know: what is newer than it answers as the default there.
func (r *reference) knownTo(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	q := *p
	q.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool {
			// It takes two names for others than the kernel does, on ARM and on PowerPC.
			return r.numbers(name) == nil || name == "sync_file_range2" || name == "sys_debug_setcontext"
		})
		if len(s.Names) > 0 {
			q.Syscalls = append(q.Syscalls, s)
		}
	}
	return &q
}

// TestNumbersAgainstLibseccomp: the numbers of all names that both know.
func TestNumbersAgainstLibseccomp(t *testing.T) {
	r := newReference(t)
	compared := 0
	for i := range calls {
		name := calls[i].name
		theirs := r.numbers(name)
		if theirs == nil {
			continue
		}
		for column, spec := range refArchs {
			arch := goOf(spec)
			if arch == "" {
				continue // MIPS n32: no table
			}
			ours, ok := Number(arch, name)
			switch mux, _ := subNumber(name); {
			case theirs[column] < 0 && !ok:
			case theirs[column] == ours && ok:
				compared++
			case mux != "" && theirs[column] < -100 && theirs[column] > -1000: // it tells the multiplexed number only
			case arch == "arm" && name == "sync_file_range2": // the kernel's second name for arm_sync_file_range
			default:
				t.Errorf("%s on %s: %d, %v; libseccomp says %d", name, arch, ours, ok, theirs[column])
			}
		}
	}
	if compared < 1500 {
		t.Errorf("only %d numbers compared", compared)
	}
}

// TestAgainstLibseccomp: profiles that people use, as libseccomp and runc understand them.
func TestAgainstLibseccomp(t *testing.T) {
	r := newReference(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	profiles := map[string]*specs.LinuxSeccomp{
		"nothing allowed": {DefaultAction: specs.ActErrno},
		"nothing refused": {DefaultAction: specs.ActAllow},
		"default":         Default([]string{"CAP_CHOWN", "CAP_KILL"}),
		"administrator": Default([]string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_SYS_MODULE",
			"CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_RAWIO", "CAP_SYS_NICE"}),
	}
	for _, file := range []string{"/usr/share/containers/seccomp.json"} { // podman's
		data, err := os.ReadFile(file)
		if err != nil {
			t.Logf("no %s here (Debian package golang-github-containers-common)", file)
			continue
		}
		for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_AUDIT_WRITE", "CAP_BPF", "CAP_PERFMON"}} {
			p, err := Parse(data, Host{Arch: "amd64", Caps: caps, Major: 6, Minor: 18})
			if err != nil {
				t.Fatal(err)
			}
			profiles[fmt.Sprint(file, caps)] = p
		}
	}
	for name, p := range profiles {
		if n, first := r.differences(r.knownTo(p), rnd); n != 0 {
			t.Errorf("%s: %d differences: %s", name, n, first)
		}
	}
}

// TestRandomAgainstLibseccomp: profiles whose rules for one call do not contradict each other.
func TestRandomAgainstLibseccomp(t *testing.T) {
	r := newReference(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	n, not := 200, 0
	if testing.Short() {
		n = 50
	}
	for range n {
		switch d, first := r.differences(r.consistent(rnd), rnd); {
		case d < 0:
			not++
		case d > 0:
			t.Fatalf("%d differences: %s", d, first)
		}
	}
	t.Logf("%d profiles, %d more that libseccomp does not take", n-not, not)
	if not > n/4 {
		t.Errorf("%d of %d profiles were not compared", not, n)
	}
}

// consistent makes a profile in which a call has one action; those that i386 multiplexes share theirs.
func (r *reference) consistent(rnd *rand.Rand) *specs.LinuxSeccomp {
	p := randomProfile(rnd)
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return !slices.Contains(refArchs, a) })
	p = r.knownTo(p)
	type act struct {
		a specs.LinuxSeccompAction
		e *uint
	}
	of := map[string]act{}
	var out []specs.LinuxSyscall
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			key := name
			if mux, _ := subNumber(name); mux != "" {
				key = mux
			}
			if _, ok := of[key]; !ok {
				of[key] = act{s.Action, s.ErrnoRet}
			}
			a := of[key]
			out = append(out, specs.LinuxSyscall{Names: []string{name}, Action: a.a, ErrnoRet: a.e, Args: s.Args})
		}
	}
	p.Syscalls = plain(out)
	return p
}

// plain leaves inequalities to calls with one rule. Of several, libseccomp 2.5.4 merges the comparisons of upper halves into one tree and gets
// them wrong: arg0 < 5 or arg1 <= 0xffffffff or arg0 > 0x500000005 holds there for arg0 = 0xffff, arg1 = 0x100000000.
func plain(list []specs.LinuxSyscall) []specs.LinuxSyscall {
	rules := map[string]int{}
	key := func(name string) string {
		if mux, _ := subNumber(name); mux != "" {
			return mux
		}
		return name
	}
	for _, s := range list {
		rules[key(s.Names[0])]++
		if repeats(s.Args) {
			rules[key(s.Names[0])]++
		}
	}
	for i, s := range list {
		if rules[key(s.Names[0])] == 1 {
			continue
		}
		args := slices.Clone(s.Args)
		for k := range args {
			switch args[k].Op {
			case specs.OpEqualTo, specs.OpMaskedEqual:
			default:
				args[k].Op = specs.OpEqualTo
			}
		}
		list[i].Args = args
	}
	return list
}
