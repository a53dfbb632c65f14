// Package jail owns the locking in of this process: what it may do afterwards is work below the folders it was given, and little else.
//
// It promises that every thread is locked in when Enter returns nil, and that nothing gets out again: not this process, nor what it executes.
// What the kernel does not know (Landlock before Linux 5.19) is left out, capabilities and the filter of system calls are not. Other processes
// are left to a PID namespace. It must never be entered by a process that has other work.
package jail

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// Keep are the capabilities that writing files with all their attributes takes. That a link is made from a descriptor takes the last one;
// what else it would allow, open_by_handle_at(2), the filter does not.
var Keep = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP, unix.CAP_DAC_READ_SEARCH}

// names are those that the filter is to know of.
var names = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP"}

// What Landlock knows, by its version (landlock(7)).
const (
	refers   = 2 // links and renames from folder to folder are denied before that, whatever the rules say
	cuts     = 3
	networks = 4
	ioctls   = 5
	scopes   = 6

	everything = unix.LANDLOCK_ACCESS_FS_EXECUTE<<13 - 1 // of the first version
)

// rights are the rights over files that a version knows, and those that a folder gets.
func rights(version int) (known, given uint64) {
	known = everything
	if version >= refers {
		known |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= cuts {
		known |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	given = known &^ (unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK)
	if version >= ioctls {
		known |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return known, given
}

// Enter locks this process in: files below these folders, the descriptors it has, the capabilities of Keep, containers' default filter.
func Enter(arch string, folders ...*os.File) error {
	if err := allThreads("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := landlock(folders); err != nil {
		return err
	}
	if err := drop(); err != nil {
		return err
	}
	f, err := seccomp.Compile(seccomp.Default(names), arch)
	if err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	return filter(f)
}
