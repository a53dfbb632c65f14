package safepath

import (
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The functions below work on a handle of any kind, O_PATH included, and on the object itself: a symbolic link is not followed.

// Stat is fstat(2).
func Stat(h *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(h.Fd()), &st); err != nil {
		return st, &fs.PathError{Op: "fstat", Path: h.Name(), Err: err}
	}
	return st, nil
}

// Chown sets owner and group.
func Chown(h *os.File, uid, gid uint32) error {
	// int conversion keeps the 32 bits on 64-bit systems; 2^32-1 would mean "leave" and is refused by the caller's own check.
	if err := unix.Fchownat(int(h.Fd()), "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: h.Name(), Err: err}
	}
	return nil
}

// Chmod sets permission, setuid, setgid and sticky bits. Symbolic links have none (EOPNOTSUPP).
func Chmod(h *os.File, mode uint32) error {
	if err := unix.Fchmodat(unix.AT_FDCWD, ProcPath(h), mode, 0); err != nil {
		return &fs.PathError{Op: "chmod", Path: h.Name(), Err: err}
	}
	return nil
}

// Chtimes sets the modification time; the access time becomes the same.
func Chtimes(h *os.File, sec, nsec int64) error {
	ts := []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	if err := unix.UtimesNanoAt(int(h.Fd()), "", ts, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "utimensat", Path: h.Name(), Err: err}
	}
	return nil
}

// MaxXattr bounds the values that Getxattr returns (the kernel's own XATTR_SIZE_MAX).
const MaxXattr = 64 << 10

// Setxattr sets an extended attribute.
func Setxattr(h *os.File, name string, value []byte) error {
	if err := unix.Setxattr(ProcPath(h), name, value, 0); err != nil {
		return &fs.PathError{Op: "setxattr " + name, Path: h.Name(), Err: err}
	}
	return nil
}

// Removexattr removes an extended attribute.
func Removexattr(h *os.File, name string) error {
	if err := unix.Removexattr(ProcPath(h), name); err != nil {
		return &fs.PathError{Op: "removexattr " + name, Path: h.Name(), Err: err}
	}
	return nil
}

// Getxattr returns an extended attribute; an absent one is ENODATA.
func Getxattr(h *os.File, name string) ([]byte, error) {
	buf := make([]byte, MaxXattr)
	n, err := unix.Getxattr(ProcPath(h), name, buf)
	if err != nil {
		return nil, &fs.PathError{Op: "getxattr " + name, Path: h.Name(), Err: err}
	}
	return buf[:n], nil
}

// Listxattr returns the names of the extended attributes.
func Listxattr(h *os.File) ([]string, error) {
	buf := make([]byte, MaxXattr)
	n, err := unix.Listxattr(ProcPath(h), buf)
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: h.Name(), Err: err}
	}
	if n == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}
