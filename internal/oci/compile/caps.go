package compile

import (
	"strconv"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
)

// capNames is indexed by capability number (capabilities(7), include/uapi/linux/capability.h).
func capNames() []string {
	return []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
		"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
		"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
		"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON",
		"CAP_BPF", "CAP_CHECKPOINT_RESTORE"}
}

// CapNumber returns the number of a capability by its name with the CAP_ prefix, or -1.
func CapNumber(name string) int {
	for i, n := range capNames() {
		if n == name {
			return i
		}
	}
	return -1
}

// CapName returns the name of a capability.
func CapName(nr int) string {
	if n := capNames(); nr >= 0 && nr < len(n) {
		return n[nr]
	}
	return "CAP_" + strconv.Itoa(nr)
}

// inUserNamespace tells whether the process runs in a user namespace that is not ours.
func (c *compiler) inUserNamespace() bool {
	return c.ns.user || c.ns.enters || c.exec&u.CLONE_NEWUSER != 0
}
