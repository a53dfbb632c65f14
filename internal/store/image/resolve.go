package image

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/opencontainers/go-digest"
)

// catalog is all records of one moment.
type catalog struct {
	images  map[digest.Digest]record
	tags    map[string]digest.Digest // canonical
	tops    map[string]digest.Digest // what tags stand for, where that is known
	given   map[string]time.Time     // when tags were
	digests map[string]digest.Digest // canonical
	pulls   map[digest.Digest]unfinished
	bad     []error // records that cannot be read; of what they need nothing is known
}

func newCatalog() catalog {
	none := func() map[string]digest.Digest { return map[string]digest.Digest{} }
	return catalog{images: map[digest.Digest]record{}, tags: none(), tops: none(), given: map[string]time.Time{}, digests: none(), pulls: map[digest.Digest]unfinished{}}
}

// catalog is readable for those who decide what may go: a record that cannot be read is an error.
func (s *Store) catalog() (catalog, error) {
	c, err := s.readable()
	if err == nil && len(c.bad) > 0 {
		err = fmt.Errorf("%w; dhow system check --repair makes it anew", c.bad[0])
	}
	return c, err
}

// readable is every record that can be read.
func (s *Store) readable() (catalog, error) {
	var c catalog
	err := s.c.DB.View(func(tx *meta.Tx) (err error) {
		c, err = catalogOf(tx)
		return err
	})
	return c, err
}

func catalogOf(tx *meta.Tx) (catalog, error) {
	c := newCatalog()
	err := tx.Each(bucketImages, func(key string, raw []byte) error {
		r, err := decodeRecord(key, raw)
		if err != nil {
			c.bad = append(c.bad, err)
			return nil
		}
		c.images[digest.Digest(key)] = r
		return nil
	})
	if err == nil {
		err = tx.Each(bucketPulls, func(key string, raw []byte) error {
			var u unfinished
			if err := meta.Decode(bucketPulls, key, raw, &u); err != nil {
				c.bad = append(c.bad, err)
				return nil
			}
			c.pulls[digest.Digest(key)] = u
			return nil
		})
	}
	if err == nil {
		err = tx.Each(bucketTags, func(key string, raw []byte) error {
			var t tagged
			if err := meta.Decode(bucketTags, key, raw, &t); err != nil {
				c.bad = append(c.bad, err)
				return nil
			}
			if c.tags[key], c.given[key] = t.ID, t.At; t.Top != "" {
				c.tops[key] = t.Top
			}
			return nil
		})
	}
	if err == nil {
		err = tx.Each(bucketDigests, func(key string, raw []byte) error {
			var id digest.Digest
			if err := meta.Decode(bucketDigests, key, raw, &id); err != nil {
				c.bad = append(c.bad, err)
				return nil
			}
			c.digests[key] = id
			return nil
		})
	}
	return c, err
}

// decodeRecord reads the record of an image; digests that are none would lead to files outside of the store.
func decodeRecord(key string, raw []byte) (record, error) {
	var r record
	err := meta.Decode(bucketImages, key, raw, &r)
	for _, d := range slices.Concat([]digest.Digest{digest.Digest(key), r.Manifest.Digest}, r.Blobs, r.Layers, r.Beside) {
		if err == nil {
			if _, derr := ref.ParseDigest(d.String()); derr != nil {
				err = errdef.New(errdef.DataLoss, "read record %s/%s: %w", bucketImages, key, derr)
			}
		}
	}
	return r, err
}

// namesOf returns the canonical names of an image in order.
func namesOf(names map[string]digest.Digest, id digest.Digest) []string {
	var out []string
	for n, to := range names {
		if to == id {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// find resolves what a user wrote: a full ID, name[:tag], name@digest, a manifest's digest, or the start of an ID.
func (c catalog) find(name string) (digest.Digest, error) {
	none := errdef.New(errdef.NotFound, "No such image: %s", printable(name))
	hex := strings.TrimPrefix(name, "sha256:")
	if d, err := ref.ParseDigest("sha256:" + hex); err == nil {
		if _, ok := c.images[d]; ok {
			return d, nil
		}
		if id, ok := c.byDocument(d); ok {
			return id, nil
		}
		return "", none
	}
	if r, err := ref.Parse(name); err == nil {
		if id, ok := c.named(r); ok {
			return id, nil
		}
	}
	if !ref.IsHex(hex) {
		return "", none
	}
	var hit digest.Digest
	for id := range c.images {
		if strings.HasPrefix(id.Encoded(), hex) {
			if hit != "" {
				return "", errdef.New(errdef.InvalidArgument, "image ID %s is ambiguous: give more digits", hex)
			}
			hit = id
		}
	}
	if hit == "" {
		return "", none
	}
	return hit, nil
}

// byDocument finds the image whose manifest d is; else, of those that came through the index d, the one with the lowest ID.
func (c catalog) byDocument(d digest.Digest) (hit digest.Digest, ok bool) {
	for id, r := range c.images {
		if r.Manifest.Digest == d {
			return id, true
		}
		if slices.Contains(r.Blobs, d) && (hit == "" || id < hit) {
			hit = id
		}
	}
	return hit, hit != ""
}

func (c catalog) named(r ref.Ref) (digest.Digest, bool) {
	if r.Digest != "" {
		id, ok := c.digests[r.WithDigest(r.Digest).String()]
		return id, ok
	}
	id, ok := c.tags[r.WithTag(r.Tag).String()]
	return id, ok
}

func printable(s string) string {
	if len(s) > 256 {
		s = s[:256] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Resolve finds an image by name[:tag], name@digest, ID or short ID. errdef.NotFound: "No such image: X"; Conflict: it is still arriving, see Find.
func (s *Store) Resolve(name string) (Image, error) {
	if err := s.arrivals.whole(name); err != nil {
		return Image{}, err
	}
	return resolve(s, name)
}

func resolve(s *Store, name string) (Image, error) {
	c, err := s.readable()
	if err != nil {
		return Image{}, err
	}
	id, err := c.find(name)
	if err != nil {
		return Image{}, err
	}
	return s.describe(c, id)
}

func (s *Store) describe(c catalog, id digest.Digest) (Image, error) {
	img, err := s.load(id, c.images[id])
	if err != nil {
		return Image{}, err
	}
	return c.withNames(img), nil
}

func (c catalog) withNames(img Image) Image {
	id := img.ID
	for _, n := range namesOf(c.tags, id) {
		img.RepoTags = append(img.RepoTags, familiar(n))
		if at := c.given[n]; at.After(img.Tagged) {
			img.Tagged = at
		}
	}
	for _, n := range namesOf(c.digests, id) {
		img.RepoDigests = append(img.RepoDigests, familiar(n))
	}
	return img
}

// List returns every image, the youngest first. Of one whose files are damaged it says what the record does. Other platforms of what its
// tags stand for are its Parts; those without a tag are no images of their own.
func (s *Store) List() ([]Image, error) {
	c, err := s.readable()
	if err != nil {
		return nil, err
	}
	var all []Image
	of := func(id digest.Digest) Image {
		r := c.images[id]
		img, err := s.load(id, r)
		if err != nil {
			img = Image{ID: id, Manifest: r.Manifest, DiffIDs: r.Layers, Created: r.Created, Added: r.Added, Platform: r.Platform}
		}
		return c.withNames(img)
	}
	for id := range c.images {
		if c.partOf(id) != "" {
			continue
		}
		img := of(id)
		if len(img.RepoTags) > 0 {
			for _, o := range c.family(id, c.through(id.String(), id))[1:] {
				img.Parts = append(img.Parts, of(o))
			}
		}
		all = append(all, img)
	}
	slices.SortFunc(all, func(a, b Image) int {
		if n := b.Created.Compare(a.Created); n != 0 {
			return n
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return all, nil
}

// Tag gives an image another name. A tag that named another image moves.
func (s *Store) Tag(name, target string) error {
	t, err := ref.Parse(target)
	if err != nil {
		return err
	}
	if t.Digest != "" {
		return errdef.New(errdef.InvalidArgument, "refusing to create a tag with a digest reference: %s", t.Familiar())
	}
	if err := s.arrivals.whole(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.c.DB.Update(func(tx *meta.Tx) error {
		c, err := catalogOf(tx)
		if err != nil {
			return err
		}
		id, err := c.find(name)
		if err != nil {
			return err
		}
		return tx.Put(bucketTags, t.String(), tagged{id, c.topOf(name, id), time.Now().UTC()})
	})
	if err != nil {
		return err
	}
	return publish(s)
}
