package lazy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// fetches are how many requests at a time the layers have that are served together. With maxChunk and runs they bound the memory that takes.
const fetches = 2

// A run is fetched with one request: a chunk, and those behind it in the blob up to these bytes, there and inflated. What lies between two of
// them (headers) may be as long as gap.
const (
	runSent = 1 << 20
	runSize = 2 << 20
	gap     = 64 << 10
)

// readAt fills p with the layer's data at off, which lies within its size.
func (l *Layer) readAt(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := l.some(p, off)
		if err != nil {
			l.report(off, err)
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// some fills a part of p: of one chunk, or of the gap between two.
func (l *Layer) some(p []byte, off int64) (int, error) {
	i, c, err := l.chunks.find(off)
	if err != nil {
		return 0, err
	}
	if i < 0 || off >= c.at+c.size {
		to := l.size
		if next, err := l.chunks.get(i + 1); err == nil {
			to = next.at
		} else if err != io.EOF {
			return 0, err
		}
		n := int(min(int64(len(p)), max(to-off, 1)))
		clear(p[:n])
		return n, nil
	}
	p = p[:min(int64(len(p)), c.at+c.size-off)]
	switch c.kind {
	case kindZeros:
		clear(p)
		return len(p), nil
	case kindTable:
		return l.toc.ReadAt(p, c.off+off-c.at)
	}
	it, mine := l.pool.claim(key{l, i})
	if mine {
		l.load(it, c)
	}
	select {
	case <-it.done:
	case <-l.ctx.Done():
		return 0, context.Cause(l.ctx)
	}
	if it.err != nil {
		return 0, it.err
	}
	return copy(p, it.data[off-c.at:]), nil
}

// load finishes an item: out of the tar when that is here, else by a run.
func (l *Layer) load(it *item, c chunk) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-l.ctx.Done():
		l.pool.finish(it, nil, context.Cause(l.ctx))
		return
	}
	if l.tar.Load() == nil {
		_ = l.arrived() // the registry has it, too
	}
	if b := l.fromTar(it.i); b != nil {
		l.pool.finish(it, b, nil)
		return
	}
	items, run := []*item{it}, []chunk{c}
	end, size := c.off+c.len, c.size
	for i := it.i + 1; ; i++ {
		n, err := l.chunks.get(i)
		if err != nil || n.kind != c.kind || n.off < run[len(run)-1].off || n.off > end+gap || n.off+n.len-c.off > runSent || size+n.size > runSize {
			break
		}
		more, mine := l.pool.claim(key{l, i})
		if !mine {
			break
		}
		items, run = append(items, more), append(run, n)
		end, size = max(end, n.off+n.len), size+n.size
	}
	sent := make([]byte, 0, end-c.off)
	err := l.blobs.Section(l.ctx, l.desc.Digest, c.off, end, func(b []byte, _ int64) error { sent = append(sent, b...); return nil })
	for n, it := range items {
		var b []byte
		if err == nil {
			b, it.err = run[n].inflate(l.pool, sent[run[n].off-c.off:])
		} else {
			it.err = err
		}
		l.pool.finish(it, b, it.err)
	}
}

// zstdOptions bound a decoder.
var zstdOptions = []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(32 << 20), zstd.WithDecoderMaxMemory(maxJSON)}

// inflate returns a chunk's bytes when they are what the table promised.
func (c *chunk) inflate(p *Pool, sent []byte) ([]byte, error) {
	var r interface {
		io.Reader
		Reset(io.Reader) error
	}
	if c.kind == kindZstd {
		z, _ := p.zstd.Get().(*zstd.Decoder)
		if z == nil {
			z, _ = zstd.NewReader(nil, zstdOptions...) // the options are right
		}
		defer p.zstd.Put(z)
		r = z
	} else {
		z, _ := p.gzip.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		defer p.gzip.Put(z)
		r = z
	}
	if err := r.Reset(bytes.NewReader(sent)); err != nil {
		return nil, damaged(err)
	}
	if _, err := io.CopyN(io.Discard, r, c.inner); err != nil {
		return nil, damaged(err)
	}
	b := make([]byte, c.size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, damaged(err)
	}
	return b, c.verify(b)
}

func damaged(err error) error {
	return errdef.New(errdef.DataLoss, "what the registry sent is damaged: %w", err)
}

func (c *chunk) verify(b []byte) error {
	if got := sha256.Sum256(b); got != c.sum {
		return errdef.New(errdef.DataLoss, "what the registry sent has the digest %s, promised %s", digest.NewDigestFromBytes(digest.SHA256, got[:]), digest.NewDigestFromBytes(digest.SHA256, c.sum[:]))
	}
	return nil
}

// fromTar returns a chunk out of the layer's tar; nil: it is not here, or says something else than the table does.
func (l *Layer) fromTar(i int) []byte {
	tar := l.tar.Load()
	if tar == nil {
		return nil
	}
	c, err := l.chunks.get(i) // again: where it is in the tar was not known before
	if err != nil || c.tar == 0 {
		return nil
	}
	b := make([]byte, c.size)
	if _, err := tar.ReadAt(b, c.tar); err != nil || c.verify(b) != nil {
		return nil
	}
	return b
}

// arrived looks whether the layer is in its store whole: what is read from now on comes from there, as far as that has what the table says.
func (l *Layer) arrived() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.looked || !l.store.Has(l.diff) {
		return nil
	}
	l.looked = true
	s, id := l.store, l.diff
	info, err := s.Info(id)
	if err != nil {
		return err
	}
	tar, err := s.OpenTar(id)
	if err != nil {
		return err
	}
	err = l.lay(func(promised *tree.Table) error {
		return tree.Roomy(l.dir, func(here *tree.Table) error {
			if err := layer.Lay(s, here, info); err != nil {
				return err
			}
			return tree.Each(here, func(path string, i *tree.Inode) error {
				if path == "" || !i.IsReg() || i.Size == 0 || i.Map != nil {
					return nil
				}
				id := promised.Lookup(path)
				if id == 0 {
					return nil
				}
				if p := promised.Inode(id); p.IsReg() && p.Size == i.Size {
					return l.locate(p.Off, i.Off, i.Size)
				}
				return nil
			})
		})
	})
	if err != nil {
		tar.Close()
		return err
	}
	l.tar.Store(tar)
	return nil
}

// locate notes that size bytes of the data at off are at tar in the tar.
func (l *Layer) locate(off, tar, size int64) error {
	i, c, err := l.chunks.find(off)
	for ; err == nil && c.at < off+size; c, err = l.chunks.get(i) {
		if err := l.chunks.locate(i, tar+c.at-off); err != nil {
			return err
		}
		i++
	}
	if err == io.EOF {
		err = nil
	}
	return err
}
