package tree

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
	"sort"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/spill"
)

// Table is a tree in little memory: about 50 bytes a name, without pointers that a collector would follow, most of which may lie on the disk. Inodes are numbers (ID); an
// inode is kept as Encode would write it. It is built in any order: by a tar that is read, or by layers that are laid over each other.
type Table struct {
	inodes
	space  *spill.Space
	dents  spill.List[dent]
	heads  []uint32 // hash table of dents, which go on by dent.next
	seed   maphash.Seed
	root   ID
	shared map[ID]int // inodes with several names, perhaps; the number that Encode gave it, or -1
	order  []uint32   // of the dents that count, by directory and name; nil: not known
}

// ID is an inode of a Table; 0 is none.
type ID uint32

// dent is one name in a directory.
type dent struct {
	parent ID
	name   uint32
	inode  ID // with hidden: a whiteout, too
	next   uint32
}

const hidden ID = 1 << 31

// NewTable returns an empty tree.
func NewTable() *Table { return newTable(nil) }

// Roomy gives f an empty tree that may grow large: what is beyond 8 MiB lies in a nameless file in dir, from which the kernel takes it out of
// memory and back. The tree is of no use after f.
func Roomy(dir string, f func(t *Table) error) error {
	space := spill.New(dir)
	defer space.Close()
	return spill.Guard(func() error { return f(newTable(space)) })
}

func newTable(space *spill.Space) *Table {
	t := &Table{space: space, seed: maphash.MakeSeed(), heads: make([]uint32, 64), shared: map[ID]int{}}
	t.text.space, t.places.Space, t.dents.Space = space, space, space
	t.places.Add(0)
	t.dents.Add(dent{})
	t.root = t.add(NewDir())
	return t
}

// Space is where a tree is kept, for what goes with it.
func Space(t *Table) *spill.Space { return t.space }

// Root is the root directory, which changes when a layer hides everything.
func (t *Table) Root() ID { return t.root }

func (t *Table) name(at uint32) []byte {
	b := t.text.at(at)
	return b[1 : 1+int(b[0])]
}

// head is the start of the chain of a name, by the name's hash.
func (t *Table) head(parent ID, hash uint64) *uint32 {
	h := (hash ^ uint64(parent)) * 0x9e3779b97f4a7c15
	return &t.heads[h>>32&uint64(len(t.heads)-1)]
}

func (t *Table) find(parent ID, name string) *dent {
	for n := *t.head(parent, maphash.String(t.seed, name)); n != 0; {
		d := t.dents.At(n)
		if d.parent == parent && string(t.name(d.name)) == name {
			return d
		}
		n = d.next
	}
	return nil
}

// entry finds a name, or makes it.
func (t *Table) entry(parent ID, name string) *dent {
	t.order = nil
	if d := t.find(parent, name); d != nil {
		return d
	}
	if t.dents.Len() >= len(t.heads)*2 {
		t.rehash()
	}
	t.buf = append(append(t.buf[:0], byte(len(name))), name...)
	n := t.dents.Add(dent{parent: parent, name: t.text.put(t.buf)})
	t.chain(n)
	return t.dents.At(n)
}

func (t *Table) chain(n uint32) {
	d := t.dents.At(n)
	head := t.head(d.parent, maphash.Bytes(t.seed, t.name(d.name)))
	d.next, *head = *head, n
}

func (t *Table) rehash() {
	t.heads = spill.Make[uint32](t.space, len(t.heads)*4)
	for n := 1; n < t.dents.Len(); n++ {
		t.pass()
		t.chain(uint32(n))
	}
}

// Child returns what a directory has under a name.
func (t *Table) Child(dir ID, name string) ID {
	if d := t.find(dir, name); d != nil {
		return d.inode &^ hidden
	}
	return 0
}

// Put gives an object its name. A directory over a directory keeps what is inside.
func (t *Table) Put(dir ID, name string, i *Inode) {
	d := t.entry(dir, name)
	old := d.inode &^ hidden
	if old != 0 && i.IsDir() && t.isDir(old) {
		t.replace(old, i)
		return
	}
	d.inode = d.inode&hidden | t.add(i)
}

// replace gives a directory other attributes.
func (t *Table) replace(dir ID, i *Inode) {
	opaque := *t.flags(dir) & flagOpaque
	*t.places.At(uint32(dir)) = t.record(i)
	*t.flags(dir) |= opaque
}

// SetRoot gives the root other attributes.
func (t *Table) SetRoot(i *Inode) { t.replace(t.root, i) }

// Link gives an inode one more name.
func (t *Table) Link(dir ID, name string, id ID) {
	d := t.entry(dir, name)
	d.inode = d.inode&hidden | id
	t.shared[id] = -1
}

// Drop takes a name away.
func (t *Table) Drop(dir ID, name string) {
	if d := t.find(dir, name); d != nil {
		t.order = nil
		d.inode &= hidden
	}
}

// Hide records a whiteout, Opaque that nothing of lower layers shows in a directory.
func (t *Table) Hide(dir ID, name string) { t.entry(dir, name).inode |= hidden }
func (t *Table) Opaque(dir ID)            { *t.flags(dir) |= flagOpaque }

// Settle brings a layer whose tar is read to its end into its plain form: a whiteout beside a name of the layer's own goes,
// since the name covers what lies below; a directory does so by being opaque.
func (t *Table) Settle() {
	for n := 1; n < t.dents.Len(); n++ {
		t.pass()
		d := t.dents.At(uint32(n))
		if id := d.inode &^ hidden; id != 0 && d.inode != id {
			if d.inode = id; t.isDir(id) {
				t.Opaque(id)
			}
		}
	}
}

// Names calls f for every name of a directory in byte order: first those of inodes, then, as inode 0, the whiteouts.
func (t *Table) Names(dir ID, f func(name []byte, id ID) error) error {
	for _, whiteouts := range []bool{false, true} {
		err := t.Entries(dir, func(name []byte, id ID) error {
			if whiteouts != (id == 0) {
				return nil
			}
			return f(name, id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Entries is Names with the whiteouts between the others.
func (t *Table) Entries(dir ID, f func(name []byte, id ID) error) error {
	t.sort()
	for _, n := range t.order[sort.Search(len(t.order), func(n int) bool { return t.dents.At(t.order[n]).parent >= dir }):] {
		d := t.dents.At(n)
		if d.parent != dir {
			break
		}
		t.pass()
		if err := f(t.name(d.name), d.inode&^hidden); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) sort() {
	if t.order != nil {
		return
	}
	t.order = spill.Make[uint32](t.space, t.dents.Len())[:0]
	for n := 1; n < t.dents.Len(); n++ {
		t.pass()
		if t.dents.At(uint32(n)).inode != 0 {
			t.order = append(t.order, uint32(n))
		}
	}
	slices.SortFunc(t.order, func(a, b uint32) int {
		t.pass()
		return cmp.Compare(t.dents.At(a).parent, t.dents.At(b).parent)
	})
	for from, to := 0, 0; from < len(t.order); from = to { // names of one directory lie close to each other
		parent := t.dents.At(t.order[from]).parent
		for to < len(t.order) && t.dents.At(t.order[to]).parent == parent {
			to++
		}
		slices.SortFunc(t.order[from:to], func(a, b uint32) int {
			t.pass()
			return bytes.Compare(t.name(t.dents.At(a).name), t.name(t.dents.At(b).name))
		})
	}
}

// Implicit reports whether a directory besides the root has no entry of its own.
func (t *Table) Implicit() bool { return implicit(t, t.root) != nil }

func implicit(t *Table, dir ID) error {
	return t.Names(dir, func(_ []byte, id ID) error {
		switch {
		case id == 0 || !t.isDir(id):
			return nil
		case *t.flags(id)&flagImplicit != 0:
			return errdef.New(errdef.NotFound, "found")
		}
		return implicit(t, id)
	})
}

// Lookup finds a clean path without following the last component; links in between are followed inside the tree. 0: there is no such object.
func (t *Table) Lookup(p string) ID {
	dir, base, err := t.Parent(p, nil)
	if err != nil || dir == 0 || base == "" {
		return dir
	}
	return t.Child(dir, base)
}

// Parent finds the directory of a clean path and its last component ("" for the root itself), following symbolic links inside
// the tree as a chroot would. With create, missing directories are made implicitly, as they are when a tar is unpacked, each after
// asking create; without it a missing directory gives 0. A path through something that is no directory, or through more than MaxLinks links, is an error.
func (t *Table) Parent(p string, create func() error) (dir ID, base string, err error) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return t.root, p, nil
	}
	w := walker{t: t, create: create}
	dir, err = w.walk(t.root, nil, p[:i])
	return dir, p[i+1:], err
}

type walker struct {
	t      *Table
	create func() error
	links  int
}

// walk goes from dir, whose ancestors are above (for ".." in links), along p.
func (w *walker) walk(dir ID, above []ID, p string) (ID, error) {
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
			return 0, errdef.New(errdef.InvalidArgument, "a link holds a name longer than %d bytes", MaxName)
		}
		k := w.t.Child(dir, c)
		if k == 0 && w.create == nil {
			return 0, nil
		}
		if k == 0 {
			if err := w.create(); err != nil {
				return 0, err
			}
			w.t.Put(dir, c, NewDir())
			k = w.t.Child(dir, c)
		}
		if i := (&Inode{Mode: w.t.Mode(k)}); i.IsLink() {
			if w.links++; w.links > MaxLinks {
				return 0, errdef.New(errdef.InvalidArgument, "more than %d symbolic links in a path", MaxLinks)
			}
			to := w.t.Inode(k).Link
			if strings.HasPrefix(to, "/") {
				dir, above = w.t.root, nil
			}
			p = to + "/" + p
			continue
		} else if !i.IsDir() {
			return 0, errdef.New(errdef.InvalidArgument, "%q is used as a directory but is none", c)
		}
		above = append(above, dir)
		dir = k
	}
	return dir, nil
}
