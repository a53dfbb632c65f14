package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Param is one parameter of Make: a flag when Value is empty and File nil.
type Param struct {
	Key   string
	Value string
	File  *os.File // FSCONFIG_SET_FD where set
}

// Make is the whole sequence fsopen, fsconfig..., create, fsmount; it returns a detached mount.
func Make(fstype string, attrs int, params ...Param) (*os.File, error) {
	c, err := Open(fstype)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, p := range params {
		switch {
		case p.File != nil:
			err = c.SetFile(p.Key, p.File)
		case p.Value != "":
			err = c.Set(p.Key, p.Value)
		default:
			err = c.Flag(p.Key)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.Create(); err != nil {
		return nil, err
	}
	return c.Mount(attrs)
}

// Clone makes a detached copy of the mount that at (and path below it; "" means at itself) lies on: a bind mount that nobody
// sees. at may be nil for the current folder. path is resolved by the kernel as it stands: give safepath handles instead of
// paths that a container controls.
func Clone(at *os.File, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return tree(at, path, flags)
}

// Handle opens at/path as a mount descriptor without cloning it (the same as O_PATH).
func Handle(at *os.File, path string) (*os.File, error) {
	return tree(at, path, unix.OPEN_TREE_CLOEXEC)
}

func tree(at *os.File, path string, flags uint) (*os.File, error) {
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := retryFd(func() (int, error) { return unix.OpenTree(dirfd(at), path, flags) })
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", name(at, path), err)
	}
	return os.NewFile(uintptr(fd), name(at, path)), nil
}

// Attach puts a detached mount on the object that target refers to: from descriptor to descriptor, no path is resolved.
func Attach(m, target *os.File) error {
	err := retry(func() error {
		return unix.MoveMount(int(m.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
	if err != nil {
		return fmt.Errorf("move_mount %s to %s: %w", m.Name(), target.Name(), err)
	}
	return nil
}

// AttachAt puts a detached mount on a path of the caller's own (not one that a container controls).
func AttachAt(m *os.File, path string) error {
	err := retry(func() error {
		return unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	if err != nil {
		return fmt.Errorf("move_mount %s to %s: %w", m.Name(), path, err)
	}
	return nil
}

// Inert are the attributes of a mount on which nothing acts: devices are not opened, programs not executed, their setuid bits not heeded.
const Inert = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// Attr says what SetAttr changes: MOUNT_ATTR_* bits to set and to clear, a propagation (MS_PRIVATE, MS_SLAVE, ...; 0 leaves it)
// and, for an ID-mapped mount, the user namespace whose map applies (Set must then hold MOUNT_ATTR_IDMAP).
type Attr struct {
	Set, Clear  uint64
	Propagation uint64
	Userns      *os.File
}

// SetAttr changes the attributes of a mount; recursive also those of every mount below.
func SetAttr(m *os.File, recursive bool, a Attr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	ma := unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear, Propagation: a.Propagation}
	if a.Userns != nil {
		ma.Userns_fd = uint64(a.Userns.Fd())
	}
	err := retry(func() error { return unix.MountSetattr(int(m.Fd()), "", flags, &ma) })
	if err != nil {
		return fmt.Errorf("mount_setattr %s (set %#x, clear %#x): %w", m.Name(), a.Set, a.Clear, err)
	}
	return nil
}

// Detach unmounts path lazily and does not follow a symbolic link at its end.
func Detach(path string) error {
	err := retry(func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	if err != nil {
		return fmt.Errorf("umount2 %s: %w", path, err)
	}
	return nil
}

func dirfd(f *os.File) int {
	if f == nil {
		return unix.AT_FDCWD
	}
	return int(f.Fd())
}

func name(at *os.File, path string) string {
	switch {
	case at == nil:
		return path
	case path == "":
		return at.Name()
	}
	return at.Name() + "/" + path
}
