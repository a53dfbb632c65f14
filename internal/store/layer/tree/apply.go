package tree

import (
	"fmt"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Apply lays layer over base, which it changes; inodes of layer become part of base, so layer must not be used afterwards.
// The whiteouts of a layer act on what lies below it, never on its own names, wherever they stand in the tar. An implicit directory
// keeps the attributes of the one below. A foreign hard link joins the inode that its path named before this layer.
func Apply(base, layer *Inode) error {
	if err := bind(base, layer); err != nil {
		return err
	}
	apply(base, layer)
	return nil
}

// bind replaces the layer's foreign links by the inodes of base.
func bind(base, layer *Inode) error {
	return Walk(layer, func(path string, parent, i *Inode) error {
		if !i.Foreign() {
			return nil
		}
		t := Lookup(base, i.Link)
		if t == nil || t.IsDir() || t.Foreign() {
			return errdef.New(errdef.InvalidArgument, "hard link %q: its target %q is no file of this image", path, i.Link)
		}
		parent.Dir.Kids[path[len(path)-baseLen(path):]] = t
		return nil
	})
}

func baseLen(p string) int {
	n := 0
	for i := len(p) - 1; i >= 0 && p[i] != '/'; i-- {
		n++
	}
	return n
}

func apply(dst, src *Inode) {
	d, s := dst.Dir, src.Dir
	if s.Opaque {
		d.Kids = map[string]*Inode{}
	}
	for n := range s.Whiteouts {
		delete(d.Kids, n)
	}
	if !s.Implicit {
		kids := d.Kids
		*dst = *src
		dst.Dir = &Dir{Kids: kids}
	}
	for n, k := range s.Kids {
		old := d.Kids[n]
		switch {
		case !k.IsDir():
			dst.Dir.Kids[n] = k
		case old != nil && old.IsDir():
			apply(old, k)
		default:
			fresh := NewDir()
			apply(fresh, k)
			dst.Dir.Kids[n] = fresh
		}
	}
}

// Stack applies layers, lowest first, onto an empty root and numbers each layer's data with its place (Inode.Dev).
func Stack(layers []*Inode) (*Inode, error) {
	root := NewDir()
	for n, l := range layers {
		if n > 0xffff {
			return nil, errdef.New(errdef.InvalidArgument, "more than 65,536 layers")
		}
		if err := Walk(l, func(_ string, _, i *Inode) error { i.Dev = uint16(n); return nil }); err != nil {
			return nil, err
		}
		if err := Apply(root, l); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", n+1, len(layers), err)
		}
	}
	return root, nil
}

// Settle brings a layer whose tar is read to its end into its plain form: a whiteout beside a name of the layer's own goes,
// since the name covers what lies below; a directory does so by being opaque.
func Settle(dir *Inode) {
	for n := range dir.Dir.Whiteouts {
		if k := dir.Dir.Kids[n]; k != nil {
			delete(dir.Dir.Whiteouts, n)
			if k.IsDir() {
				k.Dir.Opaque = true
			}
		}
	}
	for _, k := range dir.Dir.Kids {
		if k.IsDir() {
			Settle(k)
		}
	}
}
