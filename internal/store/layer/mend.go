package layer

import (
	"strings"

	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// A stack of folders can't say three things that a merged tree says: that a directory which a layer only passes through keeps the
// attributes it has below, that a hard link leads into a lower layer, and that a file has lost some of its names to a layer above. The
// mending folder, put on top, says them.

// mends are the paths concerned, of all layers.
type mends struct {
	paths  []string
	linked [][]string // the names that files of several names have in their own layer
}

// add looks at one layer.
func (m *mends) add(l *tree.Inode) {
	if l.Dir.Implicit {
		m.paths = append(m.paths, "")
	}
	names := map[*tree.Inode][]string{}
	_ = tree.Walk(l, func(p string, _, i *tree.Inode) error {
		switch {
		case i.Foreign() || i.IsDir() && i.Dir.Implicit:
			m.paths = append(m.paths, p)
		case !i.IsDir():
			names[i] = append(names[i], p)
		}
		return nil
	})
	for _, n := range names {
		if len(n) > 1 {
			m.linked = append(m.linked, n)
		}
	}
}

// settle adds the names of files that have others in the merged tree than in their layer.
func (m *mends) settle(root *tree.Inode) {
	names := map[*tree.Inode][]string{}
	_ = tree.Walk(root, func(p string, _, i *tree.Inode) error {
		if !i.IsDir() {
			names[i] = append(names[i], p)
		}
		return nil
	})
	at := map[string]*tree.Inode{}
	for i, n := range names {
		for _, p := range n {
			at[p] = i
		}
	}
	for _, p := range m.paths {
		if i := at[p]; i != nil { // a link into a lower layer
			m.paths = append(m.paths, names[i]...)
		}
	}
	for _, group := range m.linked {
		whole := true
		for _, p := range group {
			whole = whole && at[p] != nil && at[p] == at[group[0]] && len(names[at[p]]) == len(group)
		}
		for _, p := range group {
			if i := at[p]; !whole && i != nil {
				m.paths = append(m.paths, names[i]...)
			}
		}
	}
}

// mend returns the mending folder's tree; nil when there is nothing to mend. Files are copies there.
func (m *mends) mend(root *tree.Inode) *tree.Inode {
	m.settle(root)
	if len(m.paths) == 0 {
		return nil
	}
	fix := shell(root)
	for _, p := range m.paths {
		graft(fix, root, p)
	}
	return fix
}

// shell is a directory with another's attributes and nothing in it.
func shell(i *tree.Inode) *tree.Inode {
	c := *i
	c.Dir = &tree.Dir{Kids: map[string]*tree.Inode{}}
	return &c
}

// graft copies the object at p, and the directories that lead to it, from src to dst; a path that is no more is left out.
func graft(dst, src *tree.Inode, p string) {
	for p != "" {
		var name string
		name, p, _ = strings.Cut(p, "/")
		k := src.Dir.Kids[name]
		if k == nil {
			return
		}
		if !k.IsDir() {
			if p == "" {
				dst.Dir.Kids[name] = k
			}
			return
		}
		if dst.Dir.Kids[name] == nil {
			dst.Dir.Kids[name] = shell(k)
		}
		dst, src = dst.Dir.Kids[name], k
	}
}
