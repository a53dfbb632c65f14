// Package extract owns the laying of a tar's tree over folders that a container controls and may change meanwhile.
//
// It promises that everything is made by name in a folder that is held open, so that no link made or moved meanwhile leads anything
// out of the container's root; that what a tar does not mention stays; and that no node is ever opened. It must never look at a path of the
// host's, nor take a name that the tree does not hold.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Options say how; the zero value keeps owners and replaces whatever is in the way.
type Options struct {
	Owner     *Owner // who gets everything; nil: whom the tar names
	KeepKinds bool   // a folder is replaced by nothing but a folder, and the other way round
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Target is where a tree goes.
type Target struct {
	Root *safepath.Root // the container's
	Dir  *os.File       // a handle of the folder
	Path string         // of Dir in Root, for links that lead through the tree's folders
}

// Into lays what is below root over a folder. Contents are read from data by their offsets. The folder's own attributes stay. An error
// leaves what was made until then.
func Into(ctx context.Context, t Target, root *tree.Inode, data io.ReaderAt, o Options) error {
	x := &extractor{ctx: ctx, t: t, data: data, o: o, made: map[*tree.Inode]place{}, buf: make([]byte, 1<<20)}
	_ = tree.Walk(root, func(_ string, _, i *tree.Inode) error { i.Mark = 0; return nil })
	_ = tree.Walk(root, func(_ string, _, i *tree.Inode) error { i.Mark++; return nil })
	return x.folder(t.Dir, "", root, 0)
}

type extractor struct {
	ctx  context.Context
	t    Target
	data io.ReaderAt
	o    Options
	made map[*tree.Inode]place // inodes with several names, by the first
	buf  []byte
}

// place is where an inode was made, and what it then was.
type place struct {
	name     string
	dev, ino uint64
}

func (x *extractor) folder(dir *os.File, prefix string, i *tree.Inode, depth int) error {
	if depth > pack.MaxDepth {
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", prefix, pack.MaxDepth)
	}
	for _, n := range i.Dir.Names() {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if err := x.entry(dir, prefix, n, i.Dir.Kids[n], depth); err != nil {
			return err
		}
	}
	return nil
}

func (x *extractor) entry(dir *os.File, prefix, name string, i *tree.Inode, depth int) error {
	full := pack.Join(prefix, name)
	err := x.object(dir, full, name, i, depth)
	switch {
	case err == nil || errdef.KindOf(err) != errdef.System:
		return err
	case errors.Is(err, unix.EROFS):
		return errdef.New(errdef.Forbidden, "%s lies in a read-only mount", x.inside(full))
	case errors.Is(err, unix.EBUSY):
		return errdef.New(errdef.Conflict, "%s is a mount point in the container and cannot be replaced", x.inside(full))
	}
	return fmt.Errorf("%s: %w", x.inside(full), err)
}

func (x *extractor) inside(name string) string { return path.Join(x.t.Path, name) }

// object makes one entry of an open folder.
func (x *extractor) object(dir *os.File, full, name string, i *tree.Inode, depth int) error {
	at := safepath.FromFile(dir) // not closed: the folder is its owner's
	if i.IsDir() {
		h, err := x.enter(at, full, name, i)
		if err != nil {
			return err
		}
		defer h.Close()
		if err := x.folder(h, full, i, depth+1); err != nil || i.Dir.Implicit {
			return err
		}
		return x.attributes(h, i)
	}
	if err := x.clear(at, full, name, false); err != nil {
		return err
	}
	if first, again := x.made[i]; again {
		return x.again(at, name, first)
	}
	if i.Foreign() {
		return x.foreign(at, name, i.Link)
	}
	h, err := x.make(at, name, i)
	if err != nil {
		return err
	}
	defer h.Close()
	if i.Mark > 1 {
		st, err := safepath.Stat(h)
		if err != nil {
			return err
		}
		x.made[i] = place{full, uint64(st.Dev), st.Ino}
	}
	return x.attributes(h, i)
}

// enter opens a folder, which it makes where there is none. A link in place of a folder that the tar only implies is followed.
func (x *extractor) enter(at *safepath.Root, full, name string, i *tree.Inode) (*os.File, error) {
	h, st, err := pack.Open(at.File(), name)
	if err == nil {
		switch kind := st.Mode & unix.S_IFMT; {
		case kind == unix.S_IFDIR:
			return h, nil
		case kind == unix.S_IFLNK && i.Dir.Implicit:
			h.Close()
			h, err := x.t.Root.Open(x.inside(full), unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				return nil, errdef.New(errdef.InvalidArgument, "%s: a link that leads to no folder: %w", x.inside(full), err)
			}
			return h, nil
		}
		h.Close()
		if err := x.clear(at, full, name, true); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	mode := uint32(0o700)
	if i.Dir.Implicit {
		mode = 0o755
	}
	if err := at.Mkdir(name, mode); err != nil {
		return nil, err
	}
	h, err = at.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil && i.Dir.Implicit {
		if err = safepath.Chmod(h, mode); err == nil && x.o.Owner != nil {
			err = safepath.Chown(h, x.o.Owner.UID, x.o.Owner.GID)
		}
		if err != nil {
			h.Close()
		}
	}
	return h, err
}

// clear removes what has a name that is needed, if that is allowed.
func (x *extractor) clear(at *safepath.Root, full, name string, forDir bool) error {
	h, st, err := pack.Open(at.File(), name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	h.Close()
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if x.o.KeepKinds && isDir && !forDir {
		return errdef.New(errdef.InvalidArgument, "cannot overwrite directory %q with non-directory %q", x.inside(full), x.t.Path)
	}
	if x.o.KeepKinds && !isDir && forDir {
		return errdef.New(errdef.InvalidArgument, "cannot overwrite non-directory %q with directory %q", x.inside(full), x.t.Path)
	}
	// The kernel lets who is in another mount namespace remove a mount point, and takes away what is mounted there.
	if err := unmounted(at.File(), name, 0); err != nil {
		return err
	}
	return at.RemoveAll(name)
}

// unmounted is EBUSY when an entry, or something in it, is a mount point.
func unmounted(dir *os.File, name string, depth int) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	switch {
	case err == unix.EXDEV:
		return unix.EBUSY
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return &os.PathError{Op: "openat2", Path: name, Err: err}
	case depth > pack.MaxDepth:
		unix.Close(fd)
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", name, pack.MaxDepth)
	}
	h := os.NewFile(uintptr(fd), name)
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	list, err := pack.Names(h)
	if err != nil {
		return err
	}
	for _, n := range list {
		if err := unmounted(h, n, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// again gives an object that this tar made another name; one that was swapped meanwhile is not touched.
func (x *extractor) again(at *safepath.Root, name string, first place) error {
	h, err := safepath.FromFile(x.t.Dir).Handle(first.name, false)
	if err != nil {
		return err
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		return err
	}
	if uint64(st.Dev) != first.dev || st.Ino != first.ino {
		return errdef.New(errdef.Conflict, "%s was replaced while its hard link was made", x.inside(first.name))
	}
	return at.LinkFile(h, name)
}

// foreign makes a hard link to a file that is there already, below the folder that the tar is laid over.
func (x *extractor) foreign(at *safepath.Root, name, target string) error {
	h, err := safepath.FromFile(x.t.Dir).Handle(target, false)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "hard link to %q: %w", target, err)
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errdef.New(errdef.InvalidArgument, "hard link to %q: not a regular file", target)
	}
	return at.LinkFile(h, name)
}

// make makes a new object and returns a handle of it.
func (x *extractor) make(at *safepath.Root, name string, i *tree.Inode) (*os.File, error) {
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return x.file(at, name, i)
	case unix.S_IFLNK:
		if err := at.Symlink(i.Link, name); err != nil {
			return nil, err
		}
	default:
		major, minor := tree.SplitDev(i.Rdev)
		if err := at.Mknod(name, i.Mode&unix.S_IFMT|0o600, unix.Mkdev(major, minor)); err != nil {
			return nil, err
		}
	}
	h, st, err := pack.Open(at.File(), name)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != i.Mode&unix.S_IFMT {
		h.Close()
		return nil, errdef.New(errdef.Conflict, "%s was replaced while it was made", name)
	}
	return h, nil
}

// file makes a regular file. Runs of zeros become holes.
func (x *extractor) file(at *safepath.Root, name string, i *tree.Inode) (_ *os.File, err error) {
	f, err := at.Create(name, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	err = i.Pieces(func(at, off, n int64) error {
		for end := at + n; at < end; {
			if err := x.ctx.Err(); err != nil {
				return err
			}
			b := x.buf[:min(end-at, int64(len(x.buf)))]
			if _, err := x.data.ReadAt(b, off); err != nil {
				return fmt.Errorf("read the tar: %w", err)
			}
			if err := writeHoles(f, b, at); err != nil {
				return err
			}
			at, off = at+int64(len(b)), off+int64(len(b))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, f.Truncate(i.Size)
}

const hole = 4096

func writeHoles(f *os.File, b []byte, off int64) error {
	for at := 0; at < len(b); {
		end := at
		for end < len(b) && !zero(b[end:min(end+hole, len(b))]) {
			end = min(end+hole, len(b))
		}
		if end > at {
			if _, err := f.WriteAt(b[at:end], off+int64(at)); err != nil {
				return err
			}
		}
		at = end + hole // the piece at end, if any, is a hole
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// attributes sets everything but the contents. The owner comes first, since changing it drops setuid bits and capabilities.
func (x *extractor) attributes(h *os.File, i *tree.Inode) error {
	owner := Owner{i.UID, i.GID}
	if x.o.Owner != nil {
		owner = *x.o.Owner
	}
	if err := safepath.Chown(h, owner.UID, owner.GID); err != nil {
		return err
	}
	if !i.IsLink() {
		if err := safepath.Chmod(h, i.Mode&0o7777); err != nil {
			return err
		}
	}
	for _, a := range i.Xattrs {
		if !pack.Kept(a.Name) {
			continue
		}
		if err := safepath.Setxattr(h, a.Name, []byte(a.Value)); err != nil {
			return err
		}
	}
	return safepath.Chtimes(h, i.Sec, int64(i.Nsec))
}
