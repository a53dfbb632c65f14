package erofs

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/spill"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// layout is where everything lies: super block, root inode, device table, the other inodes, then the blocks of those directories
// and links that do not fit behind their inode. It holds little of a tree, which it asks again and again.
type layout struct {
	tree        *tree.Table
	nodes       spill.List[node] // the root first, parents before children
	number      []uint32
	deviceTable int64
	dataStart   int64
	end         int64
}

// node is an inode in the image.
type node struct {
	id    tree.ID
	up    uint32 // directories: the parent's number
	size  uint32 // directories: bytes
	links uint32
	slot  uint32 // where it lies
	block uint32 // first block of plain data, noBlock: none
}

// foreign is in the place of a number: a link that is shown once the layers are merged.
const foreign = ^uint32(0)

// body is what a node is in full.
type body struct {
	tree.Inode
	size      int64
	layout    int
	chunkBits int
	icount    int // i_xattr_icount
}

func plan(t *tree.Table, devices int) (*layout, error) {
	p := &layout{tree: t, nodes: spill.List[node]{Space: tree.Space(t)}, number: spill.Make[uint32](tree.Space(t), t.Inodes())}
	if err := p.fill(p.add(t.Root())); err != nil {
		return nil, err
	}
	return p, p.place(devices)
}

// add numbers an inode. Numbers in p.number are one more, for 0 to be none.
func (p *layout) add(id tree.ID) uint32 {
	n := p.nodes.Add(node{id: id, block: noBlock})
	p.number[id] = n + 1
	return n
}

// fill numbers what is in a directory and goes down.
func (p *layout) fill(self uint32) error {
	p.nodes.At(self).links = 2
	var down []uint32
	err := p.tree.Names(p.nodes.At(self).id, func(_ []byte, id tree.ID) error {
		if id == 0 { // a whiteout
			return nil
		}
		mode := p.tree.Mode(id)
		if mode == 0 {
			p.number[id] = foreign
			return nil
		}
		if p.number[id] == 0 {
			p.add(id)
		}
		n := p.number[id] - 1
		if mode&unix.S_IFMT == unix.S_IFDIR {
			p.nodes.At(n).up = self
			down = append(down, n)
			n = self
		}
		p.nodes.At(n).links++
		return nil
	})
	used, blocks := 0, 0
	p.entries(self, func(name []byte, _ uint32) {
		need := direntSize + len(name)
		if used+need > blockSize {
			used, blocks = 0, blocks+1
		}
		used += need
	})
	p.nodes.At(self).size = uint32(blocks*blockSize + used)
	for _, k := range down {
		if err == nil {
			err = p.fill(k)
		}
	}
	return err
}

// entries lists a directory as the image has it, in byte order.
func (p *layout) entries(self uint32, f func(name []byte, node uint32)) {
	dots := []string{".", ".."}
	dot := func() {
		if dots[0] == "." {
			f([]byte("."), self)
		} else {
			f([]byte(".."), p.nodes.At(self).up)
		}
		dots = dots[1:]
	}
	_ = p.tree.Entries(p.nodes.At(self).id, func(name []byte, id tree.ID) error {
		for len(dots) > 0 && dots[0] < string(name) {
			dot()
		}
		if id != 0 && p.number[id] != foreign {
			f(name, p.number[id]-1)
		}
		return nil
	})
	for len(dots) > 0 {
		dot()
	}
}

// body settles everything about a node but its place.
func (p *layout) body(n *node) (b body, err error) {
	b.Inode = p.tree.Inode(n.id)
	size := 0
	for _, x := range b.Xattrs {
		index, name := splitXattr(x.Name)
		if index == 0 || len(name) > 255 || len(x.Value) > 0xffff {
			return b, errdef.New(errdef.InvalidArgument, "erofs image: extended attribute %.100q can't be stored", x.Name)
		}
		size += (4 + len(name) + len(x.Value) + 3) &^ 3
	}
	if len(b.Xattrs) > 0 {
		b.icount = 1 + size/4
	}
	if b.icount > maxIcount {
		return b, errdef.New(errdef.InvalidArgument, "erofs image: extended attributes of one inode exceed 256 KiB")
	}
	switch {
	case b.IsReg() && b.Size > 0:
		b.size, b.layout, b.chunkBits = b.Size, layoutChunk, chunkBitsFor(&b.Inode)
	case b.IsLink():
		b.size = int64(len(b.Link))
	case b.IsDir():
		b.size = int64(n.size)
	}
	if off := int64(n.slot) * slotSize; off > 0 && b.fits(off) {
		b.layout = layoutInline
	}
	return b, nil
}

// fixed is the size of an inode without what may lie behind it.
func (b *body) fixed() int64 {
	if b.icount == 0 {
		return inodeSize
	}
	return inodeSize + xattrHeader + int64(b.icount-1)*4
}

// fits tells whether the end of a directory or a link fits behind its inode at off.
func (b *body) fits(off int64) bool {
	tail := b.size & (blockSize - 1)
	return tail > 0 && (b.IsDir() || b.IsLink()) && (off+b.fixed())%blockSize+tail <= blockSize
}

// place gives inodes and blocks their offsets.
func (p *layout) place(devices int) error {
	end := int64(rootOffset)
	for i := range uint32(p.nodes.Len()) {
		n := p.nodes.At(i)
		b, err := p.body(n)
		if err != nil {
			return err
		}
		if end = n.put(&b, end); i == 0 {
			p.deviceTable = (end + deviceSize - 1) &^ (deviceSize - 1)
			end = p.deviceTable + int64(devices)*deviceSize
		}
	}
	end = (end + blockSize - 1) &^ (blockSize - 1)
	p.dataStart = end
	for i := range uint32(p.nodes.Len()) {
		n := p.nodes.At(i)
		if p.tree.Mode(n.id)&unix.S_IFMT != unix.S_IFDIR && p.tree.Mode(n.id)&unix.S_IFMT != unix.S_IFLNK {
			continue
		}
		b, err := p.body(n)
		if err != nil {
			return err
		}
		if blocks := b.plainBlocks(); blocks > 0 {
			n.block = uint32(end / blockSize)
			end += blocks * blockSize
		}
	}
	if p.end = (end + pageSize - 1) &^ (pageSize - 1); p.end/blockSize > noBlock {
		return errdef.New(errdef.InvalidArgument, "erofs image: more than 2 TiB")
	}
	return nil
}

// put places the inode at or behind off, so that neither the inode itself nor inline data crosses a block, and returns its end.
func (n *node) put(b *body, off int64) int64 {
	off = (off + slotSize - 1) &^ (slotSize - 1)
	at, ok := b.seat(off, b.fits)
	if !ok {
		at, _ = b.seat(off, func(int64) bool { return true })
	} else {
		b.layout = layoutInline
	}
	n.slot = uint32(at / slotSize)
	end := at + b.fixed()
	switch b.layout {
	case layoutChunk:
		step := int64(blockSize) << b.chunkBits
		end = (end+7)&^7 + (b.size+step-1)/step*chunkSize
	case layoutInline:
		end += b.size & (blockSize - 1)
	}
	return end
}

// seat finds the first place at or behind off where the inode does not cross a block, and that is right.
func (b *body) seat(off int64, right func(off int64) bool) (int64, bool) {
	for tries := 0; tries < blockSize/slotSize; tries++ {
		if off%blockSize+inodeSize <= blockSize && right(off) {
			return off, true
		}
		off += slotSize
	}
	return off, false
}

// plainBlocks is how many blocks of data lie apart from the inode.
func (b *body) plainBlocks() int64 {
	if !b.IsDir() && !b.IsLink() {
		return 0
	}
	if b.layout == layoutInline {
		return b.size / blockSize
	}
	return (b.size + blockSize - 1) / blockSize
}

func splitXattr(name string) (index byte, rest string) {
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			return p.index, rest
		}
	}
	return 0, ""
}
