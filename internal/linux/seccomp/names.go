package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// Known lists what a profile may say, each list in ascending order.
type Known struct{ Actions, Operators, Architectures, Flags []string }

// Names returns what Compile takes.
func Names() Known {
	return Known{
		Actions: names(specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActLog, specs.ActNotify,
			specs.ActTrace, specs.ActTrap),
		Operators: names(specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan, specs.OpMaskedEqual,
			specs.OpNotEqual),
		Architectures: names(specs.ArchAARCH64, specs.ArchARM, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchMIPS, specs.ArchMIPS64,
			specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchPPC,
			specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchRISCV64, specs.ArchS390, specs.ArchS390X, specs.ArchSH, specs.ArchSHEB, specs.ArchX32,
			specs.ArchX86, specs.ArchX86_64),
		Flags: names(specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, flagNameTsync, specs.LinuxSeccompFlagWaitKillableRecv),
	}
}

// Supported returns the flags that a kernel of this version takes; dhow runs on none that lacks the others.
func Supported(major, minor int) []string {
	if major > 5 || major == 5 && minor >= 19 {
		return Names().Flags
	}
	return names(specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, flagNameTsync)
}

// flagNameTsync is not in the spec's list, but in profiles.
const flagNameTsync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

func names[T ~string](list ...T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}
