package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// The functions of this file make no more system calls than their work needs: package os also registers every file with its poller,
// which is eight more, and a container waits for each.

// ErrTooLarge is why Read refuses a file.
var ErrTooLarge = errors.New("larger")

// Read returns a file's content, at most limit bytes; more is ErrTooLarge. Errors are *fs.PathError, as package os has them.
func Read(path string, limit int) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, min(limit, 16<<10)+1)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) > limit {
			return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w than %d bytes", ErrTooLarge, limit)}
		}
	}
}

// ReadRecord is Read for files of /proc that give all they have in one read, as those do that are one record: it does not look for more.
func ReadRecord(path string, limit int) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, limit+1)
	n, err := retry(func() (int, error) { return unix.Read(fd, b) })
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	case n > limit:
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w than %d bytes", ErrTooLarge, limit)}
	}
	return b[:n], nil
}

// Create makes a new file with that content; one that exists is an error. A reader may see it half written.
func Create(path string, content []byte, perm os.FileMode) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, uint32(perm.Perm()))
	})
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	for rest := content; len(rest) > 0 && err == nil; {
		var n int
		if n, err = retry(func() (int, error) { return unix.Write(fd, rest) }); err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		rest = rest[max(n, 0):]
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		unix.Unlink(path)
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// Replace is WriteVolatile without a sync, for files that one goroutine at a time writes; perm is subject to the umask. The temporary
// file is named after the process.
func Replace(path string, content []byte, perm os.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-"+strconv.Itoa(os.Getpid()))
	err := Create(tmp, content, perm)
	if os.IsExist(err) { // of a writer that was killed and had our number
		os.Remove(tmp)
		err = Create(tmp, content, perm)
	}
	if err != nil {
		return err
	}
	if err := unix.Rename(tmp, path); err != nil {
		unix.Unlink(tmp)
		return &fs.PathError{Op: "rename", Path: path, Err: err}
	}
	return nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
