package tree

import (
	"encoding/binary"
	"io"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// EncodeChain writes a tree whose inodes are of several layers: as Encode does, then the layer's number of each inode in the same order, then
// where those begin. It is for another process of ours, never for disks.
func EncodeChain(w io.Writer, t *Table) error {
	var devs []byte
	c := &counter{w: w}
	err := encodeTable(c, t, func(i *Inode) { devs = binary.AppendUvarint(devs, uint64(i.Dev)) })
	if err == nil {
		_, err = w.Write(binary.LittleEndian.AppendUint64(devs, uint64(c.n)))
	}
	return err
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// DecodeChain reads what EncodeChain wrote, as Decode does.
func DecodeChain(b []byte) (*Inode, error) {
	cut := errdef.New(errdef.DataLoss, "tree: cut off")
	body := len(b) - 8
	if body < 0 {
		return nil, cut
	}
	at := binary.LittleEndian.Uint64(b[body:])
	if at > uint64(body) {
		return nil, cut
	}
	seen, err := decode(b[:at])
	if err != nil {
		return nil, err
	}
	devs := b[at:body]
	for _, i := range seen {
		dev, n := binary.Uvarint(devs)
		if n <= 0 || dev > 1<<16-1 {
			return nil, cut
		}
		i.Dev, devs = uint16(dev), devs[n:]
	}
	return seen[0], nil
}

// Each calls f for the root, "", and for every name in a table, parents first; i is a copy, a directory's without what is in it.
func Each(t *Table, f func(path string, i *Inode) error) error {
	root := t.Inode(t.root)
	if err := f("", &root); err != nil {
		return err
	}
	return each(t, "", t.root, f)
}

func each(t *Table, prefix string, dir ID, f func(string, *Inode) error) error {
	return t.Entries(dir, func(name []byte, id ID) error {
		if id == 0 {
			return nil
		}
		i := t.Inode(id)
		path := prefix + string(name)
		if err := f(path, &i); err != nil || !i.IsDir() {
			return err
		}
		return each(t, path+"/", id, f)
	})
}
