// Package provenance owns the question which layer of an image brought which name, and which layer hides what.
//
// It promises an answer from the layers' trees alone, with the semantics of tree.Table.Lay. It must never touch a file system.
package provenance

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Name is a name that a layer brings, or hides by a whiteout.
type Name struct {
	Layer      int // from 0, the base
	Path, Kind string
	Mode       uint32
	Size       int64
	Link       string // of symbolic links the text, of hard links the other name
	Hides      []int  // layers below that show this name, or something below it, no more
	By         int    // the layer that hides it; -1: the image shows it
}

// node is a path of what the layers so far show.
type node struct {
	kids map[string]*node
	name int // in names; -1 is a folder that no layer has an entry for
}

func fresh() *node { return &node{kids: map[string]*node{}, name: -1} }

type teller struct {
	names []Name
	layer int
	links map[*tree.Inode]string // names of this layer's inodes
}

// Names tells every name of the layers, base first; whiteouts and opaque folders are names as well. Implicit folders are not.
func Names(layers []*tree.Inode) []Name {
	t, root := &teller{}, fresh()
	for n, l := range layers {
		t.layer, t.links = n, map[*tree.Inode]string{}
		t.dir(root, l, "")
	}
	return t.names
}

// dir lays a layer's folder over what is shown. Whiteouts come first: they act on what lies below only.
func (t *teller) dir(at *node, i *tree.Inode, prefix string) {
	if i.Dir.Opaque {
		n := t.add(Name{Path: prefix + ".", Kind: "opaque"})
		for _, k := range at.kids {
			t.hide(k, n)
		}
		at.kids = map[string]*node{}
	}
	for _, name := range i.Dir.Hidden() {
		n := t.add(Name{Path: prefix + name, Kind: "whiteout"})
		if k := at.kids[name]; k != nil {
			t.hide(k, n)
			delete(at.kids, name)
		}
	}
	for _, name := range i.Dir.Names() {
		k, old := i.Dir.Kids[name], at.kids[name]
		if k.IsDir() && k.Dir.Implicit && old != nil {
			t.dir(old, k, prefix+name+"/")
			continue
		}
		next := fresh()
		if !k.IsDir() || !k.Dir.Implicit {
			next.name = t.add(t.describe(k, prefix+name))
		}
		if old != nil && k.IsDir() { // a folder over a folder keeps what is inside
			next.kids = old.kids
			old.kids = nil
		}
		if old != nil {
			t.hide(old, next.name)
		}
		at.kids[name] = next
		if k.IsDir() {
			t.dir(next, k, prefix+name+"/")
		}
	}
}

func (t *teller) add(n Name) int {
	n.Layer, n.By = t.layer, -1
	t.names = append(t.names, n)
	return len(t.names) - 1
}

// hide takes a path out of what is shown, because of the name by.
func (t *teller) hide(k *node, by int) {
	if k.name >= 0 {
		old := &t.names[k.name]
		old.By = t.layer
		if by >= 0 && !slices.Contains(t.names[by].Hides, old.Layer) {
			t.names[by].Hides = append(t.names[by].Hides, old.Layer)
			slices.Sort(t.names[by].Hides)
		}
	}
	for _, k := range k.kids {
		t.hide(k, by)
	}
}

func (t *teller) describe(i *tree.Inode, path string) Name {
	n := Name{Path: path, Mode: i.Mode & 0o7777, Kind: kind(i.Mode)}
	first, again := t.links[i]
	switch {
	case i.Foreign():
		n.Kind, n.Link = "hardlink", i.Link
	case again:
		n.Kind, n.Link = "hardlink", first
	case i.IsLink():
		n.Link = i.Link
	case i.IsReg():
		n.Size = i.Size
	}
	t.links[i] = path
	return n
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFIFO:
		return "fifo"
	}
	return "file"
}
