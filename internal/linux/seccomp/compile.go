package seccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// rule is one profile entry's action under conditions that must all hold; without conditions it always applies.
type rule struct {
	ret   uint32
	conds []specs.LinuxSeccompArg
}

// compiler holds what is known of a profile while its filter is made.
type compiler struct {
	def    uint32 // the answer where no rule applies
	native int    // column
	on     [columns]bool
	rules  []rule
	// named are the (number<<32 | rule) pairs per architecture; top is the highest number any rule names, -1 if none does.
	named [columns][]uint64
	top   [columns]int64
	// used says that a rule answers with RetUserNotif.
	used bool
}

// Compile makes the filter of a profile for a native architecture ("amd64", "386", "arm64", "arm"). Errors are of kind
// InvalidArgument and name the field below linux.seccomp.
//
// As runc and libseccomp do: rules of one call are alternatives, in order of compareRules where they contradict each other; conditions in a rule must all hold, unless two
// of them look at one argument, then each condition is a rule of its own; a rule without conditions beats all others of its call;
// a rule that answers what the default answers is dropped; names unknown to the architecture are skipped; the native architecture
// is always filtered, others when listed; on 32-bit ones and x32 the low halves of arguments are compared; on i386 (and PowerPC, MIPS) a rule for a
// socket or IPC call is also one for its number in socketcall or ipc, without a condition on the first argument; where the default is a refusal,
// numbers above all the profile names answer ENOSYS, so that a libc falls back. No flags at all means SPEC_ALLOW.
// Otherwise than they: a call of an architecture that is not filtered kills the process, not only the thread; the version in ipc's first
// argument is no part of the number; a rule that refuses socketcall or ipc counts though the default refuses them too.
func Compile(p *specs.LinuxSeccomp, arch string) (*Filter, error) {
	native, ok := columnOf(arch)
	if !ok || native != colAMD64 && native != colI386 && native != colARM64 && native != colARM {
		return nil, invalid("seccomp: no system call table for architecture %q", arch)
	}
	c := &compiler{native: native, rules: make([]rule, 0, len(p.Syscalls)+32)}
	c.on[native] = true
	for i := range c.top {
		c.top[i] = -1
	}
	for i, a := range p.Architectures {
		column, known := columnOfSpec(a)
		if !known {
			return nil, invalid("architectures[%d]: unknown architecture %q", i, a)
		}
		if column >= 0 {
			c.on[column] = true
		}
	}
	for column := range c.named {
		if c.on[column] {
			c.named[column] = make([]uint64, 0, len(calls))
		}
	}
	var err error
	if c.def, err = answer(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return nil, invalid("defaultAction: %w", err)
	}
	c.used = c.def == RetUserNotif
	for i := range p.Syscalls {
		if err := c.add(&p.Syscalls[i]); err != nil {
			return nil, invalid("syscalls[%d]: %w", i, err)
		}
	}
	flags, err := c.flags(p.Flags)
	if err != nil {
		return nil, err
	}
	if c.used && p.ListenerPath == "" { // without SCMP_ACT_NOTIFY a listenerPath has no meaning
		return nil, invalid("listenerPath: missing, but SCMP_ACT_NOTIFY is used")
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		return nil, invalid("listenerMetadata: set without listenerPath")
	}
	insns := c.generate()
	if len(insns) > maxInsns { // without those that the native kernel cannot run
		for column := range c.on {
			c.on[column] = c.on[column] && familyOf(column) == familyOf(native)
		}
		insns = c.generate()
	}
	if len(insns) > maxInsns {
		return nil, invalid("the profile needs %d instructions, the kernel allows %d: use fewer rules", len(insns), maxInsns)
	}
	return &Filter{Insns: insns, Flags: flags, Notify: c.used, native: native}, nil
}

// columnOfSpec maps an architecture's name in the spec; -1 for one without a table: big-endian ones, whose arguments lie the other way round
// in what a filter sees, and two without numbers in golang.org/x/sys. No kernel of ours makes their calls; if it did, they would kill.
func columnOfSpec(a specs.Arch) (int, bool) {
	switch a {
	case specs.ArchX86_64:
		return colAMD64, true
	case specs.ArchX86:
		return colI386, true
	case specs.ArchX32:
		return colX32, true
	case specs.ArchAARCH64:
		return colARM64, true
	case specs.ArchARM:
		return colARM, true
	case specs.ArchMIPSEL:
		return colMIPSEL, true
	case specs.ArchMIPSEL64:
		return colMIPSEL64, true
	case specs.ArchPPC64LE:
		return colPPC64LE, true
	case specs.ArchRISCV64:
		return colRISCV64, true
	case specs.ArchLOONGARCH64:
		return colLOONG64, true
	case specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return -1, true
	}
	return 0, false
}

// familyOf groups what one kernel runs.
func familyOf(column int) int {
	switch column {
	case colAMD64, colI386, colX32:
		return colAMD64
	case colARM64, colARM:
		return colARM64
	}
	return column
}

// answer is the return value for an action.
func answer(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(eperm)
	if errnoRet != nil {
		if a != specs.ActErrno && a != specs.ActTrace {
			return 0, invalid("errnoRet has no meaning with action %q", a)
		}
		if *errnoRet > 0xffff {
			return 0, invalid("errnoRet %d does not fit 16 bits", *errnoRet)
		}
		data = uint32(*errnoRet)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return RetKillThread, nil
	case specs.ActKillProcess:
		return RetKillProcess, nil
	case specs.ActTrap:
		return RetTrap, nil
	case specs.ActErrno:
		return RetErrno | data, nil
	case specs.ActTrace:
		return RetTrace | data, nil
	case specs.ActAllow:
		return RetAllow, nil
	case specs.ActLog:
		return RetLog, nil
	case specs.ActNotify:
		return RetUserNotif, nil
	}
	return 0, invalid("unknown action %q", a)
}

func (c *compiler) flags(flags []specs.LinuxSeccompFlag) (uint32, error) {
	if flags == nil {
		flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow}
	}
	var bits uint32
	for i, f := range flags {
		switch f {
		case flagNameTsync:
			bits |= flagTsync
		case specs.LinuxSeccompFlagLog:
			bits |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if c.used { // the kernel refuses it without a listener, where it has no meaning
				bits |= FlagWaitKillableRecv
			}
		default:
			return 0, invalid("flags[%d]: unknown flag %q", i, f)
		}
	}
	if c.used {
		bits |= flagNewListener
		if bits&flagTsync != 0 {
			bits |= flagTsyncEsrch // the kernel wants both or neither
		}
	}
	return bits, nil
}

// add takes in one entry of the profile.
func (c *compiler) add(s *specs.LinuxSyscall) error {
	if len(s.Names) == 0 {
		return invalid("names: none given")
	}
	ret, err := answer(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	for i, a := range s.Args {
		if err := checkArg(a); err != nil {
			return invalid("args[%d]: %w", i, err)
		}
	}
	first := len(c.rules)
	switch {
	case ret == c.def: // needs no rule, but its names still say what the profile's author knew
	case repeats(s.Args):
		for i := range s.Args {
			c.rules = append(c.rules, rule{ret: ret, conds: s.Args[i : i+1]})
		}
	default:
		c.rules = append(c.rules, rule{ret: ret, conds: s.Args})
	}
	if ret == RetUserNotif {
		c.used = true
	}
	end := len(c.rules) // below, multiplexed adds rules that are not of these names
	for _, name := range s.Names {
		if row := find(name); row != nil {
			c.name(row, first, end)
		}
		c.multiplexed(name, ret, first, end, len(s.Args) == 0)
	}
	return nil
}

// name ties the rules [first, end) to a call on every filtered architecture that has it.
func (c *compiler) name(row *call, first, end int) {
	for column, nr := range row.nr {
		if nr >= 0 && c.on[column] {
			c.top[column] = max(c.top[column], int64(nr))
		}
	}
	for r := first; r < end; r++ {
		c.tie(row, r)
	}
}

// tie does so for one rule, without saying that the profile names the call.
func (c *compiler) tie(row *call, r int) {
	for column, nr := range row.nr {
		if nr >= 0 && c.on[column] {
			c.named[column] = append(c.named[column], uint64(nr)<<32|uint64(r))
		}
	}
}

func checkArg(a specs.LinuxSeccompArg) error {
	if a.Index > 5 {
		return invalid("index %d: a system call has arguments 0 to 5", a.Index)
	}
	switch a.Op {
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
		specs.OpMaskedEqual:
		return nil
	}
	return invalid("unknown operator %q", a.Op)
}

func repeats(args []specs.LinuxSeccompArg) bool {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			return true
		}
		seen[a.Index] = true
	}
	return false
}
