package probe

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// appArmor asks the module itself: securityfs need not be mounted.
func appArmor() string {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	switch {
	case err != nil:
		return "the kernel has no AppArmor"
	case !strings.HasPrefix(string(b), "Y"):
		return "AppArmor is switched off (kernel command line: lsm=, apparmor=)"
	}
	return ""
}

// seLinux is at work once a policy is loaded: until then every process is labelled "kernel".
func seLinux() string {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &fs) != nil || fs.Type != unix.SELINUX_MAGIC {
		return "SELinux is not enabled (no selinuxfs on /sys/fs/selinux)"
	}
	b, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return answered("read /proc/self/attr/current", err)
	}
	if strings.TrimRight(string(b), "\x00\n") == "kernel" {
		return "SELinux has no policy"
	}
	return ""
}
