package safepath

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Create makes a new regular file (O_EXCL: nothing existing is opened, no link followed) and opens it for writing.
func (r *Root) Create(p string, mode uint32) (*os.File, error) {
	dir, base, err := r.Parent(p)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := openRetry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return nil, r.fail("create", p, err)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// Mkdir makes one folder; its parent must exist.
func (r *Root) Mkdir(p string, mode uint32) error {
	return r.at("mkdir", p, func(dir int, base string) error { return unix.Mkdirat(dir, base, mode) })
}

// Symlink makes p a symbolic link with the given text, which is not looked at.
func (r *Root) Symlink(text, p string) error {
	return r.at("symlink", p, func(dir int, base string) error { return unix.Symlinkat(text, dir, base) })
}

// Link makes p a hard link to the object that old names inside the Root; a link at the end of old is linked itself.
func (r *Root) Link(old, p string) error {
	h, err := r.Handle(old, false)
	if err != nil {
		return err
	}
	defer h.Close()
	return r.LinkFile(h, p)
}

// LinkFile makes p a hard link to the object of an O_PATH handle (needs CAP_DAC_READ_SEARCH).
func (r *Root) LinkFile(h *os.File, p string) error {
	return r.at("link", p, func(dir int, base string) error {
		return unix.Linkat(int(h.Fd()), "", dir, base, unix.AT_EMPTY_PATH)
	})
}

// Mknod makes a device, FIFO or socket node; mode holds the type bits, dev is unix.Mkdev's.
func (r *Root) Mknod(p string, mode uint32, dev uint64) error {
	return r.at("mknod", p, func(d int, base string) error { return unix.Mknodat(d, base, mode, int(dev)) })
}

// Remove removes one entry: a file, link, node or empty folder.
func (r *Root) Remove(p string) error {
	return r.at("remove", p, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == unix.EISDIR {
			return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
		}
		return err
	})
}

// RemoveAll removes p and all below it, following no link. An absent p is no error.
func (r *Root) RemoveAll(p string) error {
	dir, base, err := r.Parent(p)
	if err != nil {
		return err
	}
	defer dir.Close()
	return removeAt(dir, base, 0)
}

// maxDepth bounds recursion; a path of PATH_MAX holds at most 2,048 components, but trees can be made deeper piece by piece.
const maxDepth = 10000

func removeAt(dir *os.File, base string, depth int) error {
	err := unix.Unlinkat(int(dir.Fd()), base, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	if depth > maxDepth {
		return fmt.Errorf("remove %s: deeper than %d folders", base, maxDepth)
	}
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("remove %s: %w", base, err)
	}
	for _, n := range names {
		if err := removeAt(d, n, depth+1); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove", Path: base, Err: err}
	}
	return nil
}

// Lchown changes owner and group of p itself.
func (r *Root) Lchown(p string, uid, gid uint32) error {
	h, err := r.Handle(p, false)
	if err != nil {
		return err
	}
	defer h.Close()
	return Chown(h, uid, gid)
}

// Readlink returns the text of the symbolic link p.
func (r *Root) Readlink(p string) (string, error) {
	h, err := r.Handle(p, false)
	if err != nil {
		return "", err
	}
	defer h.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(h.Fd()), "", buf)
	if err != nil {
		return "", r.fail("readlink", p, err)
	}
	return string(buf[:n]), nil
}

// Lstat describes p itself.
func (r *Root) Lstat(p string) (unix.Stat_t, error) {
	h, err := r.Handle(p, false)
	if err != nil {
		return unix.Stat_t{}, err
	}
	defer h.Close()
	return Stat(h)
}

func (r *Root) at(op, p string, f func(dir int, base string) error) error {
	dir, base, err := r.Parent(p)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		err := f(int(dir.Fd()), base)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return r.fail(op, p, err)
		}
		return nil
	}
}
