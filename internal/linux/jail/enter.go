package jail

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// kept are the capabilities that writing files with all their attributes takes. That a link is made from a descriptor takes the last one;
// what else it would allow, open_by_handle_at(2), the filter does not.
var kept = [...]uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP, unix.CAP_DAC_READ_SEARCH}

// enter locks this process in. It has new namespaces already, and so many descriptors behind the standard ones, of folders first.
func enter(folders, all int, memory int64) error {
	if err := closeOthers(all); err != nil {
		return err
	}
	for fd := firstFD; fd < firstFD+folders; fd++ {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return fmt.Errorf("fstatfs: %w", err)
		}
		if st.Flags&inert != inert {
			return fmt.Errorf("descriptor %d lies in a mount on which devices, setuid bits or programs act", fd)
		}
	}
	if err := limit(all, memory); err != nil {
		return err
	}
	if err := emptyRoot(); err != nil {
		return err
	}
	if err := allThreads("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := landlock(folders); err != nil {
		return err
	}
	if err := drop(); err != nil {
		return err
	}
	f, err := seccomp.Compile(profile(), runtime.GOARCH)
	if err != nil {
		return err
	}
	return load(f)
}

// closeOthers closes what was inherited besides: whoever started the engine may have left it open. Go's runtime has events of its own.
func closeOthers(given int) error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < firstFD+given {
			continue
		}
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(what, "anon_inode:[event") {
			unix.Close(fd)
		}
	}
	return nil
}

// inert is what statfs(2) tells of mounts that Inert makes.
const inert = unix.ST_NODEV | unix.ST_NOSUID | unix.ST_NOEXEC

// nobody is the real user, who counts for the limit of threads and nothing else: the kernel sets root none. All processes of this kind share it.
const nobody = 1<<32 - 16

// Limits of all such processes' threads, and of one's descriptors besides the given: a tree is removed with one for each folder on the way.
const (
	mostThreads = 1 << 10
	mostFiles   = 1 << 12
)

// limit bounds memory (what is written to, not what is reserved), threads and descriptors, and leaves nothing for a core dump.
func limit(given int, memory int64) error {
	for what, most := range map[int]uint64{
		unix.RLIMIT_DATA: uint64(memory), unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_MSGQUEUE: 0, unix.RLIMIT_NPROC: mostThreads,
		unix.RLIMIT_NOFILE: uint64(firstFD + given + mostFiles),
	} {
		var l unix.Rlimit
		err := unix.Getrlimit(what, &l)
		if most < l.Max && err == nil {
			err = unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most})
		}
		if err != nil {
			return fmt.Errorf("setrlimit: %w", err)
		}
	}
	debug.SetMemoryLimit(memory / 4 * 3)
	const same = ^uintptr(0)
	return allThreads("setresuid", unix.SYS_SETRESUID, nobody, same, same)
}

// emptyRoot makes the root a folder with nothing in it but this process's own part of a procfs, by which attributes are set on descriptors,
// and takes all else out of this mount namespace.
func emptyRoot() error {
	top, err := mount.Make("tmpfs", int(mount.Inert), mount.Param{Key: "size", Value: "4k"}, mount.Param{Key: "mode", Value: "0555"})
	if err != nil {
		return err
	}
	defer top.Close()
	proc, err := mount.Make("proc", int(mount.Inert|unix.MOUNT_ATTR_RDONLY), mount.Param{Key: "subset", Value: "pid"})
	if err != nil {
		return err
	}
	defer proc.Close()
	if err := unix.Mkdirat(int(top.Fd()), "proc", 0o555); err != nil {
		return &os.PathError{Op: "mkdir", Path: "proc", Err: err}
	}
	if err := mount.AttachAt(top, "/"); err != nil {
		return err
	}
	if err := unix.Fchdir(int(top.Fd())); err != nil {
		return fmt.Errorf("fchdir: %w", err)
	}
	if err := mount.AttachAt(proc, "proc"); err != nil {
		return err
	}
	switch err := unix.PivotRoot(".", "."); err {
	case nil:
		if err := mount.Detach("."); err != nil {
			return err
		}
	case unix.EINVAL: // the root is the kernel's first one, an initramfs, which cannot be taken away
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
	default:
		return fmt.Errorf("pivot_root: %w", err)
	}
	return mount.SetAttr(top, false, mount.Attr{Set: unix.MOUNT_ATTR_RDONLY})
}

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
