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

// Options say how whiteouts are shown.
type Options struct {
	// Whiteouts writes them for overlayfs: character devices 0:0 and trusted.overlay.opaque. Without it the image is the final
	// tree, and a tree that still holds whiteouts loses them.
	Whiteouts bool
}

// Write writes the image of root to w and returns its size, a multiple of 4,096.
func Write(w io.Writer, root *tree.Inode, devices []Device, o Options) (int64, error) {
	if len(devices) > MaxDevices {
		return 0, errdef.New(errdef.InvalidArgument, "erofs image: %d devices, at most %d", len(devices), MaxDevices)
	}
	p, err := plan(root, len(devices), o)
	if err != nil {
		return 0, err
	}
	e := &encoder{w: bufio.NewWriterSize(w, 256<<10), plan: p}
	e.super(devices)
	e.inode(&p.nodes[0])
	e.devices(devices)
	for i := range p.nodes[1:] {
		e.inode(&p.nodes[1+i])
	}
	e.zeros(p.dataStart - e.off)
	for i := range p.nodes {
		if n := &p.nodes[i]; n.block >= 0 {
			e.zeros(n.block*blockSize - e.off)
			to := n.size
			if n.layout == layoutInline {
				to &^= blockSize - 1
			}
			e.payload(n, 0, to)
		}
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
	le.PutUint16(b[14:], uint16(e.plan.nodes[0].off/slotSize)) // close behind the super block, so 16 bits do
	le.PutUint64(b[16:], uint64(len(e.plan.nodes)))
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

func (e *encoder) inode(n *node) {
	i := n.inode
	e.zeros(n.off - e.off)
	var b [inodeSize]byte
	le.PutUint16(b[0:], uint16(extended|n.layout))
	le.PutUint16(b[2:], uint16(n.icount))
	le.PutUint16(b[4:], uint16(n.mode()))
	le.PutUint64(b[8:], uint64(n.size))
	switch {
	case n.layout == layoutChunk:
		le.PutUint16(b[16:], uint16(chunkIndexes|n.chunkBits))
	case n.block >= 0:
		le.PutUint32(b[16:], uint32(n.block))
	case i.IsReg() || i.IsDir() || i.IsLink():
		le.PutUint32(b[16:], noBlock)
	default:
		le.PutUint32(b[16:], i.Rdev)
	}
	le.PutUint32(b[20:], uint32(n.off/slotSize))
	le.PutUint32(b[24:], i.UID)
	le.PutUint32(b[28:], i.GID)
	le.PutUint64(b[32:], uint64(i.Sec))
	le.PutUint32(b[40:], i.Nsec)
	le.PutUint32(b[44:], n.nlink)
	e.write(b[:])
	e.xattrs(n)
	switch n.layout {
	case layoutChunk:
		e.zeros(-e.off & 7)
		e.chunks(n)
	case layoutInline:
		e.payload(n, n.size&^(blockSize-1), n.size)
	}
}

// chunks writes where the file's bytes lie: device numbers count from 1, block numbers from the start of the device.
func (e *encoder) chunks(n *node) {
	step := int64(blockSize) << n.chunkBits
	for at := int64(0); at < n.size; at += step {
		var b [chunkSize]byte
		le.PutUint16(b[2:], n.inode.Dev+1)
		le.PutUint32(b[4:], uint32((n.inode.Off+at)/blockSize))
		e.write(b[:])
	}
}

// chunkBitsFor chooses the smallest chunk that holds the file whole, so that nearly every file has exactly one.
func chunkBitsFor(size int64) int {
	return min(bits.Len64(uint64(size-1)>>blockBits), maxChunkBits)
}

func (e *encoder) xattrs(n *node) {
	if n.icount == 0 {
		return
	}
	var h [xattrHeader]byte
	e.write(h[:])
	for _, x := range n.xattrs {
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
func (e *encoder) payload(n *node, from, to int64) {
	if n.inode.IsLink() {
		e.text(n.inode.Link[from:to])
		return
	}
	for _, b := range n.blocks[from/blockSize:] {
		start, nameoff := e.off, len(b)*direntSize
		for _, d := range b {
			var r [direntSize]byte
			le.PutUint64(r[0:], uint64(e.plan.nodes[d.node].off/slotSize))
			le.PutUint16(r[8:], uint16(nameoff))
			r[10] = e.plan.nodes[d.node].fileType()
			e.write(r[:])
			nameoff += len(d.name)
		}
		for _, d := range b {
			e.text(d.name)
		}
		if from += blockSize; from < n.size {
			e.zeros(blockSize - (e.off - start))
		}
		if from >= to {
			return
		}
	}
}

func (n *node) fileType() byte {
	switch n.mode() & unix.S_IFMT {
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
