package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Bomb limits. Ordinary layers inflate 2 to 10 times; sparse or zero-filled ones stay under the free allowance or the ratio.
const (
	ratioMax   = 200
	ratioFree  = 64 << 20
	zstdWindow = 32 << 20
	readAhead  = 256 << 10
)

// inflated is a layer's tar as it comes out of whatever compressed it. Which, is seen in the first bytes: registries mislabel
// layers, and the diff ID decides in the end. Its Read ends in io.EOF only after the compressed stream ended too, with
// nothing behind it.
type inflated struct {
	src   *counter
	buf   *bufio.Reader
	dec   io.Reader
	close func()
	out   int64
	cap   int64
	err   error
}

// counter counts what the decompressor consumed.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// inflate begins to decompress r. cap bounds the output.
func inflate(r io.Reader, cap int64) (*inflated, error) {
	f := &inflated{src: &counter{r: r}, cap: cap, close: func() {}}
	f.buf = bufio.NewReaderSize(f.src, readAhead)
	magic, err := f.buf.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(f.buf)
		if err != nil {
			return nil, corrupt("gzip", err)
		}
		f.dec = z
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(f.buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdWindow*2))
		if err != nil {
			return nil, corrupt("zstd", err)
		}
		f.dec, f.close = z, z.Close
	default:
		f.dec = f.buf
	}
	return f, nil
}

// corrupt keeps the kind of an error from below (a wrong digest, a broken connection); what the decoder itself finds is loss.
func corrupt(format string, err error) error {
	if errdef.KindOf(err) != errdef.System {
		return err
	}
	return errdef.New(errdef.DataLoss, "%s stream is damaged: %w", format, err)
}

func (f *inflated) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.dec.Read(p)
	f.out += int64(n)
	switch {
	case f.out > f.cap:
		f.err = errdef.New(errdef.DataLoss, "the stream is a bomb: more than %d bytes uncompressed", f.cap)
	case f.out > ratioFree && f.out > ratioMax*f.src.n:
		f.err = errdef.New(errdef.DataLoss, "the stream is a bomb: %d compressed bytes became more than %d", f.src.n, f.out)
	case err == io.EOF:
		f.err = f.finish()
	case err != nil:
		f.err = corrupt("layer's compressed", err)
	}
	return n, f.err
}

// finish makes sure that the source agrees that this was all: its io.EOF carries the digest's verdict.
func (f *inflated) finish() error {
	n, err := io.Copy(io.Discard, io.LimitReader(f.buf, 1))
	switch {
	case err != nil:
		return err
	case n > 0:
		return errdef.New(errdef.DataLoss, "layer has trailing data behind its compressed stream")
	}
	return io.EOF
}

// Close frees the decoder.
func (f *inflated) Close() { f.close() }

// Inflate gives the uncompressed bytes of what people send: gzip, zstd, bzip2 or nothing, seen in the first bytes, with the bounds
// that layers have; most bounds the output. No program is run for it, so xz and lzma are refused. Its Read ends in io.EOF only
// when nothing is left of r.
func Inflate(r io.Reader, most int64) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, readAhead)
	magic, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for name, begins := range map[string]string{"xz": "\xfd7zXZ\x00", "lzma": "\x5d\x00\x00"} {
		if bytes.HasPrefix(magic, []byte(begins)) {
			return nil, errdef.New(errdef.NotImplemented, "the stream is compressed with %s, which is not supported: pipe it through %[1]s -d", name)
		}
	}
	f, err := inflate(b, most)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(magic, []byte("BZh")) {
		f.dec = bzip2.NewReader(f.buf)
	}
	return inflater{f}, nil
}

type inflater struct{ *inflated }

func (i inflater) Close() error { i.inflated.Close(); return nil }
