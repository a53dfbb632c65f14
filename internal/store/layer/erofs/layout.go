package erofs

import (
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// layout is where everything lies: super block, root inode, device table, the other inodes, then the blocks of those directories
// and links that do not fit behind their inode.
type layout struct {
	nodes       []node // the root first, parents before children
	deviceTable int64
	dataStart   int64
	end         int64
}

// node is an inode in the image.
type node struct {
	inode     *tree.Inode
	off       int64
	size      int64
	layout    int
	chunkBits int
	block     int64 // first block of plain data, -1: none
	icount    int   // i_xattr_icount
	nlink     uint32
	xattrs    []tree.Xattr
	blocks    [][]dirent // directories: entries by block
}

type dirent struct {
	name string
	node int
}

// whiteoutNode is the one inode that all whiteouts share; its link count is theirs.
func whiteoutInode() *tree.Inode { return &tree.Inode{Mode: unix.S_IFCHR} }

func (n *node) mode() uint32 { return n.inode.Mode }

type planner struct {
	layout
	opts Options
	wh   int // number of the whiteout inode, 0: none yet
}

func plan(root *tree.Inode, devices int, o Options) (*layout, error) {
	p := &planner{opts: o}
	if err := unmark(root); err != nil {
		return nil, err
	}
	if err := p.add(root); err != nil {
		return nil, err
	}
	if err := p.fill(0, 0); err != nil {
		return nil, err
	}
	p.place(devices)
	return &p.layout, nil
}

func unmark(root *tree.Inode) error {
	root.Mark = -1
	return tree.Walk(root, func(path string, _, i *tree.Inode) error {
		i.Mark = -1
		if i.Foreign() {
			i.Mark = -2
		}
		return nil
	})
}

// add numbers an inode and settles everything about it but its entries and its place.
func (p *planner) add(i *tree.Inode) error {
	i.Mark = len(p.nodes)
	n := node{inode: i, block: -1, xattrs: i.Xattrs}
	if i.IsDir() && i.Dir.Opaque && p.opts.Whiteouts {
		n.xattrs = append(n.xattrs[:len(n.xattrs):len(n.xattrs)], tree.Xattr{Name: "trusted.overlay.opaque", Value: "y"})
	}
	size := 0
	for _, x := range n.xattrs {
		index, name := splitXattr(x.Name)
		if index == 0 || len(name) > 255 || len(x.Value) > 0xffff {
			return errdef.New(errdef.InvalidArgument, "erofs image: extended attribute %.100q can't be stored", x.Name)
		}
		size += (4 + len(name) + len(x.Value) + 3) &^ 3
	}
	if len(n.xattrs) > 0 {
		n.icount = 1 + size/4
	}
	if n.icount > maxIcount {
		return errdef.New(errdef.InvalidArgument, "erofs image: extended attributes of one inode exceed 256 KiB")
	}
	switch {
	case i.IsReg() && i.Size > 0:
		n.size, n.layout, n.chunkBits = i.Size, layoutChunk, chunkBitsFor(i.Size)
	case i.IsLink():
		n.size = int64(len(i.Link))
	}
	p.nodes = append(p.nodes, n)
	return nil
}

// fill collects the entries of directory number self and goes down.
func (p *planner) fill(self, parent int) error {
	dir := p.nodes[self].inode.Dir
	ents := make([]dirent, 0, len(dir.Kids)+2)
	ents = append(ents, dirent{".", self}, dirent{"..", parent})
	p.nodes[self].nlink = 2
	var down []int
	for _, name := range dir.Names() {
		k := dir.Kids[name]
		if k.Mark == -2 { // a foreign link: shown once the layers are merged
			continue
		}
		if k.Mark < 0 {
			if err := p.add(k); err != nil {
				return err
			}
		}
		ents = append(ents, dirent{name, k.Mark})
		if k.IsDir() {
			down = append(down, k.Mark)
			p.nodes[self].nlink++
		} else {
			p.nodes[k.Mark].nlink++
		}
	}
	if p.opts.Whiteouts {
		if err := p.hide(dir, &ents); err != nil {
			return err
		}
	}
	sort.Slice(ents, func(a, b int) bool { return strings.Compare(ents[a].name, ents[b].name) < 0 })
	p.nodes[self].split(ents)
	for _, k := range down {
		if err := p.fill(k, self); err != nil {
			return err
		}
	}
	return nil
}

// hide adds the whiteouts of a directory. A name that the layer has itself covers the lower one, a directory by being opaque.
func (p *planner) hide(dir *tree.Dir, ents *[]dirent) error {
	for _, name := range dir.Hidden() {
		if dir.Kids[name] != nil {
			continue
		}
		if p.wh == 0 {
			p.wh = len(p.nodes)
			if err := p.add(whiteoutInode()); err != nil {
				return err
			}
		}
		*ents = append(*ents, dirent{name, p.wh})
		p.nodes[p.wh].nlink++
	}
	return nil
}

// split distributes entries over blocks, which no entry crosses.
func (n *node) split(ents []dirent) {
	used, from := 0, 0
	for i, d := range ents {
		need := direntSize + len(d.name)
		if used+need > blockSize {
			n.blocks = append(n.blocks, ents[from:i:i])
			used, from = 0, i
		}
		used += need
	}
	n.blocks = append(n.blocks, ents[from:])
	n.size = int64(len(n.blocks)-1)*blockSize + int64(used)
}

// place gives inodes and blocks their offsets.
func (p *planner) place(devices int) {
	end := p.nodes[0].put(rootOffset)
	p.deviceTable = (end + deviceSize - 1) &^ (deviceSize - 1)
	end = p.deviceTable + int64(devices)*deviceSize
	for i := range p.nodes[1:] {
		end = p.nodes[1+i].put(end)
	}
	end = (end + blockSize - 1) &^ (blockSize - 1)
	p.dataStart = end
	for i := range p.nodes {
		if blocks := p.nodes[i].plainBlocks(); blocks > 0 {
			p.nodes[i].block = end / blockSize
			end += blocks * blockSize
		}
	}
	p.end = (end + pageSize - 1) &^ (pageSize - 1)
}

// put places the inode at or behind off, so that neither the inode itself nor inline data crosses a block, and returns its end.
func (n *node) put(off int64) int64 {
	fixed := int64(inodeSize)
	if n.icount > 0 {
		fixed += xattrHeader + int64(n.icount-1)*4
	}
	tail := n.size & (blockSize - 1)
	off = (off + slotSize - 1) &^ (slotSize - 1)
	if at, ok := seat(off, fixed, tail); ok && tail > 0 && (n.inode.IsDir() || n.inode.IsLink()) {
		off, n.layout = at, layoutInline
	} else {
		off, _ = seat(off, fixed, 0)
	}
	n.off = off
	end := off + fixed
	switch n.layout {
	case layoutChunk:
		step := int64(blockSize) << n.chunkBits
		end = (end+7)&^7 + (n.size+step-1)/step*chunkSize
	case layoutInline:
		end += tail
	}
	return end
}

// seat finds the first place at or behind off where neither the inode nor a tail behind its fixed part crosses a block.
func seat(off, fixed, tail int64) (int64, bool) {
	for tries := 0; tries < blockSize/slotSize; tries++ {
		if off%blockSize+inodeSize <= blockSize && (tail == 0 || (off+fixed)%blockSize+tail <= blockSize) {
			return off, true
		}
		off += slotSize
	}
	return off, false
}

// plainBlocks is how many blocks of data lie apart from the inode.
func (n *node) plainBlocks() int64 {
	if !n.inode.IsDir() && !n.inode.IsLink() {
		return 0
	}
	if n.layout == layoutInline {
		return n.size / blockSize
	}
	return (n.size + blockSize - 1) / blockSize
}

func splitXattr(name string) (index byte, rest string) {
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			return p.index, rest
		}
	}
	return 0, ""
}
