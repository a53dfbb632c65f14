package tree

import (
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Clean brings a path from a tar into its plain form: no leading slash, no "." and no ".."; "" is the root. A path that climbs
// above the root, holds a NUL byte or exceeds the kernel's limits is refused.
func Clean(p string) (string, error) {
	if strings.IndexByte(p, 0) >= 0 {
		return "", errdef.New(errdef.InvalidArgument, "path %.100q holds a NUL byte", p)
	}
	if len(p) > MaxPath {
		return "", errdef.New(errdef.InvalidArgument, "path %.60q... is longer than %d bytes", p, MaxPath)
	}
	if plain(p) {
		return p, nil
	}
	var out []string
	for _, c := range strings.Split(p, "/") {
		switch {
		case c == "" || c == ".":
		case c == "..":
			if len(out) == 0 {
				return "", errdef.New(errdef.InvalidArgument, "path %.100q leads out of the layer", p)
			}
			out = out[:len(out)-1]
		case len(c) > MaxName:
			return "", errdef.New(errdef.InvalidArgument, "path %.60q...: a name is longer than %d bytes", p, MaxName)
		default:
			out = append(out, c)
		}
	}
	return strings.Join(out, "/"), nil
}

// plain reports whether Clean(p) is p, without allocating.
func plain(p string) bool {
	for p != "" {
		c, rest, more := strings.Cut(p, "/")
		if c == "" || c == "." || c == ".." || len(c) > MaxName || more && rest == "" {
			return false
		}
		p = rest
	}
	return true
}

// Lookup finds a clean path below root without following the last component; links in between are followed inside the tree.
// It returns nil when there is no such object.
func Lookup(root *Inode, p string) *Inode {
	dir, base, err := Parent(root, p, nil)
	if err != nil || dir == nil {
		return nil
	}
	if base == "" {
		return dir
	}
	return dir.Dir.Kids[base]
}

// Parent finds the directory of a clean path and its last component ("" for the root itself), following symbolic links inside
// the tree as a chroot would. With create, missing directories are made implicitly, as they are when a tar is unpacked, each after
// asking create; without it a missing directory gives a nil dir. A path through something that is no directory, or through more than MaxLinks links, is an error.
func Parent(root *Inode, p string, create func() error) (dir *Inode, base string, err error) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return root, p, nil
	}
	w := walker{root: root, create: create}
	dir, err = w.walk(root, nil, p[:i])
	return dir, p[i+1:], err
}

type walker struct {
	root   *Inode
	create func() error
	links  int
}

// walk goes from dir, whose ancestors are above (for ".." in links), along p.
func (w *walker) walk(dir *Inode, above []*Inode, p string) (*Inode, error) {
	for p != "" {
		var c string
		c, p, _ = strings.Cut(p, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			if n := len(above); n > 0 {
				dir, above = above[n-1], above[:n-1]
			}
			continue
		}
		if len(c) > MaxName {
			return nil, errdef.New(errdef.InvalidArgument, "a link holds a name longer than %d bytes", MaxName)
		}
		k := dir.Dir.Kids[c]
		switch {
		case k == nil && w.create == nil:
			return nil, nil
		case k == nil:
			if err := w.create(); err != nil {
				return nil, err
			}
			k = NewDir()
			dir.Dir.Kids[strings.Clone(c)] = k
		case k.IsLink():
			if w.links++; w.links > MaxLinks {
				return nil, errdef.New(errdef.InvalidArgument, "more than %d symbolic links in a path", MaxLinks)
			}
			if strings.HasPrefix(k.Link, "/") {
				dir, above = w.root, nil
			}
			p = k.Link + "/" + p
			continue
		case !k.IsDir():
			return nil, errdef.New(errdef.InvalidArgument, "%q is used as a directory but is none", c)
		}
		above = append(above[:len(above):len(above)], dir)
		dir = k
	}
	return dir, nil
}
