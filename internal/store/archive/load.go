package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/ctxio"
	"github.com/dhow-containers/dhow/internal/store/image"
)

// LoadOptions say what to take from an archive. Progress tells how far a large layer is.
type LoadOptions struct {
	Platforms []ocispec.Platform // none: all of an index that are in the archive; the host's, or else the first, has the names
	Host      ocispec.Platform
	Progress  func(layer string, current, total int64)
}

// Load reads an archive from r to its end and makes its images images of this host: all of them, or with an error none.
func Load(ctx context.Context, s *image.Store, r io.Reader, o LoadOptions) ([]*image.Fresh, error) {
	b := s.Begin()
	made, err := load(ctx, b, r, o)
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil && ctx.Err() != nil { // what a cut stream looks like from inside is of no interest
		err = fmt.Errorf("image archive: %w", context.Cause(ctx))
	}
	return made, err
}

func load(ctx context.Context, b *image.Batch, r io.Reader, o LoadOptions) ([]*image.Fresh, error) {
	l, err := newLoader(ctx, b, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.read(r); err != nil {
		return nil, err
	}
	if err := l.images(); err != nil {
		return nil, err
	}
	return b.Commit()
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// loader reads one archive.
type loader struct {
	ctx     context.Context
	b       *image.Batch
	o       LoadOptions
	file    *os.File // entries put aside
	used    int64    // bytes of file
	names   int64
	entries map[string]*entry
	buf     []byte
	hash    hash.Hash
	raw     *counter // what came in, however compressed
	out     int64    // what all layers became
	added   []digest.Digest
	parts   int // manifests of other platforms that were looked at
}

func newLoader(ctx context.Context, b *image.Batch, o LoadOptions) (*loader, error) {
	f, err := b.Temp()
	if err != nil {
		return nil, err
	}
	return &loader{ctx: ctx, b: b, o: o, file: f, entries: map[string]*entry{}, buf: make([]byte, 64<<10), hash: sha256.New()}, nil
}

func (l *loader) close() {
	l.file.Close()
	os.Remove(l.file.Name())
}

// grown counts what layers become against what came in, so that compression within compression is no way around the ratio.
func (l *loader) grown(n int) error {
	if l.out += int64(n); l.out > ratioFree && l.out > ratio*l.raw.n {
		return damaged("a bomb: %d bytes became more than %d", l.raw.n, l.out)
	}
	return nil
}

// read takes every entry to its place.
func (l *loader) read(r io.Reader) error {
	l.raw = &counter{r: ctxio.Reader(l.ctx, r)}
	plain, err := image.Inflate(l.raw, 1<<62)
	if err != nil {
		return err
	}
	defer plain.Close()
	tr := tar.NewReader(plain)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			return l.rest(plain)
		}
		if err != nil {
			return broken(err)
		}
		if n >= maxEntries {
			return refuse("more than %d entries", maxEntries)
		}
		if err := l.entry(h, tr); err != nil {
			return broken(err)
		}
	}
}

// broken gives the tar reader's own errors a kind.
func broken(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return refuse("not a tar: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("it ends too early: %w", err)
	}
	return err
}

// rest reads what follows the end, so that a checksum at the end of the compressed stream is looked at.
func (l *loader) rest(r io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxTrailing+1))
	if err == nil && n > maxTrailing {
		err = refuse("more than %d bytes behind its end", maxTrailing)
	}
	return broken(err)
}
