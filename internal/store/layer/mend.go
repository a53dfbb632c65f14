package layer

import (
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// A stack of folders can't say two things that a merged tree says: that a directory which a layer only passes through keeps the
// attributes it has below, and that a hard link leads into a lower layer. The mending folder, put on top, says both.

// mends lists the paths concerned in a layer.
func mends(l *tree.Inode) []string {
	var paths []string
	if l.Dir.Implicit {
		paths = append(paths, "")
	}
	_ = tree.Walk(l, func(p string, _, i *tree.Inode) error {
		if i.Foreign() || i.IsDir() && i.Dir.Implicit {
			paths = append(paths, p)
		}
		return nil
	})
	return paths
}

// mend writes the mending folder; made is false when there is nothing to mend. A hard link becomes a copy there.
func (s *Store) mend(dest string, t *tree.Table, paths []string, chain []digest.Digest) (made bool, err error) {
	if len(paths) == 0 {
		return false, nil
	}
	root := t.Tree()
	fix := shell(root)
	for _, p := range paths {
		graft(fix, root, p)
	}
	tars := make([]*os.File, len(chain))
	for n, d := range chain {
		if tars[n], err = s.OpenTar(d); err != nil {
			return false, err
		}
		defer tars[n].Close()
	}
	return true, unpackTo(dest, fix, tars, false)
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
