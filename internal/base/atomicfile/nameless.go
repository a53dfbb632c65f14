package atomicfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Nameless makes a file in dir that is gone when it is closed, also by a crash.
func Nameless(dir, title string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), title), nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR {
		return nil, &os.PathError{Op: "make a temporary file in", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, "."+title+"-") // a file system without such files
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
