package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// Filling is the trade that a program which calls Fill with apart gives to jail.Main: it copies one folder into another.
func Filling() jail.Trade {
	return jail.Trade{Word: word, Do: func(w jail.Work) error {
		return copier{from: safepath.FromFile(w.Folders[0]), to: safepath.FromFile(w.Folders[1]), links: map[inode]string{}}.dir("/", 0)
	}}
}

const word = "fill-volume-in-jail"

// mostMemory is what that process may have: the names of a folder with a million entries.
const mostMemory = 512 << 20

// Fill copies what lies at p into the empty host folder to, a volume's, with owners, modes, times, extended attributes, hard links and holes.
// What an error has left of it is removed. It does nothing when p is absent or no folder, or when the folder to has content. apart has a process do it that is locked in, and goes on when this one dies;
// nothing acts on the root's mount from then on, and nothing is changed through it.
func (r *Root) Fill(ctx context.Context, p, to string, apart bool) error {
	if err := r.fill(ctx, p, to, apart); err != nil {
		return fmt.Errorf("copy %s into the volume: %w", p, err)
	}
	return nil
}

func (r *Root) fill(ctx context.Context, p, to string, apart bool) (err error) {
	src, err := r.r.Open(p, syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	from := safepath.FromFile(src)
	defer from.Close()
	out, err := jail.Inert(to, false)
	if err != nil {
		return err
	}
	dst := safepath.FromFile(out)
	defer dst.Close()
	old, err := names(dst, "/")
	if err != nil || len(old) > 0 {
		return err
	}
	defer func() {
		if err != nil {
			left, _ := names(dst, "/")
			for _, n := range left {
				_ = dst.RemoveAll(n)
			}
		}
	}()
	c := copier{from: from, to: dst, links: map[inode]string{}}
	some, err := names(from, "/")
	switch {
	case err != nil:
		return err
	case len(some) == 0: // most volumes that images name
		return c.attributes("/")
	case !apart:
		return c.dir("/", 0)
	}
	if err := mount.SetAttr(r.r.File(), false, mount.Attr{Set: mount.Inert | unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return jail.Job{Word: word, Folders: []*os.File{src, out}, Memory: mostMemory, Outlives: true}.Run(ctx)
}

// copier copies one tree that nobody else changes meanwhile: the container has not started and the volume is new.
type copier struct {
	from, to *safepath.Root
	links    map[inode]string // files of several names, by the first
}

type inode struct{ dev, ino uint64 }

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
		if st.Nlink > 1 {
			key := inode{st.Dev, st.Ino}
			if first, ok := c.links[key]; ok {
				return c.to.Link(first, p)
			}
			c.links[key] = p
		}
		if err := c.file(p, st.Size); err != nil {
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

func (c copier) file(p string, size int64) error {
	in, err := c.from.Open(p, syscall.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.to.Create(p, 0o600)
	if err != nil {
		return err
	}
	err = pieces(out, in)
	if err == nil {
		err = out.Truncate(size)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// pieces copies what is between the holes of a file.
func pieces(out, in *os.File) error {
	for end := int64(0); ; {
		at, err := in.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err == nil {
			end, err = in.Seek(at, unix.SEEK_HOLE)
		}
		if err == nil {
			_, err = in.Seek(at, io.SeekStart)
		}
		if err == nil {
			_, err = out.Seek(at, io.SeekStart)
		}
		if err == nil {
			_, err = io.CopyN(out, in, end-at)
		}
		if err != nil {
			return err
		}
	}
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
	if err := xattrs(from, to); err != nil {
		return err
	}
	return safepath.Chtimes(to, int64(st.Mtim.Sec), int64(st.Mtim.Nsec))
}

// xattrs copies those that mean something in a volume: a user's, capabilities, access control lists.
func xattrs(from, to *os.File) error {
	all, err := safepath.Listxattr(from)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range all {
		user := strings.HasPrefix(n, "user.") && !strings.HasPrefix(n, "user.overlay.")
		if !user && n != "security.capability" && !strings.HasPrefix(n, "system.posix_acl_") {
			continue
		}
		v, err := safepath.Getxattr(from, n)
		if err == nil {
			err = safepath.Setxattr(to, n, v)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) { // a file system without them
			return err
		}
	}
	return nil
}
