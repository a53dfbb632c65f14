package facts

import (
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// Seccomp is the seccomp part of what a runtime tells of itself (runtime-spec, features-linux.md, Seccomp), for the running kernel.
func Seccomp() *features.Seccomp {
	yes, k := true, seccomp.Names()
	return &features.Seccomp{Enabled: &yes, Actions: k.Actions, Operators: k.Operators, Archs: k.Architectures, KnownFlags: k.Flags,
		SupportedFlags: seccomp.Supported(probe.Kernel())}
}
