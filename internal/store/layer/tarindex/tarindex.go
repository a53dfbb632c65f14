// Package tarindex owns the reading of a layer's tar: from a stream of bytes, or from entries that stand in for them, to a tree.Table that
// says where each file lies.
//
// It promises bounded memory whatever the bytes are, that nothing is allocated by a length that a header merely claims, and that
// every entry either is in the tree exactly as given or the whole layer is refused. It never keeps or copies file contents, and
// must never touch a file system.
package tarindex

import (
	"fmt"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Limits bound what one layer may hold; zero fields mean the defaults.
type Limits struct {
	Entries int   // tar entries; default 1,048,576
	Meta    int64 // bytes of names, link texts and extended attributes; default 64 MiB
	Special int64 // bytes of one extended header or GNU long name; default 1 MiB
	Size    int64 // bytes of the whole tar; default 1 TiB
	Holes   int64 // bytes that sparse files lack in the tar, together: whoever reads them is given zeros; default 64 GiB
}

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 1 << 20
	}
	if l.Meta <= 0 {
		l.Meta = 64 << 20
	}
	if l.Special <= 0 {
		l.Special = 1 << 20
	}
	if l.Size <= 0 || l.Size > 1<<40 {
		l.Size = 1 << 40 // also keeps block numbers of 512 bytes within 32 bits
	}
	if l.Holes <= 0 {
		l.Holes = 64 << 30
	}
	return l
}

// Parser takes a tar in pieces of any size. The first error sticks.
type Parser struct {
	limits Limits
	build  builder

	off  int64  // bytes seen
	skip int64  // bytes of file data still to come, not looked at
	pad  int    // bytes of padding still to come
	want int64  // bytes that acc shall reach: a header, or a special entry's payload
	acc  []byte // grows with the bytes that really come
	spec byte   // type of the special entry whose payload acc collects; 0: acc is a header

	recs             []record // of the extended header before the next entry
	gnuName, gnuLink string
	held             *header // a sparse file whose map is not whole yet
	pending          bool    // an extended header awaits its entry
	zeros            int     // zero blocks seen in a row; from 2 on the archive has ended
	err              error
}

// New returns a Parser.
func New(l Limits) *Parser { return Into(tree.NewTable(), l) }

// Into returns a Parser that makes the tree in t, which is empty.
func Into(t *tree.Table, l Limits) *Parser {
	l = l.withDefaults()
	return &Parser{limits: l, want: block, build: builder{limits: l, tree: t}}
}

// NewPlain returns a Parser for a tar that is no layer: names that are whiteouts in a layer are names like any other.
func NewPlain(t *tree.Table, l Limits) *Parser {
	p := Into(t, l)
	p.build.plain = true
	return p
}

// Write takes the next bytes.
func (p *Parser) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n := len(b)
	if p.off+int64(n) > p.limits.Size {
		p.err = errdef.New(errdef.InvalidArgument, "tar: larger than %d bytes", p.limits.Size)
		return 0, p.err
	}
	for len(b) > 0 {
		used, err := p.step(b)
		p.off += int64(used)
		b = b[used:]
		if err == nil && used > 0 {
			err = p.complete()
		}
		if err != nil {
			p.err = fmt.Errorf("%w (at byte %d)", err, p.off)
			return 0, p.err
		}
	}
	return n, nil
}

// step consumes some of b into the current state.
func (p *Parser) step(b []byte) (int, error) {
	switch {
	case p.skip > 0:
		n := min(int64(len(b)), p.skip)
		p.skip -= n
		return int(n), nil
	case p.pad > 0:
		n := min(len(b), p.pad)
		p.pad -= n
		return n, nil
	default:
		n := int(min(int64(len(b)), p.want-int64(len(p.acc))))
		p.acc = append(p.acc, b[:n]...)
		return n, nil
	}
}

// complete acts when a header or payload is whole.
func (p *Parser) complete() error {
	if p.skip > 0 || p.pad > 0 || int64(len(p.acc)) < p.want {
		return nil
	}
	acc := p.acc
	p.acc = p.acc[:0]
	if p.spec == typeSparse {
		return p.mapped(string(acc))
	}
	if p.spec != 0 {
		err := p.special(p.spec, string(acc))
		p.spec, p.want = 0, block
		p.pad = padding(int64(len(acc)))
		if cap(p.acc) > 64<<10 {
			p.acc = nil
		}
		return err
	}
	return p.header(acc)
}

func padding(n int64) int { return int(-n & (block - 1)) }

// header takes one 512-byte block. p.off stands behind it.
func (p *Parser) header(b []byte) error {
	if zero(b) {
		p.zeros++
		return nil
	}
	if p.zeros >= 2 {
		return errdef.New(errdef.InvalidArgument, "tar: data behind the end of the archive")
	}
	if p.zeros == 1 {
		return errdef.New(errdef.InvalidArgument, "tar: a zero block amid the entries")
	}
	if !checksum(b) {
		return errdef.New(errdef.InvalidArgument, "tar: header checksum is wrong")
	}
	h, err := parseHeader(b)
	if err != nil {
		return err
	}
	switch h.typ {
	case typePAX, typeGlobal, typeGNUName, typeGNULink:
		return p.begin(h)
	}
	if err := h.merge(p.recs); err != nil {
		return err
	}
	if p.gnuName != "" {
		h.name = p.gnuName
	}
	if p.gnuLink != "" {
		h.link = p.gnuLink
	}
	p.recs, p.gnuName, p.gnuLink, p.pending = nil, "", "", false
	if err := h.inRange(p.limits); err != nil {
		return err
	}
	if h.sparse != nil && (h.sparse.more || h.sparse.text) {
		p.held, p.spec, p.want = &h, typeSparse, block
		return nil
	}
	return p.add(&h)
}

func (h *header) inRange(l Limits) error {
	if h.size < 0 || h.size > l.Size {
		return errdef.New(errdef.InvalidArgument, "tar: %.100q: size %d is out of range", h.name, h.size)
	}
	return nil
}

func (p *Parser) add(h *header) error {
	size, err := p.build.add(h, p.off)
	if err != nil {
		return err
	}
	p.skip, p.pad = size, padding(size)
	return nil
}

// mapped takes one more block of a sparse file's map.
func (p *Parser) mapped(b string) (err error) {
	h, s := p.held, p.held.sparse
	if err := p.build.count(0); err != nil {
		return err
	}
	if s.text {
		if h.size < block {
			return errdef.New(errdef.InvalidArgument, "tar: %.100q: the map of a sparse file is longer than its data", h.name)
		}
		h.size -= block
		whole, err := s.feed(b)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "tar: %.100q: %w", h.name, err)
		}
		s.text = !whole
	} else {
		s.old(numbers{err: &err}, []byte(b)[:504])
		s.more = b[504] != 0
		if err == nil && len(s.extents) > tree.MaxExtents {
			err = errdef.New(errdef.InvalidArgument, "tar: %.100q: a sparse file in more than %d pieces", h.name, tree.MaxExtents)
		}
	}
	if err != nil || s.text || s.more {
		p.spec = typeSparse
		return err
	}
	p.held, p.spec = nil, 0
	return p.add(h)
}

// begin prepares for the payload of a special entry.
func (p *Parser) begin(h header) error {
	if h.size < 0 || h.size > p.limits.Special {
		return errdef.New(errdef.InvalidArgument, "tar: extended header of %d bytes: more than %d", h.size, p.limits.Special)
	}
	if err := p.build.count(0); err != nil { // endless special entries are no way around the limit
		return err
	}
	p.pending = h.typ != typeGlobal
	if h.size == 0 {
		return nil
	}
	p.spec, p.want = h.typ, h.size
	return nil
}

// special takes the payload of one. Global headers (git writes one with its commit) say nothing about files here.
func (p *Parser) special(typ byte, s string) (err error) {
	switch typ {
	case typePAX:
		p.recs, err = pax(s)
	case typeGlobal:
		_, err = pax(s)
	case typeGNUName:
		p.gnuName = text([]byte(s))
	case typeGNULink:
		p.gnuLink = text([]byte(s))
	}
	return err
}

// Finish ends the stream and returns the layer's tree.
func (p *Parser) Finish() (*tree.Table, error) {
	switch {
	case p.err != nil:
		return nil, p.err
	case p.skip > 0 || len(p.acc) > 0 && p.zeros < 2 || p.spec != 0: // only padding may be missing: some writers leave it out at the end
		p.err = errdef.New(errdef.DataLoss, "tar: ends in the middle of an entry, at byte %d", p.off)
	case p.pending:
		p.err = errdef.New(errdef.InvalidArgument, "tar: ends behind an extended header, at byte %d", p.off)
	default:
		p.err = errdef.New(errdef.InvalidArgument, "tar: parser was finished already")
		p.build.tree.Settle()
		return p.build.tree, nil
	}
	return nil, p.err
}

// Entries is the number of tar entries so far, Foreign that of hard links into lower layers.
func (p *Parser) Entries() int { return p.build.entries }
func (p *Parser) Foreign() int { return p.build.foreign }
