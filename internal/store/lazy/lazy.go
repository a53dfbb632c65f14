// Package lazy owns layers that are used before they are here: their tables of contents, and the bytes of their files, fetched when
// somebody reads them.
//
// It promises that no byte reaches a reader which does not have the digest that the table gives for its chunk, that the table has the
// digest which the image's manifest gives for it, that a table may say no more than a tar may, and that memory is bounded whatever
// a registry sends. It must never decide that a layer is here, and never write to a store: a pull does, besides.
package lazy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Blobs give sections of blobs; registry.Repo does.
type Blobs interface {
	Section(ctx context.Context, blob digest.Digest, from, to int64, put func(b []byte, at int64) error) error
}

// Layer is a layer by its table of contents. It holds open, nameless files until Close.
type Layer struct {
	desc    ocispec.Descriptor
	diff    digest.Digest
	blobs   Blobs
	pool    *Pool
	dir     string   // for nameless files
	toc     *os.File // the table as it is in JSON
	tree    *os.File // as tree.Table encodes it
	chunks  chunks
	size    int64 // bytes of the file with the layer's data
	foreign bool  // it has hard links into lower layers

	store  *layer.Store            // where it is to arrive
	tar    atomic.Pointer[os.File] // when it has arrived
	ctx    context.Context         // of all fetches
	cancel context.CancelFunc
	slots  chan struct{} // one for each fetch that may be under way

	mu      sync.Mutex
	looked  bool // for the tar, when it was there
	trouble func(error)
	told    time.Time // when trouble was called last
}

// Open fetches the table of contents of a layer, diff, that is to arrive in a store. dir is for nameless files. NotImplemented: it has no table,
// or not one that can be used; all other errors are of the registry, or say that the table is not what the manifest promised.
func (p *Pool) Open(ctx context.Context, dir string, blobs Blobs, d ocispec.Descriptor, s *layer.Store, diff digest.Digest) (_ *Layer, err error) {
	at, err := locate(d)
	if err != nil {
		return nil, err
	}
	l := &Layer{desc: d, diff: diff, blobs: blobs, pool: p, dir: dir, store: s}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	for _, f := range []**os.File{&l.toc, &l.tree, &l.chunks.f} {
		if *f, err = atomicfile.Nameless(dir, "lazy"); err != nil {
			return nil, err
		}
	}
	if err = at.fetch(ctx, blobs, d, dir, l.toc); err == nil {
		err = tree.Roomy(dir, func(t *tree.Table) error { return l.read(t, at) })
	}
	if err != nil {
		return nil, fmt.Errorf("table of contents of layer %s: %w", d.Digest, err)
	}
	return l, nil
}

// read makes tree and chunks of the table.
func (l *Layer) read(t *tree.Table, at place) error {
	e := tarindex.FromEntries(t, tarindex.Limits{})
	r := &reader{entries: e, chunks: newWriter(l.chunks.f, at)}
	if err := r.all(l.toc, at); err != nil {
		return err
	}
	var err error
	if l.chunks.n, err = r.chunks.end(); err != nil {
		return err
	}
	l.size, l.foreign = max(r.size, page), e.Foreign() > 0
	return t.Encode(l.tree)
}

// Close lets everything go; what is being fetched ends. The layer must not be served any more.
func (l *Layer) Close() {
	l.cancel()
	l.pool.forget(l)
	for _, f := range []*os.File{l.toc, l.tree, l.chunks.f, l.tar.Load()} {
		f.Close() // of a nil file it is an error without effect
	}
}

// Served are layers whose bytes the kernel can ask for.
type Served struct {
	root   *os.File
	layers []*Layer
}

// Serve makes files of layers. It closes them when nobody can read them any more: after Close, when the last mount that uses them has gone.
// trouble is told, not more than once in a second for each layer, why a read failed.
func Serve(layers []*Layer, trouble func(error)) (*Served, error) {
	var sizes []int64
	slots := make(chan struct{}, fetches)
	for _, l := range layers {
		l.trouble, l.slots = trouble, slots
		sizes = append(sizes, l.size)
	}
	root, err := serve(sizes, func(n int, p []byte, off int64) error { return layers[n].readAt(p, off) }, func() {
		for _, l := range layers {
			l.Close()
		}
	})
	if err != nil {
		return nil, err
	}
	return &Served{root, layers}, nil
}

// Lend tells the layer store what it needs to put a layer into a chain. The descriptor is the caller's to close.
func (s *Served) Lend(n int) (layer.Lent, error) {
	l := s.layers[n]
	st, err := l.tree.Stat()
	if err != nil {
		return layer.Lent{}, err
	}
	data, err := openAt(s.root, n)
	if err != nil {
		return layer.Lent{}, err
	}
	return layer.Lent{Tree: l.tree, TreeSize: st.Size(), Data: data, Size: l.size, Foreign: l.foreign}, nil
}

// Close lets the files go; mounts keep theirs.
func (s *Served) Close() { s.root.Close() }

// Size is how many bytes the files of the layer have.
func (l *Layer) Size() int64 { return l.size }

// report tells why a read at off failed.
func (l *Layer) report(off int64, cause error) {
	l.mu.Lock()
	due := l.trouble != nil && time.Since(l.told) > time.Second
	if due {
		l.told = time.Now()
	}
	l.mu.Unlock()
	if !due || l.ctx.Err() != nil {
		return
	}
	l.trouble(errdef.New(errdef.KindOf(cause), "read %s of layer %s, which has not arrived: %w", l.fileAt(off), l.desc.Digest, cause))
}

// fileAt names the file that a byte belongs to.
func (l *Layer) fileAt(off int64) string {
	name := fmt.Sprintf("byte %d", off)
	_ = l.lay(func(t *tree.Table) error {
		return tree.Each(t, func(path string, i *tree.Inode) error {
			if i.IsReg() && i.Off <= off && off < i.Off+i.Size {
				name = fmt.Sprintf("%q", filepath.Join("/", path))
			}
			return nil
		})
	})
	return name
}

// lay gives f the layer's tree.
func (l *Layer) lay(f func(t *tree.Table) error) error {
	st, err := l.tree.Stat()
	if err != nil {
		return err
	}
	return tree.Roomy(l.dir, func(t *tree.Table) error {
		if err := t.Lay(l.tree, st.Size(), 0, false); err != nil {
			return err
		}
		return f(t)
	})
}
