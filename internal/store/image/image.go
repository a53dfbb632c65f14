// Package image owns which images there are: their names, their documents and which layers they need.
//
// It promises that an image is listed only when its manifest, config and every layer are verified and durable, that a tag
// moves in one transaction, that concurrent pulls of a layer fetch it once, and that nothing an image, a running pull or a
// container needs is removed. It must never run, mount or interpret what an image contains.
package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/lazy"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Buckets of the metadata store.
const (
	bucketImages  = "images"        // image ID -> record
	bucketTags    = "image-tags"    // canonical name:tag -> tagged
	bucketDigests = "image-digests" // canonical name@digest -> image ID
)

// Config is what a Store works with. DB, Content and Layers are required.
type Config struct {
	DB       *meta.DB
	Content  *content.Store
	Layers   *layer.Store
	Registry *registry.Client // nil: images can only be made locally
	Host     ocispec.Platform // zero: what this program was built for

	Downloads    int   // layers at a time per pull, default 3
	Uploads      int   // layers at a time per push, default 5
	MaxLayerSize int64 // of an uncompressed layer, default 256 GiB
}

// Store is the images of one engine. It is safe for concurrent use.
type Store struct {
	c Config

	mu      sync.Mutex            // held while what is live is decided or changed
	pins    map[digest.Digest]int // blobs and diff IDs that running pulls need
	flights map[digest.Digest]chan struct{}

	arrivals arrivals
}

// Open returns a Store. It removes nothing; gc.Sweep does.
func Open(c Config) (*Store, error) {
	if c.DB == nil || c.Content == nil || c.Layers == nil {
		return nil, errdef.New(errdef.InvalidArgument, "open image store: DB, Content and Layers are required")
	}
	if c.Host.OS == "" {
		c.Host = manifest.HostPlatform()
	}
	if c.Downloads <= 0 {
		c.Downloads = 3
	}
	if c.Uploads <= 0 {
		c.Uploads = 5
	}
	if c.MaxLayerSize <= 0 {
		c.MaxLayerSize = 256 << 30
	}
	s := &Store{c: c, pins: map[digest.Digest]int{}, flights: map[digest.Digest]chan struct{}{}}
	s.arrivals.pool = lazy.NewPool()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, publish(s)
}

// record is what the metadata store keeps of an image.
type record struct {
	Manifest ocispec.Descriptor
	Blobs    []digest.Digest // every blob kept for it: indexes, manifests, the config
	Beside   []digest.Digest `json:",omitempty"` // files of attestations in its index, manifests and blobs; it is whole without
	Layers   []digest.Digest // diff IDs, base first
	Platform ocispec.Platform
	Created  time.Time // when the image says it was made
	Added    time.Time // when it came here
	Local    bool      // made here: its layer descriptors can be served uncompressed only
	Sent     []sent    `json:",omitempty"` // layers as they were compressed for a push
}

// tagged is what a tag names here, and the document (an index, a manifest) that it stands for: that is pushed again, and through it come the
// image's other platforms. One from before that was kept, which is a mere ID, has no Top, and stands for any of the image's documents.
type tagged struct {
	ID, Top digest.Digest
	At      time.Time `json:",omitzero"` // when it was given
}

func (t *tagged) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &t.ID)
	}
	type plain tagged
	return json.Unmarshal(raw, (*plain)(t))
}

// Image is an image of this host.
type Image struct {
	ID          digest.Digest // of the config
	Manifest    ocispec.Descriptor
	RepoTags    []string // as users write them: busybox:latest
	RepoDigests []string // busybox@sha256:...
	Config      dockerspec.DockerOCIImage
	DiffIDs     []digest.Digest // base first
	LayerSizes  []int64         // uncompressed, as DiffIDs
	Size        int64           // of all its layers
	Created     time.Time
	Added       time.Time
	Tagged      time.Time // when it was given the last of its tags, zero where that is not known
	Platform    ocispec.Platform
	Parts       []Image // in a list: its other platforms
	Arriving    int     // layers that are not here yet, see Find; of others the sizes are those of their files
}

// load reads the image of a record. names are looked up by the caller.
func (s *Store) load(id digest.Digest, r record) (Image, error) {
	raw, err := s.c.Content.Read(id, manifest.MaxSize)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: config: %w", id, err)
	}
	cfg, err := manifest.DecodeConfig(raw)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", id, err)
	}
	img := Image{ID: id, Manifest: r.Manifest, Config: cfg, DiffIDs: r.Layers, Created: r.Created, Added: r.Added, Platform: r.Platform}
	for _, d := range r.Layers {
		l, err := s.c.Layers.Info(d)
		if err != nil {
			return Image{}, fmt.Errorf("image %s: %w", id, err)
		}
		img.Size += l.Size
		img.LayerSizes = append(img.LayerSizes, l.Size)
	}
	return img, nil
}

// pin keeps blobs and layers from being collected until unpin; it waits for a collection that is under way.
func (s *Store) pin(ds ...digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.pins[d]++
	}
}

func (s *Store) unpin(ds ...digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		if s.pins[d]--; s.pins[d] <= 0 {
			delete(s.pins, d)
		}
	}
}

// commit writes an image and its names, a tag ("" for none) and a digest, in one transaction, after everything it needs is durable. top is
// what both stand for. It returns what the tag pointed to before; without a tag, id itself when it was here already.
func (s *Store) commit(id digest.Digest, r record, tag, atDigest string, top digest.Digest) (before digest.Digest, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.c.DB.Update(func(tx *meta.Tx) error {
		var old record
		if found, err := tx.Get(bucketImages, id.String(), &old); err != nil {
			return err
		} else if found { // the same config by another manifest: keep both documents
			r.Blobs, r.Beside = union(old.Blobs, r.Blobs), union(old.Beside, r.Beside)
			r.Sent = old.Sent
			r.Added = old.Added
			if tag == "" {
				before = id
			}
		}
		if err := tx.Put(bucketImages, id.String(), r); err != nil {
			return err
		}
		if err := tx.Delete(bucketPulls, id.String()); err != nil {
			return err
		}
		if err := tx.Put(bucketDigests, atDigest, id); err != nil || tag == "" {
			return err
		}
		var was tagged
		if _, err := tx.Get(bucketTags, tag, &was); err != nil {
			return err
		}
		before = was.ID
		return tx.Put(bucketTags, tag, tagged{id, top, time.Now().UTC()})
	})
	if err != nil {
		return "", fmt.Errorf("record image %s: %w", id, err)
	}
	return before, publish(s)
}

func union(a, b []digest.Digest) []digest.Digest {
	seen := map[digest.Digest]bool{}
	var out []digest.Digest
	for _, d := range append(append([]digest.Digest(nil), a...), b...) {
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	return out
}

// writeIndex rewrites the layout's index.json from the records. Call it with mu held. It is derived data: a crash before it
// is repaired by the next Open. Names that are gone need not be durable there.
func (s *Store) writeIndex(durable bool) error {
	c, err := s.readable()
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	return s.c.Content.SetIndex(c.index(), durable)
}

// publish is writeIndex after a change that is on record by now: where the disk is full the change stands, and index.json is as it was until
// the next one. Call it with mu held.
func publish(s *Store) error {
	if err := s.writeIndex(true); !full(err) {
		return err
	}
	return nil
}

// index is what index.json lists: every tag.
func (c catalog) index() (all []ocispec.Descriptor) {
	for _, name := range slices.Sorted(maps.Keys(c.tags)) {
		if r, ok := c.images[c.tags[name]]; ok {
			all = append(all, ocispec.Descriptor{MediaType: r.Manifest.MediaType, Digest: r.Manifest.Digest, Size: r.Manifest.Size,
				Annotations: map[string]string{ocispec.AnnotationRefName: name}})
		}
	}
	return all
}

// familiar turns a stored name into what users read.
func familiar(name string) string {
	r, err := ref.Parse(name)
	if err != nil {
		return name
	}
	return r.Familiar()
}
