package tree

import (
	"bytes"
	"encoding/binary"

	"github.com/dhow-containers/dhow/internal/linux/spill"
)

// inodes are the inodes of a Table, and its text.
type inodes struct {
	text   arena              // names behind their length; encoded inodes behind their layer's number
	places spill.List[uint32] // of the encoded inodes, by ID
	buf    []byte
	passed uint16
}

// pass lets go of what lies on the disk each time that many names or inodes have been looked at.
func (t *inodes) pass() {
	if t.passed++; t.passed == 0 {
		t.text.space.Relax()
	}
}

// Inodes is one more than the largest ID.
func (t *inodes) Inodes() int { return t.places.Len() }

func (t *inodes) record(i *Inode) uint32 {
	t.buf = appendInode(binary.AppendUvarint(t.buf[:0], uint64(i.Dev)), i)
	return t.text.put(t.buf)
}

func (t *inodes) add(i *Inode) ID {
	return ID(t.places.Add(t.record(i)))
}

// Inode returns a copy of an inode. A directory's Dir has its flags only.
func (t *inodes) Inode(id ID) Inode {
	t.pass()
	b := t.text.at(*t.places.At(uint32(id)))
	dev, n := binary.Uvarint(b)
	d := decoder{r: bytes.NewReader(b[n:min(len(b), n+maxRecord)])}
	i := d.inode()
	i.Dev = uint16(dev)
	return *i
}

// raw is an inode's record without the layer's number; what follows it in memory is not cut off.
func (t *inodes) raw(id ID) []byte {
	b := t.text.at(*t.places.At(uint32(id)))
	_, n := binary.Uvarint(b)
	return b[n:]
}

// Mode returns an inode's mode; 0 is a foreign hard link.
func (t *inodes) Mode(id ID) uint32 {
	t.pass()
	m, _ := binary.Uvarint(t.raw(id))
	return uint32(m) &^ sparse
}

func (t *inodes) isDir(id ID) bool { return (&Inode{Mode: t.Mode(id)}).IsDir() }

// flags is where a directory's flags are: behind its mode, owners and time.
func (t *inodes) flags(dir ID) *byte {
	b := t.raw(dir)
	for range 5 {
		for b[0] >= 0x80 {
			b = b[1:]
		}
		b = b[1:]
	}
	return &b[0]
}
