// Package seccomp turns an OCI seccomp profile into the classic BPF program that seccomp(2) loads, and owns dhow's default profile.
//
// It promises that compiling is pure (the same profile and architecture give the same instructions, on any machine), that a number
// is found by binary search, and that what is compiled means what libseccomp and runc make of the same profile; the differences are
// listed at Compile. It must never load a filter or ask the kernel anything: oci/interp does that.
package seccomp

//go:generate go run gen.go

import (
	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Insn is struct sock_filter.
type Insn struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Filter is a compiled profile.
type Filter struct {
	Insns []Insn
	// Flags is the complete second argument of seccomp(SECCOMP_SET_MODE_FILTER, flags, prog).
	Flags uint32
	// Notify says that Flags asks for a listener: the call returns a descriptor.
	Notify bool

	native int // column
}

// Refuses reports whether the filter keeps a process of the native architecture from making a call, whatever its arguments.
func (f *Filter) Refuses(name string) bool {
	return f.always(name, func(ret uint32) bool {
		return ret != RetAllow && ret != RetLog && ret&0xffff0000 != RetUserNotif
	})
}

// Passes reports whether a process of the native architecture may make a call, whatever its arguments, without anybody being asked.
func (f *Filter) Passes(name string) bool {
	return f.always(name, func(ret uint32) bool { return ret == RetAllow || ret == RetLog })
}

// always asks for arguments of nothing, of small numbers, of pointers and of all bits.
func (f *Filter) always(name string, is func(ret uint32) bool) bool {
	row := find(name)
	if row == nil || row.nr[f.native] < 0 {
		return false
	}
	for _, v := range [...]uint64{0, 3, 0x7fff_0000_1000, ^uint64(0)} {
		if !is(f.Simulate(int(row.nr[f.native]), auditOf(f.native), [6]uint64{v, v, v, v, v, v})) {
			return false
		}
	}
	return true
}

// Flags of seccomp(2).
const (
	flagTsync       = 1 << 0
	flagLog         = 1 << 1
	flagSpecAllow   = 1 << 2
	flagNewListener = 1 << 3
	flagTsyncEsrch  = 1 << 4
	// FlagWaitKillableRecv is SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, of Linux 5.19.
	FlagWaitKillableRecv = 1 << 5
)

// Answers of a filter (seccomp(2), "return value"), the high 16 bits; the low ones are data.
const (
	RetKillThread  uint32 = 0x00000000
	RetKillProcess uint32 = 0x80000000
	RetTrap        uint32 = 0x00030000
	RetErrno       uint32 = 0x00050000
	RetUserNotif   uint32 = 0x7fc00000
	RetTrace       uint32 = 0x7ff00000
	RetLog         uint32 = 0x7ffc0000
	RetAllow       uint32 = 0x7fff0000
)

// Errno values; they are the same on every architecture we filter for.
const (
	eperm  = 1
	enosys = 38
)

// AUDIT_ARCH values: what seccomp_data.arch holds.
const (
	AuditAMD64 uint32 = 0xc000003e // x32 too: its numbers have bit 30 set
	AuditI386  uint32 = 0x40000003
	AuditARM64 uint32 = 0xc00000b7
	AuditARM   uint32 = 0x40000028

	auditMIPSEL   uint32 = 0x40000008
	auditMIPSEL64 uint32 = 0xc0000008
	auditPPC64LE  uint32 = 0xc0000015
	auditRISCV64  uint32 = 0xc00000f3
	auditLOONG64  uint32 = 0xc0000102
)

const x32Bit = 0x40000000

// Instruction codes of classic BPF, as many as we use.
const (
	opLoad = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd  = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJa   = 0x05 // BPF_JMP|BPF_JA
	opJeq  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opJgt  = 0x25
	opJge  = 0x35
	opRet  = 0x06 // BPF_RET|BPF_K
)

// Offsets in struct seccomp_data; all our architectures are little-endian.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

const maxInsns = 4096 // BPF_MAXINSNS

// Bytes returns the program as an array of struct sock_filter in memory order (little-endian, as all our architectures are).
func (f *Filter) Bytes() []byte {
	b := make([]byte, 0, 8*len(f.Insns))
	for _, i := range f.Insns {
		b = append(b, byte(i.Code), byte(i.Code>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b
}

// Simulate runs the program as the kernel would for one system call and returns its answer. A program that does something the
// kernel would refuse to load answers RetKillProcess.
func (f *Filter) Simulate(nr int, arch uint32, args [6]uint64) uint32 {
	var a uint32
	for pc := 0; pc < len(f.Insns); pc++ {
		i := f.Insns[pc]
		taken := false
		switch i.Code {
		case opLoad:
			a = load(i.K, uint32(nr), arch, &args)
			continue
		case opAnd:
			a &= i.K
			continue
		case opRet:
			return i.K
		case opJa:
			pc += int(i.K)
			continue
		case opJeq:
			taken = a == i.K
		case opJgt:
			taken = a > i.K
		case opJge:
			taken = a >= i.K
		default:
			return RetKillProcess
		}
		if taken {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return RetKillProcess
}

func load(off, nr, arch uint32, args *[6]uint64) uint32 {
	switch {
	case off == offNr:
		return nr
	case off == offArch:
		return arch
	case off >= offArgs && off < offArgs+48 && off%4 == 0:
		return uint32(args[(off-offArgs)/8] >> (off % 8 * 8))
	}
	return 0
}

// Number returns the number of a system call on an architecture by Go's name ("amd64", "386", ...; "x32"). On x32
// bit 30 is set.
func Number(arch, name string) (int, bool) {
	column, ok := columnOf(arch)
	if !ok {
		return 0, false
	}
	row := find(name)
	if row == nil || row.nr[column] < 0 {
		return 0, false
	}
	return int(row.nr[column]), true
}

// Name returns the name of a number; "" if the table has none.
func Name(arch string, nr int) string {
	column, ok := columnOf(arch)
	if !ok || nr < 0 {
		return ""
	}
	for i := range calls {
		if int(calls[i].nr[column]) == nr {
			return calls[i].name
		}
	}
	return ""
}

// call is one row of the table: its numbers by column, -1 where it does not exist.
type call struct {
	name string
	nr   [columns]int32
}

const (
	colAMD64 = iota
	colI386
	colX32
	colARM64
	colARM
	colMIPSEL
	colMIPSEL64
	colPPC64LE
	colRISCV64
	colLOONG64
	columns
)

func columnOf(arch string) (int, bool) {
	switch arch {
	case "amd64":
		return colAMD64, true
	case "386":
		return colI386, true
	case "x32":
		return colX32, true
	case "arm64":
		return colARM64, true
	case "arm":
		return colARM, true
	case "mipsle":
		return colMIPSEL, true
	case "mips64le":
		return colMIPSEL64, true
	case "ppc64le":
		return colPPC64LE, true
	case "riscv64":
		return colRISCV64, true
	case "loong64":
		return colLOONG64, true
	}
	return 0, false
}

func goArch(column int) string {
	return [columns]string{"amd64", "386", "x32", "arm64", "arm", "mipsle", "mips64le", "ppc64le", "riscv64", "loong64"}[column]
}

// find is a binary search written out: it runs 400 times per profile.
func find(name string) *call {
	lo, hi := 0, len(calls)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if calls[mid].name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(calls) && calls[lo].name == name {
		return &calls[lo]
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errdef.New(errdef.InvalidArgument, format, args...)
}
