package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Batch makes images of layers that come from elsewhere than a registry: an archive, a container, an import. It keeps what it has
// brought or asked for from being collected until Close, which removes what no image needs then. Its methods may be called
// concurrently, except Commit and Close.
type Batch struct {
	s *Store

	mu     sync.Mutex
	pinned map[digest.Digest]bool
	fresh  []*Fresh
}

// Fresh is an image that Commit has recorded.
type Fresh struct {
	Image Image
	Names []string // as users write them, of those that it was given here
	// Moved are the images that Names named before, where those were others.
	Moved map[string]digest.Digest

	id     digest.Digest
	record record
	tags   []string
	part   bool          // of another that is fresh, for another platform
	index  digest.Digest // of both
}

// Begin starts a batch; the caller must Close it.
func (s *Store) Begin() *Batch { return &Batch{s: s, pinned: map[digest.Digest]bool{}} }

func (b *Batch) pin(d digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.pinned[d] {
		b.pinned[d] = true
		b.s.pin(d)
	}
}

// Layer takes an uncompressed layer in one pass, under the digest it turns out to have.
func (b *Batch) Layer(ctx context.Context, r io.Reader) (layer.Info, error) {
	select { // r comes once: it must not find a disk full of what was removed a moment ago
	case <-b.s.c.Layers.Free():
	case <-ctx.Done():
		return layer.Info{}, ctx.Err()
	}
	capped := &capReader{r: r, left: b.s.c.MaxLayerSize}
	info, err := layer.Take(ctx, b.s.c.Layers, capped, b.pin)
	if capped.err != nil {
		err = capped.err
	}
	return info, err
}

// capReader ends in an error beyond its limit.
type capReader struct {
	r    io.Reader
	left int64
	err  error
}

func (c *capReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		c.err = errdef.New(errdef.InvalidArgument, "layer is larger than the limit of this store")
		return 0, c.err
	}
	return n, err
}

// Known describes a layer that is here already, and keeps it. errdef.NotFound otherwise.
func (b *Batch) Known(d digest.Digest) (layer.Info, error) {
	b.pin(d)
	return b.s.c.Layers.Info(d)
}

// Open opens the tar of a known layer; only its first Info.Size bytes are the layer.
func (b *Batch) Open(d digest.Digest) (*os.File, error) { return b.s.c.Layers.OpenTar(d) }

// Temp opens a file for what has no name yet. The caller removes it.
func (b *Batch) Temp() (*os.File, error) { return b.s.c.Content.Temp() }

// Config is the config of an image, byte for byte; the image is kept from losing it.
func (b *Batch) Config(id digest.Digest) ([]byte, error) {
	b.pin(id)
	return b.s.c.Content.Read(id, manifest.MaxSize)
}

// Pick finds what a user wants to move elsewhere: an image, and the names it is to have there. A name without tag and digest picks
// every tag of that repository, an ID picks the image without names.
func (b *Batch) Pick(name string) (images []Image, tags [][]string, err error) {
	if err := b.s.arrivals.whole(name); err != nil {
		return nil, nil, err
	}
	c, err := b.s.readable()
	if err != nil {
		return nil, nil, err
	}
	add := func(id digest.Digest, names ...string) error {
		img, err := b.s.describe(c, id)
		images, tags = append(images, img), append(tags, names)
		return err
	}
	r, perr := ref.Parse(name)
	if perr == nil && r.Digest == "" && r.Familiar() == name+":"+ref.DefaultTag { // nothing but a name
		for _, id := range slices.Sorted(maps.Keys(c.images)) {
			var mine []string
			for _, t := range namesOf(c.tags, id) {
				if tr, err := ref.Parse(t); err == nil && tr.Name() == r.Name() {
					mine = append(mine, t)
				}
			}
			if len(mine) > 0 {
				if err := add(id, mine...); err != nil {
					return nil, nil, err
				}
			}
		}
		if len(images) > 0 {
			return images, tags, nil
		}
	}
	id, err := c.find(name)
	if err != nil {
		return nil, nil, err
	}
	if perr == nil && r.Digest == "" && c.tags[r.String()] == id {
		err = add(id, r.String())
	} else {
		err = add(id)
	}
	return images, tags, err
}

// Platforms are the images of other platforms that a name, or all names of an ID, stands for.
func (b *Batch) Platforms(name string) ([]Image, error) { return Parts(b.s, name) }

// Describe makes the manifest of an image whose layers are served as the tars they are.
func Describe(config []byte, layers []layer.Info) (raw []byte, desc ocispec.Descriptor, err error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size})
	}
	if raw, err = json.Marshal(m); err != nil {
		return nil, desc, fmt.Errorf("image manifest: %w", err)
	}
	if len(raw) > manifest.MaxSize || len(config) > manifest.MaxSize {
		return nil, desc, errdef.New(errdef.InvalidArgument, "image config and manifest may have %d bytes", manifest.MaxSize)
	}
	return raw, ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, nil
}

// Add prepares an image from its config, whose layers must all be known here, and the tags it is to have. It is an image once Commit has
// returned.
func (b *Batch) Add(ctx context.Context, config []byte, tags ...string) (digest.Digest, error) {
	cfg, err := manifest.DecodeConfig(config)
	if err != nil {
		return "", err
	}
	f := &Fresh{id: digest.FromBytes(config), record: record{Layers: cfg.RootFS.DiffIDs, Platform: cfg.Platform, Added: time.Now().UTC(), Local: true}}
	for _, t := range tags {
		name, err := localTag(t)
		if err != nil {
			return "", err
		}
		f.tags, f.Names = append(f.tags, name), append(f.Names, familiar(name))
	}
	if cfg.Created != nil {
		f.record.Created = *cfg.Created
	}
	var layers []layer.Info
	for _, d := range cfg.RootFS.DiffIDs {
		l, err := b.Known(d)
		if err != nil {
			return "", err
		}
		layers = append(layers, l)
	}
	raw, desc, err := Describe(config, layers)
	if err != nil {
		return "", err
	}
	f.record.Manifest, f.record.Blobs = desc, []digest.Digest{desc.Digest, f.id}
	for d, doc := range map[digest.Digest][]byte{desc.Digest: raw, f.id: config} {
		b.pin(d)
		if err := b.s.c.Content.Put(ctx, d, int64(len(doc)), bytes.NewReader(doc)); err != nil {
			return "", err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh = append(b.fresh, f)
	return f.id, nil
}

// localTag is the canonical name of a tag that is given here.
func localTag(name string) (string, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", errdef.New(errdef.InvalidArgument, "%s: a new image cannot be given a digest", r.Familiar())
	}
	return r.String(), nil
}

// Commit records everything that was added, in one transaction, and returns it but for other platforms of the same image. An image that is
// here already keeps its record and gets the names.
func (b *Batch) Commit() ([]*Fresh, error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.c.DB.Update(func(tx *meta.Tx) error {
		for _, f := range b.fresh {
			if err := f.put(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record images: %w", err)
	}
	for _, f := range b.fresh {
		if f.Image, err = s.Resolve(f.id.String()); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(b.fresh), func(f *Fresh) bool { return f.part }), publish(s)
}

func (f *Fresh) put(tx *meta.Tx) error {
	var old record
	found, err := tx.Get(bucketImages, f.id.String(), &old)
	if f.index != "" {
		f.record.Blobs, old.Blobs = union(f.record.Blobs, []digest.Digest{f.index}), union(old.Blobs, []digest.Digest{f.index})
	}
	if err == nil && !found {
		err = tx.Put(bucketImages, f.id.String(), f.record)
	} else if err == nil && f.index != "" {
		err = tx.Put(bucketImages, f.id.String(), old)
	}
	top := f.index
	if top == "" {
		top = f.record.Manifest.Digest
		if found {
			top = old.Manifest.Digest
		}
	}
	f.Moved = map[string]digest.Digest{}
	for n, t := range f.tags {
		var before tagged
		if err == nil {
			_, err = tx.Get(bucketTags, t, &before)
		}
		if err == nil {
			err = tx.Put(bucketTags, t, tagged{f.id, top, f.record.Added})
		}
		if before.ID != "" && before.ID != f.id {
			f.Moved[f.Names[n]] = before.ID
		}
	}
	return err
}

// Close lets go of everything; of its layers and documents those that nobody needs are removed. A container needs none that its image
// does not need: an image in use keeps its record.
func (b *Batch) Close() error {
	var left []string
	defer func() { // without the locks
		if len(left) > 0 {
			<-b.s.c.Layers.Free()
		}
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	mine := slices.Collect(maps.Keys(b.pinned))
	b.s.unpin(mine...)
	b.pinned = map[digest.Digest]bool{}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	c, err := b.s.catalog()
	if err != nil {
		return err
	}
	left, err = b.s.discard(c, []record{{Layers: mine, Blobs: mine}})
	return err
}
