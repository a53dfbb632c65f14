package tree

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/spill"
)

// maxRecord is more than any encoded inode has: attributes have 192 KiB, links 4,096 bytes.
const maxRecord = 256 << 10

// Encode writes the tree as the function of that name writes one of inodes. The inodes of a Table are of one layer then.
func (t *Table) Encode(w io.Writer) error { return encodeTable(w, t, func(*Inode) {}) }

// encodeTable calls each for every inode that it writes.
func encodeTable(w io.Writer, t *Table, each func(*Inode)) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	bw := bufio.NewWriterSize(w, 64<<10)
	e := &treeEncoder{w: io.MultiWriter(bw, sum), next: 1}
	for id := range t.shared {
		t.shared[id] = -1
	}
	root := t.Inode(t.root)
	e.buf = append(e.buf, Magic...)
	e.inode(&root)
	each(&root)
	err := encode(t, e, t.root, each)
	e.flush()
	if err == nil {
		err = e.err
	}
	if err == nil {
		_, err = bw.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	}
	if err == nil {
		err = bw.Flush()
	}
	return err
}

func encode(t *Table, e *treeEncoder, dir ID, each func(*Inode)) error {
	err := t.Names(dir, func(name []byte, id ID) error {
		if len(e.buf) > 32<<10 {
			e.flush()
		}
		if id == 0 {
			e.uint(recHide)
			e.text(string(name))
			return e.err
		}
		number, shared := t.shared[id]
		if shared && number >= 0 {
			e.uint(recAgain)
			e.text(string(name))
			e.uint(uint64(number))
			return e.err
		}
		if shared {
			t.shared[id] = e.next
		}
		e.next++
		e.uint(recInode)
		e.text(string(name))
		i := t.Inode(id)
		e.inode(&i)
		each(&i)
		if i.IsDir() {
			return encode(t, e, id, each)
		}
		return e.err
	})
	e.uint(recEnd)
	return err
}

// Of makes a Table of a tree.
func Of(root *Inode) *Table {
	t := NewTable()
	_ = Walk(root, func(_ string, _, i *Inode) error { i.Mark = 0; return nil })
	t.root = t.add(root)
	fill(t, t.root, root.Dir)
	return t
}

func fill(t *Table, dir ID, d *Dir) {
	for _, n := range d.Names() {
		k := d.Kids[n]
		if k.Mark != 0 {
			t.Link(dir, n, ID(k.Mark))
			continue
		}
		t.Put(dir, n, k)
		id := t.Child(dir, n)
		if k.Mark = int(id); k.IsDir() {
			fill(t, id, k.Dir)
		}
	}
	for _, n := range d.Hidden() {
		t.Hide(dir, n)
	}
}

// Tree makes inodes of a Table.
func (t *Table) Tree() *Inode {
	root := t.Inode(t.root)
	grow(t, &root, t.root, map[ID]*Inode{})
	return &root
}

func grow(t *Table, dir *Inode, id ID, seen map[ID]*Inode) {
	_ = t.Names(id, func(name []byte, id ID) error {
		if id == 0 {
			dir.Dir.Hide(string(name))
			return nil
		}
		k := seen[id]
		if k == nil {
			i := t.Inode(id)
			k = &i
			if _, shared := t.shared[id]; shared {
				seen[id] = k
			}
		}
		if dir.Dir.Kids[string(name)] = k; k.IsDir() {
			grow(t, k, id, seen)
		}
		return nil
	})
}

// stream is an encoded tree that is read once.
type stream struct {
	*bufio.Reader
	left int
}

func (s *stream) Len() int { return s.left }

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.left -= n
	return n, err
}

func (s *stream) ReadByte() (byte, error) {
	b, err := s.Reader.ReadByte()
	if err == nil {
		s.left--
	}
	return b, err
}

// open begins to read an encoded tree. What follows the tree is checked by its end.
func open(r io.ReaderAt, size int64) (*decoder, hash.Hash32, error) {
	magic := make([]byte, len(Magic))
	if _, err := r.ReadAt(magic, 0); err != nil || size < int64(len(Magic)+4) || string(magic) != Magic {
		return nil, nil, errdef.New(errdef.DataLoss, "tree: not one, or of another version")
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write(magic)
	body := size - int64(len(Magic)+4)
	s := &stream{bufio.NewReaderSize(io.TeeReader(io.NewSectionReader(r, int64(len(Magic)), body), sum), 64<<10), int(body)}
	return &decoder{r: s}, sum, nil
}

// Lay lays an encoded layer over the tree; its inodes get its place, dev. The whiteouts of a layer act on what lies below it, never on its
// own names. An implicit directory keeps the attributes of the one below. A foreign hard link joins the inode that its path named before this
// layer; foreign tells that there are such, which are looked up first. After an error the tree is of no use.
func (t *Table) Lay(r io.ReaderAt, size int64, dev uint16, foreign bool) error {
	l := &laying{t: t, dev: dev, seen: spill.List[ID]{Space: t.space}}
	if foreign {
		d, _, err := open(r, size)
		if err != nil {
			return err
		}
		root := d.inode()
		if l.d = d; d.err == nil && root.IsDir() {
			if err := l.look("", 0); err != nil {
				return err
			}
		}
	}
	d, sum, err := open(r, size)
	if err != nil {
		return err
	}
	l.d = d
	root := d.inode()
	if d.err == nil && !root.IsDir() {
		d.fail("its root is no directory")
	}
	if d.err == nil {
		t.root = l.over(t.root, root)
		l.seen.Add(t.root)
		l.dir(t.root, 0)
	}
	if d.err == nil && d.r.Len() > 0 {
		d.fail("bytes are left over")
	}
	var want [4]byte
	if _, err := r.ReadAt(want[:], size-4); d.err == nil && (err != nil || binary.LittleEndian.Uint32(want[:]) != sum.Sum32()) {
		d.fail("checksum is wrong")
	}
	return d.err
}

type laying struct {
	t     *Table
	d     *decoder
	dev   uint16
	seen  spill.List[ID] // by their numbers in the layer
	found []ID           // what the foreign links lead to, in their order
}

// look finds what foreign links lead to, before the layer changes it.
func (l *laying) look(prefix string, depth int) error {
	for d := l.d; d.err == nil; {
		switch rec := d.uint(recHide); {
		case d.err != nil || rec == recEnd:
			return d.err
		case rec == recAgain:
			d.name()
			d.uint(1 << 32)
		case rec == recHide:
			d.name()
		default:
			name, i := d.name(), d.inode()
			if d.err != nil {
				return d.err
			}
			if i.Foreign() {
				id := l.t.Lookup(i.Link)
				if mode := l.mode(id); mode == 0 || mode&unix.S_IFMT == unix.S_IFDIR {
					return errdef.New(errdef.InvalidArgument, "hard link %q: its target %q is no file of this image", prefix+name, i.Link)
				}
				l.found = append(l.found, id)
			}
			if i.IsDir() && depth < MaxPath {
				if err := l.look(prefix+name+"/", depth+1); err != nil {
					return err
				}
			}
		}
	}
	return l.d.err
}

func (l *laying) mode(id ID) uint32 {
	if id == 0 {
		return 0
	}
	return l.t.Mode(id)
}

// over lays a directory's attributes over one that is there; the result is a new directory when nothing of that is to show.
func (l *laying) over(old ID, i *Inode) ID {
	t := l.t
	if i.Dir.Opaque {
		if i.Dir.Implicit {
			was := t.Inode(old)
			i = &was
		}
		i.Dir.Opaque = false
		return t.add(i)
	}
	if !i.Dir.Implicit {
		*t.places.At(uint32(old)) = t.record(i)
	}
	return old
}

// dir lays the names of a directory into dst.
func (l *laying) dir(dst ID, depth int) {
	d, t := l.d, l.t
	if depth > MaxPath {
		d.fail("deeper than paths can be")
	}
	for d.err == nil {
		switch d.uint(recHide) {
		case recEnd:
			return
		case recHide:
			if n := d.name(); d.err == nil {
				t.Drop(dst, n)
			}
		case recInode:
			n, i := d.name(), d.inode()
			if d.err == nil {
				l.inode(dst, n, i, depth)
			}
		case recAgain:
			n, num := d.name(), d.uint(uint64(l.seen.Len()))
			if d.err != nil || num == uint64(l.seen.Len()) || t.isDir(*l.seen.At(uint32(num))) {
				d.fail("a link points nowhere")
				return
			}
			t.Link(dst, n, *l.seen.At(uint32(num)))
		}
	}
}

func (l *laying) inode(dst ID, name string, i *Inode, depth int) {
	t := l.t
	i.Dev = l.dev
	e := t.entry(dst, name)
	switch old := e.inode; {
	case i.Foreign():
		if len(l.found) == 0 {
			l.d.fail(fmt.Sprintf("its foreign link %q was not looked up", name))
			return
		}
		e.inode, l.found = l.found[0], l.found[1:]
		t.shared[e.inode] = -1
	case i.IsDir() && old != 0 && t.isDir(old):
		e.inode = l.over(old, i)
	default:
		if i.IsDir() {
			i.Dir.Opaque = false
		}
		e.inode = t.add(i)
	}
	l.seen.Add(e.inode)
	if i.IsDir() {
		l.dir(e.inode, depth+1)
	}
}
