package tree

import (
	"io"
	"math/bits"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Extent is a run of data in a sparse file. In the tar the runs lie behind each other.
type Extent struct{ At, Len int64 }

// MaxExtents bounds the extents of one file.
const MaxExtents = 4096

// Sparse makes an inode a sparse file of so many bytes, of which the tar holds data. Extents of no length are left out. Each must begin
// and end at a multiple of 512, but for the end of the file: the kernel reads blocks.
func (i *Inode) Sparse(size, data int64, extents []Extent) error {
	if size < 0 || size > 1<<40 || len(extents) > MaxExtents {
		return errdef.New(errdef.InvalidArgument, "a sparse file of %d bytes in %d pieces: more than 1 TiB, or %d pieces", size, len(extents), MaxExtents)
	}
	i.Size, i.Map = size, make([]Extent, 0, len(extents))
	end, sum := int64(0), int64(0)
	for _, e := range extents {
		switch {
		case e.At < end || e.Len < 0 || e.At > size || e.Len > size-e.At:
			return errdef.New(errdef.InvalidArgument, "a sparse file's piece of %d bytes at %d is out of order or lies outside", e.Len, e.At)
		case e.Len == 0:
			continue
		case e.At%512 != 0 || e.Len%512 != 0 && e.At+e.Len != size:
			return errdef.New(errdef.InvalidArgument, "a sparse file's piece of %d bytes at %d is not aligned to 512 bytes", e.Len, e.At)
		}
		end, sum = e.At+e.Len, sum+e.Len
		i.Map = append(i.Map, e)
	}
	if sum != data {
		return errdef.New(errdef.InvalidArgument, "a sparse file's pieces have %d bytes, its data %d", sum, data)
	}
	return nil
}

// Unit is the largest power of two, not beyond limit, in which a sparse file can be divided so that no part holds data and hole.
func (i *Inode) Unit(limit int64) int64 {
	var edges uint64
	for _, e := range i.Map {
		edges |= uint64(e.At)
		if e.At+e.Len != i.Size {
			edges |= uint64(e.At + e.Len)
		}
	}
	if edges == 0 {
		return limit
	}
	return min(limit, 1<<bits.TrailingZeros64(edges))
}

// Pieces calls f for every run of data: at this place in the file are n bytes from off in the tar.
func (i *Inode) Pieces(f func(at, off, n int64) error) error {
	if i.Map == nil {
		if i.Size == 0 {
			return nil
		}
		return f(0, i.Off, i.Size)
	}
	off := i.Off
	for _, e := range i.Map {
		if err := f(e.At, off, e.Len); err != nil {
			return err
		}
		off += e.Len
	}
	return nil
}

// Contents reads a regular file out of its tar; holes are zeros.
func (i *Inode) Contents(tar io.ReaderAt) *io.SectionReader {
	if i.Map == nil {
		return io.NewSectionReader(tar, i.Off, i.Size)
	}
	return io.NewSectionReader(contents{i, tar}, 0, i.Size)
}

type contents struct {
	i   *Inode
	tar io.ReaderAt
}

func (c contents) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	err := c.i.Pieces(func(start, off, n int64) error {
		from, to := max(at, start), min(at+int64(len(b)), start+n)
		if from >= to {
			return nil
		}
		_, err := c.tar.ReadAt(b[from-at:to-at], off+from-start)
		if err == io.EOF { // the very end of the tar may be reached
			err = nil
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}
