package tree

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Magic opens an encoded tree; its last byte is the version of the format (docs/formats/layer.md).
const Magic = "dhowtre\x01"

// Record types of an encoded tree.
const (
	recEnd   = 0 // closes a directory
	recInode = 1
	recAgain = 2 // one more name of an inode seen before
	recHide  = 3 // a whiteout
)

// sparse, in an encoded mode, says that a regular file's extents follow its offset.
const sparse = 1 << 16

const (
	flagOpaque   = 1
	flagImplicit = 2
)

// Encode writes a tree in its compact form, which ends in a CRC-32C of all before it.
func Encode(w io.Writer, root *Inode) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	bw := bufio.NewWriterSize(w, 64<<10)
	e := &treeEncoder{w: io.MultiWriter(bw, sum)}
	e.buf = append(e.buf, Magic...)
	_ = Walk(root, func(_ string, _, i *Inode) error { i.Mark = -1; return nil })
	root.Mark = 0
	e.next = 1
	e.inode(root)
	e.dir(root.Dir)
	e.flush()
	if e.err == nil {
		_, e.err = bw.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	}
	if e.err == nil {
		e.err = bw.Flush()
	}
	return e.err
}

type treeEncoder struct {
	w    io.Writer
	buf  []byte
	next int
	err  error
}

func (e *treeEncoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *treeEncoder) uint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *treeEncoder) text(s string) { e.uint(uint64(len(s))); e.buf = append(e.buf, s...) }

// appendInode appends an inode as it is encoded.
func appendInode(b []byte, i *Inode) []byte {
	e := treeEncoder{buf: b}
	e.inode(i)
	return e.buf
}

func (e *treeEncoder) inode(i *Inode) {
	mode := uint64(i.Mode)
	if i.Map != nil {
		mode |= sparse
	}
	e.uint(mode)
	e.uint(uint64(i.UID))
	e.uint(uint64(i.GID))
	e.buf = binary.AppendVarint(e.buf, i.Sec)
	e.uint(uint64(i.Nsec))
	switch {
	case i.IsReg():
		e.uint(uint64(i.Size))
		e.uint(uint64(i.Off) / 512)
		if i.Map != nil {
			e.uint(uint64(len(i.Map)))
			for _, x := range i.Map {
				e.uint(uint64(x.At) / 512)
				e.uint(uint64(x.Len))
			}
		}
	case i.IsLink() || i.Foreign():
		e.text(i.Link)
	case i.IsDir():
		flags := uint64(0)
		if i.Dir.Opaque {
			flags |= flagOpaque
		}
		if i.Dir.Implicit {
			flags |= flagImplicit
		}
		e.uint(flags)
	default:
		e.uint(uint64(i.Rdev))
	}
	e.uint(uint64(len(i.Xattrs)))
	for _, x := range i.Xattrs {
		e.text(x.Name)
		e.text(x.Value)
	}
}

func (e *treeEncoder) dir(d *Dir) {
	for _, n := range d.Names() {
		if len(e.buf) > 32<<10 {
			e.flush()
		}
		k := d.Kids[n]
		if k.Mark >= 0 {
			e.uint(recAgain)
			e.text(n)
			e.uint(uint64(k.Mark))
			continue
		}
		k.Mark = e.next
		e.next++
		e.uint(recInode)
		e.text(n)
		e.inode(k)
		if k.IsDir() {
			e.dir(k.Dir)
		}
	}
	for _, n := range d.Hidden() {
		e.uint(recHide)
		e.text(n)
	}
	e.uint(recEnd)
}

// Decode reads what Encode wrote. Damage gives a DataLoss error, never a panic or an allocation beyond the input's size.
func Decode(b []byte) (*Inode, error) {
	seen, err := decode(b)
	if err != nil {
		return nil, err
	}
	return seen[0], nil
}

// decode returns all inodes, the root first.
func decode(b []byte) ([]*Inode, error) {
	if len(b) < len(Magic)+4 || string(b[:len(Magic)]) != Magic {
		return nil, errdef.New(errdef.DataLoss, "tree: not one, or of another version")
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return nil, errdef.New(errdef.DataLoss, "tree: checksum is wrong")
	}
	d := &decoder{r: bytes.NewReader(body[len(Magic):])}
	root := d.inode()
	if d.err == nil && !root.IsDir() {
		d.fail("its root is no directory")
	}
	if d.err == nil {
		d.seen = append(d.seen, root)
		d.dir(root.Dir, 0)
	}
	if d.err == nil && d.r.Len() > 0 {
		d.fail("bytes are left over")
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.seen, nil
}

// source is what is decoded; Len is an upper bound of what is left.
type source interface {
	io.Reader
	io.ByteReader
	Len() int
}

type decoder struct {
	r    source
	seen []*Inode
	err  error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = errdef.New(errdef.DataLoss, "tree: %s", why)
	}
}

func (d *decoder) uint(limit uint64) uint64 {
	v, err := binary.ReadUvarint(d.r)
	if err != nil || v > limit {
		d.fail("a number is cut off or out of range")
		return 0
	}
	return v
}

func (d *decoder) text() string {
	n := d.uint(uint64(d.r.Len()))
	if d.err != nil {
		return ""
	}
	var s strings.Builder
	if _, err := io.CopyN(&s, d.r, int64(n)); err != nil {
		d.fail("a text is cut off")
	}
	return s.String()
}

func (d *decoder) name() string {
	n := d.text()
	if n == "" || n == "." || n == ".." || len(n) > MaxName || strings.ContainsAny(n, "/\x00") {
		d.fail("a name is no name")
	}
	return n
}

func (d *decoder) inode() *Inode {
	const u32 = 1<<32 - 1
	mode := uint32(d.uint(sparse | 0xffff))
	i := &Inode{Mode: mode &^ sparse, UID: uint32(d.uint(u32)), GID: uint32(d.uint(u32))}
	sec, err := binary.ReadVarint(d.r)
	if err != nil {
		d.fail("a time is cut off")
	}
	i.Sec, i.Nsec = sec, uint32(d.uint(1e9-1))
	switch {
	case i.IsReg():
		i.Size = int64(d.uint(1 << 40))
		i.Off = int64(d.uint(u32)) * 512
		if mode&sparse != 0 {
			d.extents(i)
		}
	case i.IsLink() || i.Foreign():
		i.Link = d.text()
	case i.IsDir():
		flags := d.uint(flagOpaque | flagImplicit)
		i.Dir = &Dir{Kids: map[string]*Inode{}, Opaque: flags&flagOpaque != 0, Implicit: flags&flagImplicit != 0}
	default:
		i.Rdev = uint32(d.uint(u32))
	}
	for n := d.uint(uint64(d.r.Len())); n > 0 && d.err == nil; n-- {
		i.Xattrs = append(i.Xattrs, Xattr{Name: d.text(), Value: d.text()})
	}
	return i
}

func (d *decoder) extents(i *Inode) {
	list, sum := make([]Extent, d.uint(MaxExtents)), int64(0)
	for k := range list {
		list[k] = Extent{int64(d.uint(1<<31)) * 512, int64(d.uint(1 << 40))}
		sum += list[k].Len
	}
	if d.err == nil && i.Sparse(i.Size, sum, list) != nil {
		d.fail("a sparse file's pieces are out of order")
	}
}

func (d *decoder) dir(dir *Dir, depth int) {
	if depth > MaxPath {
		d.fail("deeper than paths can be")
	}
	for d.err == nil {
		switch d.uint(recHide) {
		case recEnd:
			return
		case recHide:
			dir.Hide(d.name())
		case recInode:
			n, i := d.name(), d.inode()
			if d.err != nil {
				return
			}
			d.seen = append(d.seen, i)
			dir.Kids[n] = i
			if i.IsDir() {
				d.dir(i.Dir, depth+1)
			}
		case recAgain:
			n, num := d.name(), d.uint(uint64(len(d.seen)))
			if d.err != nil || num == uint64(len(d.seen)) || d.seen[num].IsDir() {
				d.fail("a link points nowhere")
				return
			}
			dir.Kids[n] = d.seen[num]
		}
	}
}
