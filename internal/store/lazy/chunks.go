package lazy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Kinds of chunks: how its bytes are got.
const (
	kindGzip  = 1 + iota // a gzip member of the blob
	kindZstd             // zstd frames of the blob
	kindZeros            // not at all
	kindTable            // it is the table itself, which is here
)

// Bounds of chunks.
const (
	maxChunk  = 5 << 20 // bytes, with what comes before it when it is inflated; eStargz makes them of 4 MiB
	maxChunks = 1 << 20
)

// chunk is a run of a layer's data.
type chunk struct {
	at, size int64 // in the data
	off      int64 // in the blob: where to begin to inflate
	len      int64 // bytes of the blob to ask for
	inner    int64 // inflated bytes to skip
	tar      int64 // in the layer's tar, when that is here; 0: not known
	kind     byte
	sum      [32]byte
}

// chunkSize is what a chunk takes on disk: the fields in order.
const chunkSize = 88

var le = binary.LittleEndian

func (c *chunk) encode() (b [chunkSize]byte) {
	for i, v := range []int64{c.at, c.size, c.off, c.len, c.inner, c.tar, int64(c.kind)} {
		le.PutUint64(b[8*i:], uint64(v))
	}
	copy(b[56:], c.sum[:])
	return b
}

func (c *chunk) decode(b []byte) {
	for i, v := range []*int64{&c.at, &c.size, &c.off, &c.len, &c.inner, &c.tar} {
		*v = int64(le.Uint64(b[8*i:]))
	}
	c.kind = b[48]
	copy(c.sum[:], b[56:])
}

// unhex is a digest in bytes; it was checked to be one.
func unhex(d digest.Digest) []byte {
	b, _ := hex.DecodeString(d.Encoded())
	return b
}

// writer writes chunks in the order of the data.
type writer struct {
	w       *bufio.Writer
	kind    byte
	table   int64   // where the table begins in the blob
	pending []chunk // that begin at the same place of the blob, whose end is not known yet
	n       int
}

func newWriter(f *os.File, at place) *writer {
	return &writer{w: bufio.NewWriter(f), kind: at.kind, table: at.off}
}

func (w *writer) add(c chunk) error {
	if w.n++; w.n > maxChunks {
		return errdef.New(errdef.NotImplemented, "more than %d chunks", maxChunks)
	}
	if c.kind == w.kind && len(w.pending) > 0 && c.off != w.pending[0].off || len(w.pending) > 1<<14 {
		if err := w.flush(c.off); err != nil {
			return err
		}
	}
	if c.kind != w.kind && len(w.pending) == 0 {
		return w.put(c)
	}
	w.pending = append(w.pending, c)
	return nil
}

// flush writes what is pending, which ends at or before next.
func (w *writer) flush(next int64) error {
	for _, c := range w.pending {
		if c.kind == w.kind {
			// Neither stream is longer than its content by more than this.
			c.len = c.inner + c.size + (c.inner+c.size)/64 + 4096
			if next > c.off {
				c.len = min(c.len, next-c.off)
			}
			c.len = min(c.len, w.table-c.off)
		}
		if err := w.put(c); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return nil
}

func (w *writer) put(c chunk) error {
	b := c.encode()
	_, err := w.w.Write(b[:])
	return err
}

// end returns how many there are.
func (w *writer) end() (int, error) {
	err := w.flush(w.table)
	if err == nil {
		err = w.w.Flush()
	}
	return w.n, err
}

// chunks are the chunks of a layer in a file: a table of a million takes no memory.
type chunks struct {
	f *os.File
	n int
}

func (s *chunks) get(i int) (c chunk, err error) {
	if i < 0 || i >= s.n {
		return c, io.EOF
	}
	var b [chunkSize]byte
	if _, err := s.f.ReadAt(b[:], int64(i)*chunkSize); err != nil {
		return c, err
	}
	c.decode(b[:])
	return c, nil
}

// find returns the last chunk that begins at or before off; -1: there is none.
func (s *chunks) find(off int64) (i int, c chunk, err error) {
	lo, hi := 0, s.n
	for lo < hi && err == nil {
		mid := (lo + hi) / 2
		if c, err = s.get(mid); c.at <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if err != nil || lo == 0 {
		return -1, c, err
	}
	c, err = s.get(lo - 1)
	return lo - 1, c, err
}

// locate notes where a chunk is in the tar.
func (s *chunks) locate(i int, tar int64) error {
	var b [8]byte
	le.PutUint64(b[:], uint64(tar))
	_, err := s.f.WriteAt(b[:], int64(i)*chunkSize+40)
	return err
}
