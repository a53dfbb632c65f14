package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RootOf makes a detached, read-only copy of the mount that is the root of a process's mount namespace, without what is mounted below
// it (a clone of the same file system: what the process changes shows). The process is given by its pidfd.
func RootOf(pidfd *os.File) (m *os.File, err error) {
	err = Apart(func() error {
		if err := unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		if m, err = Clone(nil, "/", false); err != nil {
			return err
		}
		err = SetAttr(m, false, Attr{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
		if err != nil {
			m.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// CopyOf makes a detached copy of all mounts of a process's mount namespace, as they are now, but those that are unbindable. The process is
// given by its pidfd.
func CopyOf(pidfd *os.File) (m *os.File, err error) {
	err = Apart(func() error {
		if err := unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		m, err = Clone(nil, "/", true)
		return err
	})
	return m, err
}

// TopOf returns a handle of the root of a process's mount namespace, whatever that process calls its root: paths below it see what is
// mounted in there. The process is given by its pidfd.
func TopOf(pidfd *os.File) (root *os.File, err error) {
	err = Apart(func() error {
		if err := unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the root of a mount namespace: %w", err)
		}
		root = os.NewFile(uintptr(fd), "/")
		return nil
	})
	return root, err
}
