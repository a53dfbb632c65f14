package spec

import (
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// defaultCaps are the capabilities that Docker gives an ordinary container.
func defaultCaps() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// knownCaps are the capabilities of Linux 5.9 and later.
func knownCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
		"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// CapNames returns the names of the bits in a mask as /proc/PID/status prints it.
func CapNames(mask uint64) []string {
	var out []string
	for bit, name := range knownCaps() {
		if mask&(1<<bit) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// capName brings a name as users write it to the form CAP_X; "ALL" stays.
func capName(s string) (string, error) {
	n := strings.ToUpper(strings.TrimSpace(s))
	if n == "ALL" || n == "CAP_ALL" {
		return "ALL", nil
	}
	if !strings.HasPrefix(n, "CAP_") {
		n = "CAP_" + n
	}
	if !slices.Contains(knownCaps(), n) {
		return "", errdef.New(errdef.InvalidArgument, "invalid capability %q: see capabilities(7) for the names", s)
	}
	return n, nil
}

func capList(field string, in []string) (set []string, all bool, err error) {
	for i, s := range in {
		n, err := capName(s)
		if err != nil {
			return nil, false, errdef.New(errdef.InvalidArgument, "HostConfig.%s[%d]: %w", field, i, err)
		}
		if n == "ALL" {
			all = true
			continue
		}
		set = append(set, n)
	}
	return set, all, nil
}

// capabilities decides the set: all or Docker's fourteen, less what is dropped, plus what is added.
func (b *builder) capabilities() error {
	h := b.in.Container.HostConfig
	add, addAll, err := capList("CapAdd", h.CapAdd)
	if err != nil {
		return err
	}
	drop, dropAll, err := capList("CapDrop", h.CapDrop)
	if err != nil {
		return err
	}
	have := func(c string) bool { return slices.Contains(b.in.Host.Caps, c) }
	var set []string
	switch {
	case h.Privileged || addAll:
		set = slices.Clone(b.in.Host.Caps)
		set = slices.DeleteFunc(set, func(c string) bool { return !h.Privileged && slices.Contains(drop, c) })
	case dropAll:
	default:
		set = slices.DeleteFunc(defaultCaps(), func(c string) bool { return slices.Contains(drop, c) || !have(c) })
	}
	for _, c := range add {
		if !have(c) {
			return errdef.New(errdef.InvalidArgument, "HostConfig.CapAdd: the engine itself lacks %s, so no container can have it", c)
		}
		if !slices.Contains(set, c) {
			set = append(set, c)
		}
	}
	slices.Sort(set)
	if set == nil {
		set = []string{}
	}
	b.caps = set
	b.capsWhy(add, drop, addAll, dropAll)
	return nil
}

func (b *builder) capsWhy(add, drop []string, addAll, dropAll bool) {
	for _, c := range b.caps {
		switch {
		case b.in.Container.HostConfig.Privileged:
			b.because("process.capabilities "+c, "flag --privileged")
		case slices.Contains(add, c):
			b.because("process.capabilities "+c, "flag --cap-add "+strings.TrimPrefix(c, "CAP_"))
		case addAll:
			b.because("process.capabilities "+c, "flag --cap-add ALL")
		default:
			b.because("process.capabilities "+c, Default)
		}
	}
	if dropAll {
		drop = defaultCaps()
	}
	for _, c := range drop {
		if slices.Contains(b.caps, c) {
			continue
		}
		reason := "flag --cap-drop " + strings.TrimPrefix(c, "CAP_")
		if dropAll {
			reason = "flag --cap-drop ALL"
		}
		b.because("process.capabilities -"+c, reason)
	}
}
