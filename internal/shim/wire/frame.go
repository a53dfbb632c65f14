package wire

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// HeaderLen is the length of a frame's header; MaxFrame bounds the payload, in bytes.
const (
	HeaderLen = 8
	MaxFrame  = 1 << 20
)

// PutHeader writes the header of a frame with a payload of n bytes into b[:HeaderLen].
func PutHeader(b []byte, typ byte, n int) {
	b[0], b[1], b[2], b[3] = typ, 0, 0, 0
	binary.BigEndian.PutUint32(b[4:HeaderLen], uint32(n))
}

// Frames reads frames from a stream.
type Frames struct {
	r   io.Reader
	buf []byte
	hdr [HeaderLen]byte
}

// NewFrames returns a reader of frames from r.
func NewFrames(r io.Reader) *Frames { return &Frames{r: r} }

// Next returns the next frame; its payload is valid until the next call. io.EOF comes only between frames; a frame cut short
// is io.ErrUnexpectedEOF, a wrong header is errdef.InvalidArgument.
func (f *Frames) Next() (typ byte, payload []byte, err error) {
	if _, err := io.ReadFull(f.r, f.hdr[:]); err != nil {
		return 0, nil, err
	}
	typ = f.hdr[0]
	n := binary.BigEndian.Uint32(f.hdr[4:])
	if typ > FrameReply || f.hdr[1] != 0 || f.hdr[2] != 0 || f.hdr[3] != 0 {
		return 0, nil, errdef.New(errdef.InvalidArgument, "frame header % x: not a frame", f.hdr[:])
	}
	if n > MaxFrame {
		return 0, nil, errdef.New(errdef.InvalidArgument, "frame of %d bytes: the limit is %d", n, MaxFrame)
	}
	if payload, err = f.fill(int(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return typ, payload, nil
}

// fill reads n bytes, growing the buffer only as bytes arrive: a header alone must not cost a megabyte.
func (f *Frames) fill(n int) ([]byte, error) {
	const step = 64 << 10
	for have := 0; have < n; {
		want := min(n, have+step)
		if want > len(f.buf) {
			f.buf = append(f.buf, make([]byte, want-len(f.buf))...)
		}
		if _, err := io.ReadFull(f.r, f.buf[have:want]); err != nil {
			return nil, err
		}
		have = want
	}
	return f.buf[:n], nil
}
