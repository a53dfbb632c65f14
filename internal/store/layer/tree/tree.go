// Package tree owns what a layer says: a tree of inodes, names, whiteouts and where each file's bytes lie.
//
// It promises that names in a tree are plain (no slash, no NUL, not "." or "..", at most 255 bytes), that a hard link is the same
// *Inode (or ID) under several names, and that Lay has the semantics of OCI image layers. It must never touch a file system.
package tree

import (
	"sort"

	"golang.org/x/sys/unix"
)

// Inode is one object of a layer. Which fields mean something follows from the type bits of Mode.
type Inode struct {
	Mode     uint32 // S_IF* and permission bits; 0 is a foreign hard link, see Link
	UID, GID uint32
	Sec      int64 // modification time, seconds and nanoseconds
	Nsec     uint32
	Rdev     uint32   // devices: the kernel's 32-bit encoding, see MakeDev
	Dev      uint16   // regular files: index of the layer whose tar holds the bytes, 0 is the lowest
	Size     int64    // regular files: bytes
	Off      int64    // regular files: offset of the bytes in the tar, a multiple of 512
	Map      []Extent // sparse files: where there is data, in order; nil: everywhere
	Link     string   // symbolic links: the text; foreign hard links: the clean path of a file in a lower layer
	Xattrs   []Xattr
	Dir      *Dir // directories
	Mark     int  // for writers: their own number, -1 or 0 before
}

// Dir is what only directories have.
type Dir struct {
	Kids      map[string]*Inode
	Whiteouts map[string]struct{} // names hidden in lower layers
	Opaque    bool                // nothing of lower layers shows
	Implicit  bool                // never named by the tar: a lower layer's attributes stay
}

// Xattr is one extended attribute, by its full name.
type Xattr struct{ Name, Value string }

// Limits of names, as the kernel has them.
const (
	MaxName  = 255
	MaxPath  = 4096
	MaxLinks = 40 // symbolic links followed in one path
)

// NewDir returns an empty implicit directory: root's, mode 0755, modified at the epoch.
func NewDir() *Inode {
	return &Inode{Mode: unix.S_IFDIR | 0o755, Dir: &Dir{Kids: map[string]*Inode{}, Implicit: true}}
}

// IsDir, IsReg and IsLink tell the types that matter here; Foreign is a hard link whose target is in a lower layer.
func (i *Inode) IsDir() bool   { return i.Mode&unix.S_IFMT == unix.S_IFDIR }
func (i *Inode) IsReg() bool   { return i.Mode&unix.S_IFMT == unix.S_IFREG }
func (i *Inode) IsLink() bool  { return i.Mode&unix.S_IFMT == unix.S_IFLNK }
func (i *Inode) Foreign() bool { return i.Mode == 0 }

// Names returns the names in a directory in byte order.
func (d *Dir) Names() []string {
	names := make([]string, 0, len(d.Kids))
	for n := range d.Kids {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Hide records a whiteout.
func (d *Dir) Hide(name string) {
	if d.Whiteouts == nil {
		d.Whiteouts = map[string]struct{}{}
	}
	d.Whiteouts[name] = struct{}{}
}

// Hidden returns the whiteouts in byte order.
func (d *Dir) Hidden() []string {
	names := make([]string, 0, len(d.Whiteouts))
	for n := range d.Whiteouts {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// MakeDev encodes a device number as the kernel stores it in 32 bits; ok is false when it does not fit (12 and 20 bits).
func MakeDev(major, minor int64) (dev uint32, ok bool) {
	if major < 0 || major >= 1<<12 || minor < 0 || minor >= 1<<20 {
		return 0, false
	}
	return uint32(minor&0xff | major<<8 | (minor&^0xff)<<12), true
}

// SplitDev is the inverse of MakeDev.
func SplitDev(dev uint32) (major, minor uint32) {
	return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00
}

// Walk calls f for every name below dir, parents first and in byte order; path has no leading slash. The root itself is not
// visited. Recursion is as deep as the tree, which MaxPath bounds.
func Walk(dir *Inode, f func(path string, parent, i *Inode) error) error {
	return walk("", dir, f)
}

func walk(prefix string, dir *Inode, f func(string, *Inode, *Inode) error) error {
	for _, n := range dir.Dir.Names() {
		i := dir.Dir.Kids[n]
		if err := f(prefix+n, dir, i); err != nil {
			return err
		}
		if i.IsDir() {
			if err := walk(prefix+n+"/", i, f); err != nil {
				return err
			}
		}
	}
	return nil
}
