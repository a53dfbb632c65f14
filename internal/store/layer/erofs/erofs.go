// Package erofs owns the writing of EROFS images that hold a tree's metadata and point into tars for file contents.
//
// It promises one sequential pass over the output, the same bytes for the same tree, and images that Linux since 5.16 (loop devices)
// and since 6.12 (plain files) mounts: 512-byte blocks, the tars as extra devices in order, every inode in the 64-byte form,
// extended attributes inline. It must never read a tar.
package erofs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Device is one tar.
type Device struct {
	Size int64    // bytes
	Tag  [64]byte // what identifies it, e.g. its digest in hex
}

// MaxDevices bounds the tars of one image: the format has 16 bits for them and the device table must lie within its first 8 MiB.
const MaxDevices = 0xffff

// Write is WriteTable for a tree of inodes.
func Write(w io.Writer, root *tree.Inode, devices []Device) (int64, error) {
	return WriteTable(w, tree.Of(root), devices)
}

// WriteTable writes the image of a tree to w and returns its size, a multiple of 4,096. Whiteouts and links into lower layers are not in it.
func WriteTable(w io.Writer, t *tree.Table, devices []Device) (int64, error) {
	if len(devices) > MaxDevices {
		return 0, errdef.New(errdef.InvalidArgument, "erofs image: %d devices, at most %d", len(devices), MaxDevices)
	}
	p, err := plan(t, len(devices))
	if err != nil {
		return 0, err
	}
	e := &encoder{w: bufio.NewWriterSize(w, 256<<10), plan: p}
	e.super(devices)
	e.inode(0)
	e.devices(devices)
	for i := 1; i < p.nodes.Len(); i++ {
		e.inode(uint32(i))
	}
	e.zeros(p.dataStart - e.off)
	for i := range uint32(p.nodes.Len()) {
		n := p.nodes.At(i)
		if n.block == noBlock {
			continue
		}
		b, err := p.body(n)
		if err != nil {
			return 0, err
		}
		e.zeros(int64(n.block)*blockSize - e.off)
		to := b.size
		if b.layout == layoutInline {
			to &^= blockSize - 1
		}
		e.payload(i, &b, 0, to)
	}
	e.zeros(p.end - e.off)
	if e.err == nil {
		e.err = e.w.Flush()
	}
	if e.err != nil {
		return 0, fmt.Errorf("write erofs image: %w", e.err)
	}
	return e.off, nil
}

type encoder struct {
	w    *bufio.Writer
	plan *layout
	off  int64
	err  error
	buf  [blockSize]byte
}

func (e *encoder) write(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
	e.off += int64(len(b))
}

func (e *encoder) text(s string) {
	if e.err == nil {
		_, e.err = e.w.WriteString(s)
	}
	e.off += int64(len(s))
}

func (e *encoder) zeros(n int64) {
	if n < 0 && e.err == nil {
		e.err = fmt.Errorf("layout overlaps at byte %d", e.off)
	}
	clear(e.buf[:])
	for ; n > 0; n -= blockSize {
		e.write(e.buf[:min(n, blockSize)])
	}
}

var le = binary.LittleEndian

func (e *encoder) super(devices []Device) {
	e.zeros(superOffset)
	var b [superSize]byte
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(e.plan.nodes.At(0).slot)) // close behind the super block, so 16 bits do
	le.PutUint64(b[16:], uint64(e.plan.nodes.Len()))
	le.PutUint32(b[36:], uint32(e.plan.end/blockSize))
	features := uint32(incompatChunked)
	if len(devices) > 0 {
		features |= incompatDevices
	}
	le.PutUint32(b[80:], features)
	le.PutUint16(b[86:], uint16(len(devices)))
	le.PutUint16(b[88:], uint16(e.plan.deviceTable/deviceSize))
	e.write(b[:])
}

func (e *encoder) devices(devices []Device) {
	e.zeros(e.plan.deviceTable - e.off)
	for _, d := range devices {
		var b [deviceSize]byte
		copy(b[:], d.Tag[:])
		le.PutUint32(b[64:], uint32((d.Size+blockSize-1)/blockSize))
		e.write(b[:])
	}
}

func (e *encoder) inode(number uint32) {
	n := e.plan.nodes.At(number)
	i, err := e.plan.body(n)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.zeros(int64(n.slot)*slotSize - e.off)
	var b [inodeSize]byte
	le.PutUint16(b[0:], uint16(extended|i.layout))
	le.PutUint16(b[2:], uint16(i.icount))
	le.PutUint16(b[4:], uint16(i.Mode))
	le.PutUint64(b[8:], uint64(i.size))
	switch {
	case i.layout == layoutChunk:
		le.PutUint16(b[16:], uint16(chunkIndexes|i.chunkBits))
	case i.IsReg() || i.IsDir() || i.IsLink():
		le.PutUint32(b[16:], n.block)
	default:
		le.PutUint32(b[16:], i.Rdev)
	}
	le.PutUint32(b[20:], n.slot)
	le.PutUint32(b[24:], i.UID)
	le.PutUint32(b[28:], i.GID)
	le.PutUint64(b[32:], uint64(i.Sec))
	le.PutUint32(b[40:], i.Nsec)
	le.PutUint32(b[44:], n.links)
	e.write(b[:])
	e.xattrs(&i)
	switch i.layout {
	case layoutChunk:
		e.zeros(-e.off & 7)
		e.chunks(&i)
	case layoutInline:
		e.payload(number, &i, i.size&^(blockSize-1), i.size)
	}
}

// chunks writes where the file's bytes lie: device numbers count from 1, block numbers from the start of the device.
func (e *encoder) chunks(i *body) {
	step := int64(blockSize) << i.chunkBits
	next := int64(0)
	to := func(end, off int64, data bool) {
		for ; next < end; next += step {
			var b [chunkSize]byte
			if data {
				le.PutUint16(b[2:], i.Dev+1)
				le.PutUint32(b[4:], uint32((off+next)/blockSize))
			} else {
				le.PutUint32(b[4:], noBlock)
			}
			e.write(b[:])
		}
	}
	_ = i.Pieces(func(at, off, n int64) error {
		to(at, 0, false)
		to(at+n, off-at, true)
		return nil
	})
	to(i.size, 0, false)
}

// chunkBitsFor chooses the smallest chunk that holds the file whole, so that nearly every file has exactly one; of a sparse file the largest
// that is either data or hole.
func chunkBitsFor(i *tree.Inode) int {
	n := min(bits.Len64(uint64(i.Size-1)>>blockBits), maxChunkBits)
	if i.Map != nil {
		n = bits.TrailingZeros64(uint64(i.Unit(int64(blockSize)<<n))) - blockBits
	}
	return n
}

func (e *encoder) xattrs(i *body) {
	if i.icount == 0 {
		return
	}
	var h [xattrHeader]byte
	e.write(h[:])
	for _, x := range i.Xattrs {
		index, name := splitXattr(x.Name)
		var b [4]byte
		b[0], b[1] = byte(len(name)), index
		le.PutUint16(b[2:], uint16(len(x.Value)))
		e.write(b[:])
		e.text(name)
		e.text(x.Value)
		e.zeros(-e.off & 3)
	}
}

// payload writes bytes from..to of a directory or a symbolic link; from is a multiple of the block size.
func (e *encoder) payload(number uint32, i *body, from, to int64) {
	if i.IsLink() {
		e.text(i.Link[from:to])
		return
	}
	var ents, names []byte
	at := int64(0) // of the block that ents and names are of
	flush := func() {
		if at >= from && at < to {
			for o := 0; o < len(ents); o += direntSize { // names begin behind all entries
				le.PutUint16(ents[o+8:], le.Uint16(ents[o+8:])+uint16(len(ents)))
			}
			e.write(ents)
			e.write(names)
			if at+blockSize < i.size {
				e.zeros(blockSize - int64(len(ents)+len(names)))
			}
		}
		at, ents, names = at+blockSize, ents[:0], names[:0]
	}
	e.plan.entries(number, func(name []byte, node uint32) {
		if len(ents)+len(names)+direntSize+len(name) > blockSize {
			flush()
		}
		var r [direntSize]byte
		le.PutUint64(r[0:], uint64(e.plan.nodes.At(node).slot))
		le.PutUint16(r[8:], uint16(len(names)))
		r[10] = e.plan.fileType(node)
		ents, names = append(ents, r[:]...), append(names, name...)
	})
	flush()
}

func (p *layout) fileType(node uint32) byte {
	switch p.tree.Mode(p.nodes.At(node).id) & unix.S_IFMT {
	case unix.S_IFREG:
		return ftReg
	case unix.S_IFDIR:
		return ftDir
	case unix.S_IFCHR:
		return ftChr
	case unix.S_IFBLK:
		return ftBlk
	case unix.S_IFIFO:
		return ftFifo
	case unix.S_IFLNK:
		return ftSymlink
	}
	return ftSock
}
