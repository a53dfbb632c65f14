package jail

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// allThreads makes a call by which a thread confines itself in every one.
func allThreads(what string, nr, a, b, c uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall(nr, a, b, c); e != 0 {
		return fmt.Errorf("%s: %w", what, e)
	}
	return nil
}

// landlock allows files below so many folders and no others, and no network.
func landlock(folders int) error {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e == unix.ENOSYS || e == unix.EOPNOTSUPP || e == 0 && v < refers {
		return nil
	}
	known, given := rights(int(v))
	set := struct{ fs, net, scoped uint64 }{fs: known}
	size := uintptr(8)
	if v >= networks {
		set.net, size = unix.LANDLOCK_ACCESS_NET_BIND_TCP|unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, 16
	}
	if v >= scopes {
		set.scoped, size = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, 24 // signals: before 6.14 threads could not reach each other
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&set)), size, 0)
	if e != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	defer unix.Close(int(fd))
	for n := range folders {
		rule := struct { // packed
			rights uint64
			parent int32
		}{given, int32(firstFD + n)}
		if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); e != 0 {
			return fmt.Errorf("landlock_add_rule: %w", e)
		}
	}
	return allThreads("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
}

// drop gives up every capability but those of kept, for good.
func drop() error {
	var keep uint64
	for _, c := range kept {
		keep |= 1 << c
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := allThreads("drop a capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); err != nil && c <= unix.CAP_AUDIT_READ {
			return err // newer ones may be unknown
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: uint32(keep), Permitted: uint32(keep)}, {Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)}}
	return allThreads("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data)), 0)
}

// load gives every thread the filter.
func load(f *seccomp.Filter) error {
	code := f.Bytes()
	prog := struct {
		n      uint16
		filter unsafe.Pointer
	}{uint16(len(f.Insns)), unsafe.Pointer(&code[0])}
	thread, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags)|unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case e != 0:
		return fmt.Errorf("seccomp: %w", e)
	case thread != 0: // no errno: the thread that cannot follow, and none has the filter
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}
