// Package probe answers what this kernel can do: one table of features, each asked of the kernel when somebody wants to know.
//
// It promises that a probe is cheap (some system calls), changes nothing and leaves nothing open, and that an absent feature comes with
// the reason, for a test's skip or an error. It must never decide what to do about it, and keeps no answers: callers do.
package probe

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Feature is a row of the table.
type Feature int

// The features.
const (
	Root            Feature = iota // effective uid 0
	NewMountAPI                    // fsopen, fsmount, move_mount, open_tree (5.2)
	MountSetattr                   // idmapped and recursively read-only mounts (5.12)
	Openat2                        // RESOLVE_IN_ROOT (5.6)
	CloneIntoCgroup                // clone3 with CLONE_INTO_CGROUP (5.7)
	Pidfd                          // pidfd_open (5.3)
	ErofsFile                      // EROFS images mounted from a plain file (6.12)
	Overlay                        // overlayfs
	OverlayDetached                // overlay layers given as descriptors of detached mounts (6.15)
	CgroupV2                       // the unified hierarchy, mounted somewhere
	CgroupKill                     // cgroup.kill (5.14)
	TimeNamespace                  // CLONE_NEWTIME (5.6)
	Nftables                       // nf_tables over netlink
	AppArmor                       // the security module, switched on
	SELinux                        // the same, with a policy loaded
	numFeatures
)

type row struct {
	name string
	// why returns the reason the feature is absent, "" if it is there.
	why func() string
}

func rowOf(f Feature) row {
	return [numFeatures]row{
		Root:            {"root", root},
		NewMountAPI:     {"new mount API", fsopen},
		MountSetattr:    {"mount_setattr", mountSetattr},
		Openat2:         {"openat2", openat2},
		CloneIntoCgroup: {"clone3 into a cgroup", all(since(5, 7), cgroup2)},
		Pidfd:           {"pidfd", pidfd},
		ErofsFile:       {"EROFS from a file", all(since(6, 12), filesystem("erofs"))},
		Overlay:         {"overlayfs", filesystem("overlay")},
		OverlayDetached: {"overlay on detached mounts", all(since(6, 15), filesystem("overlay"))},
		CgroupV2:        {"cgroup v2", cgroup2},
		CgroupKill:      {"cgroup.kill", all(since(5, 14), cgroup2)},
		TimeNamespace:   {"time namespace", timeNamespace},
		Nftables:        {"nftables", nftables},
		AppArmor:        {"AppArmor", appArmor},
		SELinux:         {"SELinux", seLinux},
	}[f]
}

func (f Feature) String() string {
	if f < 0 || f >= numFeatures {
		return fmt.Sprintf("feature %d", int(f))
	}
	return rowOf(f).name
}

// All lists the features.
func All() []Feature {
	fs := make([]Feature, numFeatures)
	for i := range fs {
		fs[i] = Feature(i)
	}
	return fs
}

// Has reports whether the kernel (and our rights) offer f.
func Has(f Feature) bool { return WhyNot(f) == "" }

// WhyNot returns why f is not to be had, as a sentence that begins with its name; "" if it is.
func WhyNot(f Feature) string {
	if f < 0 || f >= numFeatures {
		return f.String() + ": unknown"
	}
	r := rowOf(f)
	if why := r.why(); why != "" {
		return r.name + ": " + why
	}
	return ""
}

// Kernel returns the version of the running kernel, (0, 0) if it can't be told.
func Kernel() (major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, 0
	}
	return parseRelease(unix.ByteSliceToString(u.Release[:]))
}

func parseRelease(release string) (major, minor int) {
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return 0, 0
	}
	return major, minor
}

func since(major, minor int) func() string {
	return func() string {
		a, b := Kernel()
		if a > major || a == major && b >= minor {
			return ""
		}
		return fmt.Sprintf("needs Linux %d.%d, this is %d.%d", major, minor, a, b)
	}
}

func all(checks ...func() string) func() string {
	return func() string {
		for _, c := range checks {
			if why := c(); why != "" {
				return why
			}
		}
		return ""
	}
}

// answered turns the result of a call made to see whether it exists into a reason.
func answered(call string, err error) string {
	if err == unix.ENOSYS {
		return "the kernel, or a seccomp filter, has no " + call
	}
	return ""
}

func root() string {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Sprintf("running as uid %d", uid)
	}
	return ""
}

func fsopen() string {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return answered("fsopen", err)
}

func mountSetattr() string {
	return answered("mount_setattr", unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}))
}

func openat2() string {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return answered("openat2", err)
}

func pidfd() string {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		unix.Close(fd)
	}
	return answered("pidfd_open", err)
}

func timeNamespace() string {
	if _, err := os.Lstat("/proc/self/ns/time"); err != nil {
		return "no /proc/self/ns/time; the kernel lacks CONFIG_TIME_NS"
	}
	return ""
}

// filesystem looks a filesystem up in /proc/filesystems; a module not loaded yet is not listed there, but fsopen loads it.
func filesystem(name string) func() string {
	return func() string {
		b, err := os.ReadFile("/proc/filesystems")
		if err != nil {
			return err.Error()
		}
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); len(f) > 0 && f[len(f)-1] == name {
				return ""
			}
		}
		fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
		if err != nil {
			return fmt.Sprintf("%s is not in /proc/filesystems and fsopen says: %v", name, err)
		}
		unix.Close(fd)
		return ""
	}
}

func cgroup2() string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error()
	}
	if !bytes.Contains(b, []byte(" - cgroup2 ")) {
		return "no cgroup2 filesystem is mounted"
	}
	return ""
}
