package seccomp

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestNames: what is said to be known is, in order, and each makes a filter.
func TestNames(t *testing.T) {
	k := Names()
	for _, list := range [][]string{k.Actions, k.Operators, k.Architectures, k.Flags} {
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("not sorted: %v", list)
		}
	}
	compile := func(change func(p *specs.LinuxSeccomp)) {
		t.Helper()
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}}}}}
		change(p)
		f, err := Compile(p, "amd64")
		if err != nil {
			t.Error(err)
			return
		}
		valid(t, f)
	}
	for _, v := range k.Actions {
		compile(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.LinuxSeccompAction(v) })
		compile(func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.LinuxSeccompAction(v) })
	}
	for _, v := range k.Operators {
		compile(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.LinuxSeccompOperator(v) })
	}
	for _, v := range k.Architectures {
		compile(func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{specs.Arch(v)} })
	}
	for _, v := range k.Flags {
		compile(func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(v)} })
	}
	if s := Supported(5, 18); slices.Contains(s, string(specs.LinuxSeccompFlagWaitKillableRecv)) || len(s) != 3 || len(Supported(5, 19)) != 4 {
		t.Error(s)
	}
}

// TestRefused: what no filter can be made of.
func TestRefused(t *testing.T) {
	errno, big := uint(1), uint(0x10000)
	many := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range calls {
		for k := range 6 {
			many.Syscalls = append(many.Syscalls, specs.LinuxSyscall{Names: []string{calls[i].name}, Action: specs.ActErrno,
				Args: []specs.LinuxSeccompArg{{Index: uint(k), Value: uint64(i), Op: specs.OpEqualTo}}})
		}
	}
	for want, p := range map[string]*specs.LinuxSeccomp{
		`architectures[1]: unknown architecture "SCMP_ARCH_Z80"`:              {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, "SCMP_ARCH_Z80"}},
		`defaultAction: unknown action "NO"`:                                  {DefaultAction: "NO"},
		`defaultAction: errnoRet has no meaning with action "SCMP_ACT_ALLOW"`: {DefaultAction: specs.ActAllow, DefaultErrnoRet: &errno},
		`flags[0]: unknown flag "X"`:                                          {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		`syscalls[0]: names: none given`:                                      {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActLog}}},
		`syscalls[0]: errnoRet 65536 does not fit 16 bits`:                    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActErrno, ErrnoRet: &big}}},
		`syscalls[0]: args[1]: index 6: a system call has arguments 0 to 5`:   {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo}, {Index: 6, Op: specs.OpEqualTo}}}}},
		`syscalls[0]: args[0]: unknown operator "=="`:                         {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Op: "=="}}}}},
		`instructions, the kernel allows 4096: use fewer rules`:               many,
	} {
		if _, err := Compile(p, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "s390x"); err == nil {
		t.Error("s390x has no table, and makes a filter")
	}
}
