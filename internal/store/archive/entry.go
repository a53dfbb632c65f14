package archive

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/opencontainers/go-digest"
)

// entry is a regular file of the archive, or another name of one.
type entry struct {
	alias string        // clean name of what it links to
	sum   digest.Digest // of its bytes
	off   int64         // where it was put aside; negative: it was not
	size  int64
	layer digest.Digest // diff ID, once it has been taken as a layer
	err   error         // why it could not be
}

// entry takes one entry of the tar.
func (l *loader) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := tree.Clean(h.Name)
	if err != nil {
		return refuse("%w", err)
	}
	if l.names += int64(len(name) + len(h.Linkname)); l.names > maxNames {
		return refuse("names of more than %d bytes", maxNames)
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return refuse("%.200q is a sparse entry", h.Name)
		}
	}
	if name == "" && h.Typeflag != tar.TypeDir {
		return refuse("its root is no folder")
	}
	e := &entry{off: -1, size: h.Size}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, '\x00':
		err = l.regular(name, e, r)
	case tar.TypeSymlink:
		target := h.Linkname
		if !strings.HasPrefix(target, "/") {
			target = path.Dir(name) + "/" + target
		}
		e.alias, err = tree.Clean(target)
	case tar.TypeLink:
		e.alias, err = tree.Clean(h.Linkname)
	default:
		return refuse("%.200q has type %q; only files, folders and links are expected", h.Name, h.Typeflag)
	}
	if err != nil {
		return fmt.Errorf("image archive: %.200s: %w", name, err)
	}
	if old := l.entries[name]; old != nil && (old.alias != e.alias || old.sum != e.sum) {
		return refuse("%.200q is there twice, with different contents", name)
	} else if old != nil {
		return nil
	}
	l.entries[name] = e
	return nil
}

// regular reads a regular file: small ones are put aside, what is larger can only be a layer.
func (l *loader) regular(name string, e *entry, r io.Reader) (err error) {
	want := blobDigest(name)
	switch {
	case e.size <= aside && l.used+e.size <= asideAll:
		err = l.putAside(e, r)
	case want != "" && l.here(want, e):
		e.sum, err = sumOf(r)
		e.layer = want
	default:
		err = l.take(label(name), e, r)
	}
	if err == nil && want != "" && e.sum != want {
		err = damaged("its contents have digest %s", e.sum)
	}
	return err
}

// here tells whether a blob is a layer that this host has.
func (l *loader) here(d digest.Digest, e *entry) bool {
	info, err := l.b.Known(d)
	return err == nil && info.Size == e.size
}

func sumOf(r io.Reader) (digest.Digest, error) {
	h := digest.SHA256.Digester()
	_, err := io.Copy(h.Hash(), r)
	return h.Digest(), err
}

func (l *loader) putAside(e *entry, r io.Reader) error {
	l.hash.Reset()
	in := struct{ io.Reader }{io.TeeReader(r, l.hash)}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(l.file, l.used)}, in, l.buf)
	e.off, e.sum = l.used, digest.NewDigest(digest.SHA256, l.hash)
	l.used += n
	return err
}

// take reads a layer, compressed or not, and hashes the bytes of the entry meanwhile. What is no layer is remembered as such: it may be
// something that no image needs.
func (l *loader) take(name string, e *entry, r io.Reader) error {
	h := digest.SHA256.Digester()
	in := io.TeeReader(r, h.Hash())
	if l.o.Progress != nil {
		in = &meter{r: in, name: name, total: e.size, say: l.o.Progress}
	}
	err := l.ingest(e, in)
	switch errdef.KindOf(err) {
	case errdef.InvalidArgument, errdef.DataLoss, errdef.NotImplemented:
		e.err, err = err, nil
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	e.sum = h.Digest()
	if err == nil && l.o.Progress != nil && e.layer != "" {
		l.o.Progress(name, e.size, e.size)
	}
	return err
}

// label is what people recognise a layer by: the digest or ID in its name.
func label(name string) string {
	base := strings.TrimSuffix(path.Base(name), ".tar")
	if base == "layer" {
		base = path.Base(path.Dir(name))
	}
	return id.Short(base)
}

func (l *loader) ingest(e *entry, r io.Reader) error {
	dec, err := image.Inflate(r, 1<<62)
	if err != nil {
		return err
	}
	defer dec.Close()
	info, err := l.b.Layer(l.ctx, &growing{dec, l})
	if err != nil {
		return err
	}
	e.layer = info.DiffID
	return nil
}

// growing tells the loader what a layer becomes.
type growing struct {
	r io.Reader
	l *loader
}

func (g *growing) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if gerr := g.l.grown(n); gerr != nil {
		return 0, gerr
	}
	return n, err
}

// find follows links to an entry.
func (l *loader) find(name string) (*entry, error) {
	clean, err := tree.Clean(name)
	if err != nil {
		return nil, refuse("%w", err)
	}
	for range maxAlias {
		e := l.entries[clean]
		switch {
		case e == nil:
			return nil, damaged("%.200q is missing", name)
		case e.alias == "":
			return e, nil
		}
		clean = e.alias
	}
	return nil, refuse("%.200q: more than %d links", name, maxAlias)
}

// document returns a small entry whole.
func (l *loader) document(name string) ([]byte, error) {
	e, err := l.find(name)
	if err != nil {
		return nil, err
	}
	if e.off < 0 {
		return nil, refuse("%.200q has %d bytes, documents may have %d", name, e.size, aside)
	}
	b := make([]byte, e.size)
	if _, err := l.file.ReadAt(b, e.off); err != nil {
		return nil, fmt.Errorf("image archive: read %s again: %w", name, err)
	}
	return b, nil
}

func (l *loader) has(name string) bool { return l.entries[name] != nil }

// layer makes sure that an entry is the layer with a diff ID.
func (l *loader) layer(name string, want digest.Digest) error {
	e, err := l.find(name)
	if err != nil {
		return err
	}
	if e.layer == "" && e.err == nil && e.off >= 0 {
		e.err = l.ingest(e, bufio.NewReaderSize(io.NewSectionReader(l.file, e.off, e.size), 64<<10))
	}
	switch {
	case e.err != nil:
		return fmt.Errorf("image archive: layer %.200s: %w", name, e.err)
	case e.layer != want:
		return damaged("layer %.200s has diff ID %s, the image's config wants %s", name, e.layer, want)
	}
	return nil
}

// meter tells how far a reader has come, at most ten times a second.
type meter struct {
	r         io.Reader
	name      string
	at, total int64
	told      time.Time
	say       func(layer string, current, total int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.at += int64(n)
	if now := time.Now(); now.Sub(m.told) >= 100*time.Millisecond {
		m.told = now
		m.say(m.name, m.at, m.total)
	}
	return n, err
}
