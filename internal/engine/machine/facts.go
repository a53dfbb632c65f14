package machine

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/engine/apparmor"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/linux/probe"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// AppArmorLacks tells why containers get no default AppArmor profile; "": they do.
func AppArmorLacks() string {
	_, why := apparmor.Usable()
	return why
}

// LoadProfile returns what loads the default AppArmor profile.
func LoadProfile() func() error { return new(apparmor.Loader).Ensure }

// facts reads what spec.Build has to know of the machine and of this process.
func facts(t Tree) (spec.Host, error) {
	h := spec.Host{NCPU: runtime.NumCPU(), CgroupV2: t.V2(), SwapLimit: t.Swap(), Seccomp: seccomp.Default, SeccompProfile: seccompProfile, Rlimits: map[string]uint64{}}
	h.AppArmor = apparmor.Enabled()
	h.AppArmorProfile, _ = apparmor.Usable()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return h, fmt.Errorf("read own capabilities: %w", err)
	}
	for _, l := range strings.Split(string(status), "\n") {
		if v, ok := strings.CutPrefix(l, "CapPrm:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return h, fmt.Errorf("read own capabilities: %w", err)
			}
			h.Caps = spec.CapNames(mask)
		}
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return h, err
	}
	if h.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(score))); err != nil {
		return h, fmt.Errorf("read own OOM score: %w", err)
	}
	// The numbers of getrlimit(2), the same on amd64 and arm64.
	for i, name := range []string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		var r syscall.Rlimit
		if err := syscall.Getrlimit(i, &r); err == nil {
			h.Rlimits["RLIMIT_"+name] = r.Max
		}
	}
	return h, nil
}

// seccompProfile reads a profile in Docker's format for a process with these capabilities here, and tries whether it compiles: who creates
// a container shall hear of a mistake, not who starts it.
func seccompProfile(profile []byte, caps []string) (*specs.LinuxSeccomp, error) {
	h := seccomp.Host{Arch: runtime.GOARCH, Caps: caps}
	h.Major, h.Minor = probe.Kernel()
	p, err := seccomp.Parse(profile, h)
	if err != nil || p == nil {
		return nil, err
	}
	_, err = seccomp.Compile(p, h.Arch)
	return p, err
}
