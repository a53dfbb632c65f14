package unpack

import (
	"slices"

	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// pruner removes from a folder, which holds one tree, what is not so in another, and notes what stays.
type pruner struct {
	u *unpacker
	// was and is pair inodes, old by new and new by old: two names stay hard links of each other only when both trees have them so.
	was, is map[*tree.Inode]*tree.Inode
}

func (p pruner) dir(prefix string, old, fresh *tree.Inode) error {
	for _, n := range old.Dir.Names() {
		path, o, k := prefix+n, old.Dir.Kids[n], fresh.Dir.Kids[n]
		switch {
		case k != nil && k.IsDir() && o.IsDir():
			p.u.stays[path] = true
			if err := p.dir(path+"/", o, k); err != nil {
				return err
			}
		case k != nil && p.pair(o, k):
			p.u.stays[path] = true
			if k.Mark < 0 {
				k.Mark = len(p.u.paths)
				p.u.paths = append(p.u.paths, path)
			}
		default:
			if err := p.u.root.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// pair reports whether an inode is the same in both trees.
func (p pruner) pair(o, k *tree.Inode) bool {
	if was, ok := p.was[k]; ok {
		return was == o
	}
	if _, ok := p.is[o]; ok || int(o.Dev) >= p.u.common || o.IsDir() {
		return false
	}
	same := o.Mode == k.Mode && o.UID == k.UID && o.GID == k.GID && o.Sec == k.Sec && o.Nsec == k.Nsec && o.Rdev == k.Rdev &&
		o.Dev == k.Dev && o.Size == k.Size && o.Off == k.Off && o.Link == k.Link && slices.Equal(o.Xattrs, k.Xattrs) && slices.Equal(o.Map, k.Map)
	if same {
		p.was[k], p.is[o] = o, k
	}
	return same
}
