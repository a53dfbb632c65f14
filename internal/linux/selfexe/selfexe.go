// Package selfexe keeps our own executables out of containers' reach.
//
// Between the clone and execve a container's process still has our program as /proc/PID/exe. Who may trace it from inside (CAP_SYS_PTRACE, no
// user namespace) could open that file through the link and, once nobody executes it, write to it: the host's next container would
// run the attacker's program as root (CVE-2019-5736). A program that was executed from a read-only mount of its own cannot be
// opened for writing through any such link.
//
// It promises that the file itself and the host's mounts stay as they are. It must never copy the program.
package selfexe

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ReadOnly returns a program as a mount that nobody else sees and that cannot be written through (open_tree(2), mount_setattr(2); Linux 5.12,
// CAP_SYS_ADMIN). It is executed by Path. The descriptor is CLOEXEC.
func ReadOnly(program string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, program, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", program, err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount_setattr %s: %w", program, err)
	}
	return os.NewFile(uintptr(fd), program), nil
}

// Above gives an open program a descriptor that stays the program's in a child that os.StartProcess makes with these files: there, that moves
// descriptors to the numbers that follow the highest one of theirs. It closes the old one.
func Above(program *os.File, files ...*os.File) (*os.File, error) {
	least := 0
	for _, f := range files {
		least = max(least, int(f.Fd()))
	}
	const pipe = 1 // by which the child tells why it could not execute
	fd, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, max(least, len(files))+1+len(files)+pipe)
	program.Close()
	if err != nil {
		return nil, fmt.Errorf("descriptor for %s: %w", program.Name(), err)
	}
	return os.NewFile(uintptr(fd), program.Name()), nil
}

// Path is by what this process and its children execute an open program.
func Path(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// Reexec returns when this process runs from a read-only mount. Where it does not, the process begins anew from one, with the same arguments,
// environment and inherited descriptors: call it before anything was made or asked.
func Reexec() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &fs); err != nil {
		return fmt.Errorf("statfs /proc/self/exe: %w", err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	f, err := ReadOnly("/proc/self/exe")
	if err != nil {
		return err
	}
	err = unix.Exec(Path(f), os.Args, os.Environ())
	f.Close()
	return fmt.Errorf("execve from a read-only mount: %w", err)
}

// Name sets what ps shows of a process that was executed by Path (prctl(2), PR_SET_NAME); it is for the main thread, at once.
func Name(name string) {
	b := append([]byte(name), 0)
	setName(&b[0])
}
