// Package safepath owns every path that an image or a container controls.
//
// It promises that no operation on a Root reaches an object outside of it, whatever symbolic links lie inside and whoever moves
// them meanwhile: a path is resolved once, by openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS) from an O_PATH handle, and what
// is then done is done on the handle. Absolute paths, absolute links and ".." mean the Root's own top, as in a chroot. It must
// never pass such a path to a call that resolves it from the process's root or current folder.
package safepath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Root is a folder that its paths cannot leave. Its methods may be called concurrently, but not after Close.
type Root struct {
	f *os.File // O_PATH|O_DIRECTORY
}

// OpenRoot opens dir, a path of the caller's own, which must be a folder and not a symbolic link.
func OpenRoot(dir string) (*Root, error) {
	fd, err := openRetry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: dir, Err: err}
	}
	return &Root{f: os.NewFile(uintptr(fd), dir)}, nil
}

// FromFile makes a Root of an open folder or detached mount, which it then owns.
func FromFile(f *os.File) *Root { return &Root{f: f} }

// Close closes the handle; objects opened through it stay open.
func (r *Root) Close() error { return r.f.Close() }

// File is the Root's own handle (O_PATH, or what FromFile was given). It must not be closed.
func (r *Root) File() *os.File { return r.f }

// Open opens p with flags (O_CLOEXEC is added, perm is for O_CREAT). The last component is followed unless O_NOFOLLOW is given.
// Opening a FIFO or device named by an image can block or act: give O_NONBLOCK or use Handle and check what it is.
func (r *Root) Open(p string, flags int, perm uint32) (*os.File, error) {
	if strings.IndexByte(p, 0) >= 0 {
		return nil, errdef.New(errdef.InvalidArgument, "open %q: path holds a NUL byte", p)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NOCTTY
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(perm)
	}
	if p == "" || p == "/" {
		p = "."
	}
	fd, err := openRetry(func() (int, error) { return unix.Openat2(int(r.f.Fd()), p, &how) })
	if err != nil {
		return nil, r.fail("openat2", p, err)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// Handle returns an O_PATH handle on p itself: nothing is opened, read or triggered. With follow a link at the end is resolved.
func (r *Root) Handle(p string, follow bool) (*os.File, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	return r.Open(p, flags, 0)
}

// ReadFile reads a regular file of at most limit bytes. Anything else (a FIFO, a device, a larger file) is refused without blocking.
func (r *Root) ReadFile(p string, limit int64) ([]byte, error) {
	f, err := r.Open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errdef.New(errdef.InvalidArgument, "read %s: not a regular file", p)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	if int64(len(b)) > limit {
		return nil, errdef.New(errdef.InvalidArgument, "read %s: larger than %d bytes", p, limit)
	}
	return b, nil
}

// Parent resolves the folder that holds p and returns its handle and p's last component, which is a plain name.
func (r *Root) Parent(p string) (dir *os.File, base string, err error) {
	dirPart, base := path.Split(strings.TrimRight(p, "/"))
	if base == "" || base == "." || base == ".." {
		return nil, "", errdef.New(errdef.InvalidArgument, "path %q: its last component names no entry", p)
	}
	if strings.IndexByte(base, 0) >= 0 {
		return nil, "", errdef.New(errdef.InvalidArgument, "path %q holds a NUL byte", p)
	}
	dir, err = r.Open(dirPart, unix.O_PATH|unix.O_DIRECTORY, 0)
	return dir, base, err
}

// MkdirAll makes p and what is missing above it, each with mode (exactly, whatever the umask), and returns the handle of p.
// Links on the way are resolved inside the Root; a dangling one is an error. ".." is taken lexically.
func (r *Root) MkdirAll(p string, mode uint32) (*os.File, error) {
	cur, err := r.Handle(".", true)
	if err != nil {
		return nil, err
	}
	done := ""
	for _, c := range strings.Split(path.Clean("/" + p)[1:], "/") {
		if c == "" {
			break
		}
		done = path.Join(done, c)
		next, err := r.Open(done, unix.O_PATH|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if err = mkdirAt(cur, c, mode); err == nil {
				next, err = r.Open(done, unix.O_PATH|unix.O_DIRECTORY, 0)
			}
		}
		cur.Close()
		if err != nil {
			return nil, r.fail("mkdir", done, err)
		}
		cur = next
	}
	return cur, nil
}

func mkdirAt(dir *os.File, name string, mode uint32) error {
	err := unix.Mkdirat(int(dir.Fd()), name, mode)
	if err == unix.EEXIST { // somebody else made it, or it is a dangling link: the reopening tells
		return nil
	}
	if err != nil {
		return err
	}
	// The umask may have taken bits away. A name swapped in between is not followed.
	h, err := openRetry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(h), name)
	defer f.Close()
	return Chmod(f, mode)
}

func (r *Root) fail(op, p string, err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return &fs.PathError{Op: op, Path: r.f.Name() + " : " + p, Err: e}
	}
	return err
}

// openRetry retries interrupted calls, and those where openat2 saw a concurrent rename (EAGAIN), a bounded number of times.
func openRetry(f func() (int, error)) (int, error) {
	for again := 0; ; {
		fd, err := f()
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < 128:
			again++
		default:
			return fd, err
		}
	}
}

// ProcPath is the path by which a call that takes no descriptor reaches the object of f: /proc/self/fd/N. It must not be
// used by a thread that has left the host's mount namespace.
func ProcPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
