package tarindex

import (
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Entry is one object of a layer as a table of contents tells it, in the words of a tar's header (Type is its type flag).
type Entry struct {
	Type         byte
	Name, Link   string
	Mode         int64
	UID, GID     int64
	Size         int64
	Sec          int64
	Nsec         uint32
	Major, Minor int64
	Xattrs       map[string][]byte
}

// Entries takes a layer entry by entry where there is no tar to parse. What they may be is what a Parser allows.
type Entries struct{ build builder }

// FromEntries returns Entries that make the tree in t, which is empty.
func FromEntries(t *tree.Table, l Limits) *Entries {
	return &Entries{builder{limits: l.withDefaults(), tree: t}}
}

// Add takes one entry. The data of a regular file lie at off, a multiple of 512, in whatever gives the bytes of this layer.
func (e *Entries) Add(n Entry, off int64) error {
	h := header{typ: n.Type, name: n.Name, link: n.Link, mode: n.Mode, uid: n.UID, gid: n.GID, size: n.Size, sec: n.Sec, nsec: n.Nsec, major: n.Major, minor: n.Minor}
	for name, value := range n.Xattrs {
		h.xattrs = append(h.xattrs, record{name, string(value)})
	}
	if err := h.inRange(e.build.limits); err != nil {
		return err
	}
	_, err := e.build.add(&h, off)
	return err
}

// Finish ends the layer: its tree is in its plain form then.
func (e *Entries) Finish() { e.build.tree.Settle() }

// Count is the number of entries so far, Foreign that of hard links into lower layers.
func (e *Entries) Count() int   { return e.build.entries }
func (e *Entries) Foreign() int { return e.build.foreign }
