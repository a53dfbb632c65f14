package tarindex

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Names with a meaning of their own (image-spec layer.md, "Whiteouts"; the longer prefix is AUFS' own bookkeeping).
const (
	whiteout     = ".wh."
	whiteoutMeta = ".wh..wh."
	opaque       = ".wh..wh..opq"
)

// builder puts entries into the tree, as unpacking them in order would.
type builder struct {
	limits  Limits
	tree    *tree.Table
	entries int
	foreign int
	meta    int64
	holes   int64
	plain   bool                       // whiteouts mean nothing
	seen    func(h *header, off int64) // for tests; nil otherwise
}

func (b *builder) count(meta int) error {
	b.entries++
	b.meta += int64(meta)
	if b.entries > b.limits.Entries {
		return errdef.New(errdef.InvalidArgument, "tar: more than %d entries", b.limits.Entries)
	}
	if b.meta > b.limits.Meta {
		return errdef.New(errdef.InvalidArgument, "tar: names and attributes exceed %d bytes", b.limits.Meta)
	}
	return nil
}

// add takes one entry whose data would begin at off, and returns how many bytes of data follow it.
func (b *builder) add(h *header, off int64) (size int64, err error) {
	if err := b.count(len(h.name) + len(h.link)); err != nil {
		return 0, err
	}
	if b.seen != nil {
		b.seen(h, off)
	}
	if h.sparse != nil && h.sparse.name != "" {
		h.name = h.sparse.name // path holds GNUSparseFile.PID/NAME then
	}
	mark := whiteout // may stand before a name of 255 bytes
	if b.plain {
		mark = ""
	}
	name, err := tree.CleanMarked(h.name, mark)
	if err != nil {
		return 0, err
	}
	i, size, err := b.inode(h, off)
	if err != nil {
		return 0, err
	}
	if name == "" {
		return size, b.setRoot(i)
	}
	return size, b.place(name, i)
}

func (b *builder) setRoot(i *tree.Inode) error {
	if !i.IsDir() {
		return errdef.New(errdef.InvalidArgument, "tar: the root entry is no directory")
	}
	b.tree.SetRoot(i)
	return nil
}

// place puts i at a clean path that is not the root.
func (b *builder) place(name string, i *tree.Inode) error {
	if b.plain && i.Mode&unix.S_IFMT == unix.S_IFCHR && i.Rdev == 0 {
		return errdef.New(errdef.InvalidArgument, "tar: %.200q is a device 0:0, by which overlayfs hides names: it cannot be made", name)
	}
	if !b.plain {
		if skip, err := reserved(name); skip || err != nil {
			return err
		}
	}
	dir, base, err := b.tree.Parent(name, func() error { return b.count(0) })
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "tar: %.200q: %w", name, err)
	}
	switch hidden, isWhiteout := strings.CutPrefix(base, whiteout); {
	case b.plain:
	case base == opaque:
		b.tree.Opaque(dir)
		return nil
	case isWhiteout:
		if hidden == "" || hidden == "." || hidden == ".." {
			return errdef.New(errdef.InvalidArgument, "tar: whiteout %.200q names nothing", name)
		}
		b.tree.Hide(dir, hidden)
		return nil
	}
	if i.Foreign() {
		return b.hard(dir, name, base, i)
	}
	if i.Mode&unix.S_IFMT == unix.S_IFCHR && i.Rdev == 0 { // overlayfs' own whiteout: it acts as one in any form of layer
		b.tree.Drop(dir, base)
		b.tree.Hide(dir, base)
		return nil
	}
	b.tree.Put(dir, base, i)
	return nil
}

// reserved deals with whiteout names that stand where they mean nothing.
func reserved(name string) (skip bool, err error) {
	if !strings.Contains(name, whiteout) {
		return false, nil
	}
	comps := strings.Split(name, "/")
	for n, c := range comps {
		last := n == len(comps)-1
		switch {
		case !strings.HasPrefix(c, whiteout) || last && c == opaque:
		case strings.HasPrefix(c, whiteoutMeta):
			return true, nil
		case !last:
			return false, errdef.New(errdef.InvalidArgument, "tar: %.200q lies below a whiteout", name)
		}
	}
	return false, nil
}

// hard places a hard link: the same inode when this layer has the target, otherwise a foreign one for tree.Table.Lay to find.
func (b *builder) hard(dir tree.ID, name, base string, i *tree.Inode) error {
	target, err := tree.Clean(i.Link)
	if err != nil {
		return err
	}
	t := b.tree.Lookup(target)
	switch {
	case target == "" || t != 0 && b.tree.Mode(t)&unix.S_IFMT == unix.S_IFDIR:
		return errdef.New(errdef.InvalidArgument, "tar: hard link %.200q points to a directory, %.200q", name, i.Link)
	case t == 0:
		i.Link = target
		b.foreign++
		b.tree.Put(dir, base, i)
	default:
		b.tree.Link(dir, base, t)
	}
	return nil
}

// inode turns a header into an inode; for types that carry no data the size field counts nothing.
func (b *builder) inode(h *header, off int64) (*tree.Inode, int64, error) {
	i := &tree.Inode{Mode: uint32(h.mode & 0o7777), Sec: h.sec, Nsec: h.nsec}
	if h.uid < 0 || h.uid >= 1<<32-1 || h.gid < 0 || h.gid >= 1<<32-1 {
		return nil, 0, errdef.New(errdef.InvalidArgument, "tar: %.100q: owner %d:%d is out of range", h.name, h.uid, h.gid)
	}
	i.UID, i.GID = uint32(h.uid), uint32(h.gid)
	size := int64(0)
	switch h.typ {
	case typeReg, typeRegOld, typeCont, typeSparse:
		size = h.size
		if strings.HasSuffix(h.name, "/") { // how tars of 1979 said "directory"
			i.Mode |= unix.S_IFDIR
			i.Dir = &tree.Dir{Kids: map[string]*tree.Inode{}}
			break
		}
		i.Mode |= unix.S_IFREG
		i.Size, i.Off = size, off
		if h.sparse != nil {
			if err := b.sparse(i, h); err != nil {
				return nil, 0, err
			}
		}
	case typeHard:
		i.Mode, i.Link = 0, h.link
		return i, 0, nil
	case typeSymlink:
		i.Mode = unix.S_IFLNK | 0o777
		i.Link = h.link
		if i.Link == "" || len(i.Link) >= tree.MaxPath || strings.IndexByte(i.Link, 0) >= 0 {
			return nil, 0, errdef.New(errdef.InvalidArgument, "tar: symbolic link %.100q: its text is empty, too long or holds a NUL byte", h.name)
		}
	case typeChar, typeBlock:
		i.Mode |= map[byte]uint32{typeChar: unix.S_IFCHR, typeBlock: unix.S_IFBLK}[h.typ]
		var ok bool
		if i.Rdev, ok = tree.MakeDev(h.major, h.minor); !ok {
			return nil, 0, errdef.New(errdef.InvalidArgument, "tar: device %.100q: number %d:%d is out of range", h.name, h.major, h.minor)
		}
	case typeDir:
		i.Mode |= unix.S_IFDIR
		i.Dir = &tree.Dir{Kids: map[string]*tree.Inode{}}
	case typeFifo:
		i.Mode |= unix.S_IFIFO
	default:
		return nil, 0, errdef.New(errdef.InvalidArgument, "tar: %.100q has the unknown type %q", h.name, h.typ)
	}
	return i, size, b.xattrs(i, h)
}

// sparse gives a file its holes. What an index takes for them (8 bytes a unit) counts like names do, so a small tar cannot ask for a large one.
// What it gives readers beyond its data is bounded, too.
func (b *builder) sparse(i *tree.Inode, h *header) error {
	if err := i.Sparse(h.sparse.size, h.size, h.sparse.extents); err != nil {
		return errdef.New(errdef.InvalidArgument, "tar: %.100q: %w", h.name, err)
	}
	if b.holes += i.Size - h.size; b.holes > b.limits.Holes {
		return errdef.New(errdef.InvalidArgument, "tar: %.100q is a sparse file of %d bytes: the holes exceed %d bytes in all", h.name, i.Size, b.limits.Holes)
	}
	if b.meta += int64(len(i.Map))*16 + i.Size/i.Unit(1<<31)*8; b.meta > b.limits.Meta {
		return errdef.New(errdef.InvalidArgument, "tar: %.100q is a sparse file of %d bytes in units of %d: names, attributes and holes exceed %d bytes", h.name, i.Size, i.Unit(1<<31), b.limits.Meta)
	}
	return nil
}

// MaxXattrs bounds the extended attributes of one object, in bytes; an EROFS inode has room for 256 KiB.
const MaxXattrs = 192 << 10

// xattrs keeps what a mounted layer can show: user, trusted, security, POSIX ACLs. Attributes of overlayfs itself would steer
// the mount instead of describing the file, and are dropped like those of other systems.
func (b *builder) xattrs(i *tree.Inode, h *header) error {
	total := 0
	for _, r := range h.xattrs {
		if !kept(r.key) || strings.HasPrefix(r.key, "user.") && !i.IsReg() && !i.IsDir() { // as xattr(7) has it
			continue
		}
		if len(r.key) > tree.MaxName || len(r.value) > 0xffff {
			return errdef.New(errdef.InvalidArgument, "tar: %.100q: extended attribute %.60q is too large", h.name, r.key)
		}
		total += len(r.key) + len(r.value) + 8
		i.Xattrs = append(i.Xattrs, tree.Xattr{Name: r.key, Value: r.value})
	}
	if total > MaxXattrs {
		return errdef.New(errdef.InvalidArgument, "tar: %.100q: extended attributes exceed %d bytes", h.name, MaxXattrs)
	}
	slices.SortFunc(i.Xattrs, func(x, y tree.Xattr) int { return strings.Compare(x.Name, y.Name) })
	b.meta += int64(total)
	return nil
}

func kept(name string) bool {
	if strings.IndexByte(name, 0) >= 0 || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	for _, p := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, p) && len(name) > len(p) {
			return true
		}
	}
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}
