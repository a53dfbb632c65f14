// Package rootfs owns what the engine itself reads and writes inside a container's root file system: the user files, the working
// folder, and a new volume's first content.
//
// It promises to reach everything through one handle on a detached mount, so that no link of the image leads out of it. It must
// never run anything found there.
package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/container/passwd"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// Root is a container's root file system.
type Root struct{ r *safepath.Root }

// New takes a detached mount, which it then owns.
func New(f *os.File) *Root { return &Root{r: safepath.FromFile(f)} }

// Close lets the mount go.
func (r *Root) Close() error { return r.r.Close() }

// Inside is the root file system of a running container as its process sees it, without what is mounted in it, detached and read-only.
func Inside(pidfd *os.File) (*os.File, error) { return mount.RootOf(pidfd) }

// User finds who user is by the container's own files; absent files mean that only numbers are known.
func (r *Root) User(user string, extra []string) (passwd.User, error) {
	people, err := r.read("/etc/passwd")
	if err != nil {
		return passwd.User{}, err
	}
	groups, err := r.read("/etc/group")
	if err != nil {
		return passwd.User{}, err
	}
	return passwd.Resolve(user, extra, people, groups)
}

func (r *Root) read(p string) (io.Reader, error) {
	b, err := r.r.ReadFile(p, passwd.Limit)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "read the container's %s: %w", p, err)
	}
	return bytes.NewReader(b), nil
}

// MakeDir makes the folder p and what is missing above it, as Docker does for a working folder.
func (r *Root) MakeDir(p string) error {
	h, err := r.r.MkdirAll(p, 0o755)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "make the working folder %s in the container: %w", p, err)
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return errdef.New(errdef.InvalidArgument, "working folder %s: the image has a file of that name", p)
	}
	return nil
}

// CopyTo copies what lies at p into the empty host folder to, a volume's, with owners, modes and times. It does nothing when p
// is absent or no folder, or when the folder to has content.
func (r *Root) CopyTo(p, to string) error {
	src, err := r.r.Open(p, syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy %s into the volume: %w", p, err)
	}
	dst, err := safepath.OpenRoot(to)
	if err != nil {
		src.Close()
		return fmt.Errorf("copy %s into the volume: %w", p, err)
	}
	defer dst.Close()
	from := safepath.FromFile(src)
	defer from.Close()
	if old, err := names(dst, "/"); err != nil || len(old) > 0 {
		return err
	}
	c := copier{from: from, to: dst}
	if err := c.dir("/", 0); err != nil {
		return fmt.Errorf("copy %s into the volume: %w", p, err)
	}
	return nil
}

// copier copies one tree that nobody else changes meanwhile: the container has not started and the volume is new.
type copier struct{ from, to *safepath.Root }

const maxDepth = 1000

func names(r *safepath.Root, p string) ([]string, error) {
	d, err := r.Open(p, syscall.O_DIRECTORY|syscall.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (c copier) dir(p string, depth int) error {
	if depth > maxDepth {
		return errdef.New(errdef.InvalidArgument, "folders nested deeper than %d", maxDepth)
	}
	list, err := names(c.from, p)
	if err != nil {
		return err
	}
	for _, n := range list {
		if err := c.entry(path.Join(p, n), depth); err != nil {
			return err
		}
	}
	return c.attributes(p)
}

func (c copier) entry(p string, depth int) error {
	st, err := c.from.Lstat(p)
	if err != nil {
		return err
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		if err := c.to.Mkdir(p, 0o700); err != nil {
			return err
		}
		return c.dir(p, depth+1)
	case syscall.S_IFREG:
		if err := c.file(p); err != nil {
			return err
		}
	case syscall.S_IFLNK:
		text, err := c.from.Readlink(p)
		if err != nil {
			return err
		}
		if err := c.to.Symlink(text, p); err != nil {
			return err
		}
		return c.to.Lchown(p, st.Uid, st.Gid)
	case syscall.S_IFIFO:
		if err := c.to.Mknod(p, syscall.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	default: // devices and sockets mean nothing in a volume
		return nil
	}
	return c.attributes(p)
}

func (c copier) file(p string) error {
	in, err := c.from.Open(p, syscall.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.to.Create(p, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// attributes makes p in the copy look like p in the original; owner first, because chown clears setuid bits.
func (c copier) attributes(p string) error {
	from, err := c.from.Handle(p, false)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := c.to.Handle(p, false)
	if err != nil {
		return err
	}
	defer to.Close()
	st, err := safepath.Stat(from)
	if err != nil {
		return err
	}
	if err := safepath.Chown(to, st.Uid, st.Gid); err != nil {
		return err
	}
	if err := safepath.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return safepath.Chtimes(to, int64(st.Mtim.Sec), int64(st.Mtim.Nsec))
}
