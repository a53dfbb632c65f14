package erofs

import (
	"bytes"
	"io"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// maxRead bounds an image that is read back.
const maxRead = 1 << 30

// Read reads an image of this writer back, for people to look at: names, attributes, links, devices, and where in which tar files begin. Inodes with
// several names are the same *tree.Inode. Anything that does not fit is an error.
func Read(r io.Reader) (root *tree.Inode, devices []Device, err error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxRead))
	if err != nil {
		return nil, nil, err
	}
	d := &decoder{raw: raw, made: map[uint64]*tree.Inode{}}
	defer func() {
		if p := recover(); p != nil { // a place that is not there
			root, devices, err = nil, nil, errdef.New(errdef.DataLoss, "erofs image: it is damaged or not ours: %v", p)
		}
	}()
	super := raw[superOffset : superOffset+superSize]
	if le.Uint32(super) != magic || super[12] != blockBits {
		return nil, nil, errdef.New(errdef.DataLoss, "erofs image: it is none of dhow's")
	}
	at := int(le.Uint16(super[88:])) * deviceSize
	for range le.Uint16(super[86:]) {
		v := Device{Size: int64(le.Uint32(raw[at+64:])) * blockSize}
		copy(v.Tag[:], raw[at:])
		devices, at = append(devices, v), at+deviceSize
	}
	root = d.inode(uint64(le.Uint16(super[14:])))
	if !root.IsDir() {
		return nil, nil, errdef.New(errdef.DataLoss, "erofs image: its root is no directory")
	}
	return root, devices, nil
}

type decoder struct {
	raw     []byte
	made    map[uint64]*tree.Inode
	entries int
	depth   int
}

// count bounds names and inodes by what has room in the image, so that nothing is read over and over.
func (d *decoder) count() {
	if d.entries++; d.entries > len(d.raw)/direntSize {
		panic("more names than have room")
	}
}

func (d *decoder) inode(nid uint64) *tree.Inode {
	if i := d.made[nid]; i != nil {
		return i
	}
	d.count()
	b := d.raw[nid*slotSize:]
	i := &tree.Inode{Mode: uint32(le.Uint16(b[4:])), UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]), Sec: int64(le.Uint64(b[32:])), Nsec: le.Uint32(b[40:])}
	d.made[nid] = i
	size, layout := int64(le.Uint64(b[8:])), le.Uint16(b)&^extended
	body := inodeSize
	if n := int(le.Uint16(b[2:])); n > 0 {
		body += xattrHeader + (n-1)*4
		i.Xattrs = xattrs(b[inodeSize+xattrHeader : body])
	}
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if i.Size = size; layout == layoutChunk {
			for c := b[(body+7)&^7:]; size > 0; c, size = c[chunkSize:], size-int64(blockSize)<<(le.Uint16(b[16:])&31) {
				if block := le.Uint32(c[4:]); block != noBlock { // before that are holes
					i.Dev, i.Off = le.Uint16(c[2:])-1, int64(block)*blockSize
					break
				}
			}
		}
	case unix.S_IFDIR:
		i.Dir = &tree.Dir{Kids: map[string]*tree.Inode{}}
		d.dir(i, d.data(b, body, size, layout))
	case unix.S_IFLNK:
		i.Link = string(d.data(b, body, size, layout))
	default:
		i.Rdev = le.Uint32(b[16:])
	}
	return i
}

// data is what a directory or a link holds: whole blocks elsewhere, the rest behind the inode.
func (d *decoder) data(b []byte, body int, size int64, layout uint16) []byte {
	far := size
	if layout == layoutInline {
		far &^= blockSize - 1
	}
	var out []byte
	if far > 0 {
		at := int64(le.Uint32(b[16:])) * blockSize
		out = append(out, d.raw[at:at+far]...)
	}
	return append(out, b[body:int64(body)+size-far]...)
}

func (d *decoder) dir(i *tree.Inode, data []byte) {
	if d.depth++; d.depth > tree.MaxPath {
		panic("directories nested too deep")
	}
	defer func() { d.depth-- }()
	for len(data) > 0 {
		block := data[:min(len(data), blockSize)]
		data = data[len(block):]
		count := int(le.Uint16(block[8:])) / direntSize
		for n := range count {
			e := block[n*direntSize:]
			end := len(block)
			if n+1 < count {
				end = int(le.Uint16(e[direntSize+8:]))
			}
			name := string(bytes.TrimRight(block[le.Uint16(e[8:]):end], "\x00"))
			if name == "." || name == ".." {
				continue
			}
			d.count()
			nid := le.Uint64(e)
			if k := d.made[nid]; k != nil && k.IsDir() {
				panic("a directory with two names")
			}
			i.Dir.Kids[name] = d.inode(nid)
		}
	}
}

func xattrs(b []byte) (out []tree.Xattr) {
	for len(b) >= 4 {
		n, v := int(b[0]), int(le.Uint16(b[2:]))
		prefix := ""
		for _, p := range xattrPrefixes {
			if p.index == b[1] {
				prefix = p.prefix
			}
		}
		out = append(out, tree.Xattr{Name: prefix + string(b[4:4+n]), Value: string(b[4+n : 4+n+v])})
		b = b[min(len(b), (4+n+v+3)&^3):]
	}
	return out
}
