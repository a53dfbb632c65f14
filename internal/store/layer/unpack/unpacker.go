package unpack

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// unpacker puts a tree into a folder. A tree has no links among its directories, so no path here goes through one; safepath holds it anyway.
type unpacker struct {
	root      *safepath.Root
	from      source
	whiteouts bool
	old       *tree.Inode
	common    int
	stays     map[string]bool // paths that are there already
	paths     []string        // of the inodes made, by Mark
	dirs      []made
}

type made struct {
	path string
	i    *tree.Inode
}

func (u *unpacker) all(root *tree.Inode) error {
	u.stays = map[string]bool{}
	_ = tree.Walk(root, func(_ string, _, i *tree.Inode) error { i.Mark = -1; return nil })
	if u.old != nil {
		p := pruner{u: u, was: map[*tree.Inode]*tree.Inode{}, is: map[*tree.Inode]*tree.Inode{}}
		if err := p.dir("", u.old, root); err != nil {
			return err
		}
	}
	if err := tree.Walk(root, u.entry); err != nil {
		return err
	}
	return u.finish(root)
}

func (u *unpacker) entry(path string, _, i *tree.Inode) error {
	stays := u.stays[path]
	switch {
	case i.Foreign() || stays && !i.IsDir():
		return nil
	case i.Mark >= 0:
		return u.root.Link(u.paths[i.Mark], path)
	}
	i.Mark = len(u.paths)
	u.paths = append(u.paths, path)
	var err error
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		u.dirs = append(u.dirs, made{path, i}) // modes and times come last: children would change them
		if !stays {
			err = u.root.Mkdir(path, 0o700)
		}
		if err != nil || !u.whiteouts {
			return err
		}
		return u.hide(path+"/", i.Dir)
	case unix.S_IFREG:
		return u.file(path, i)
	case unix.S_IFLNK:
		err = u.root.Symlink(i.Link, path)
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		major, minor := tree.SplitDev(i.Rdev)
		err = u.root.Mknod(path, i.Mode&unix.S_IFMT, unix.Mkdev(major, minor))
	default:
		err = errdef.New(errdef.DataLoss, "%s: mode %o has no type", path, i.Mode)
	}
	if err != nil {
		return err
	}
	h, err := u.root.Handle(path, false)
	if err != nil {
		return err
	}
	defer h.Close()
	return attributes(h, i)
}

// hide makes a directory's whiteouts; its opaqueness is an attribute, see barred.
func (u *unpacker) hide(prefix string, d *tree.Dir) error {
	for _, n := range d.Hidden() {
		if d.Kids[n] != nil {
			continue
		}
		if err := u.root.Mknod(prefix+n, unix.S_IFCHR, 0); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) file(path string, i *tree.Inode) error {
	f, err := u.root.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := u.from.fill(f, path, i); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return attributes(f, i)
}

// finish settles the directories, deepest first, and the root.
func (u *unpacker) finish(root *tree.Inode) error {
	if u.whiteouts {
		if err := u.hide("", root.Dir); err != nil {
			return err
		}
	}
	all := append([]made{{".", root}}, u.dirs...)
	for n := len(all) - 1; n >= 0; n-- {
		h, err := u.root.Handle(all[n].path, false)
		if err != nil {
			return err
		}
		if u.old != nil {
			err = bare(h)
		}
		if err == nil {
			err = attributes(h, all[n].i)
		}
		h.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// bare takes a directory's extended attributes away: they may be another tree's.
func bare(h *os.File) error {
	names, err := safepath.Listxattr(h)
	for _, n := range names {
		if !isBarred(n) && err == nil { // those are gone already, or labels, which are the host's
			err = safepath.Removexattr(h, n)
		}
	}
	return err
}

// attributes sets everything but the contents and what is barred. The owner comes first, since changing it drops setuid bits and capabilities.
func attributes(h *os.File, i *tree.Inode) error {
	if err := safepath.Chown(h, i.UID, i.GID); err != nil {
		return err
	}
	if !i.IsLink() {
		if err := safepath.Chmod(h, i.Mode&0o7777); err != nil {
			return err
		}
	}
	for _, x := range i.Xattrs {
		if isBarred(x.Name) {
			continue
		}
		if err := safepath.Setxattr(h, x.Name, []byte(x.Value)); err != nil {
			return err
		}
	}
	return safepath.Chtimes(h, i.Sec, int64(i.Nsec))
}
