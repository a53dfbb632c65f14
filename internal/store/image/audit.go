package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Ledger is the records of a Store, for those who compare them with the disk and mend them.
type Ledger struct{ s *Store }

// LedgerOf opens the ledger of a Store.
func LedgerOf(s *Store) Ledger { return Ledger{s} }

// Record is an image as it is on record.
type Record struct {
	ID            digest.Digest
	Manifest      ocispec.Descriptor
	Blobs, Layers []digest.Digest
	Beside        []digest.Digest // files that it can do without
	Tags, Digests []string        // canonical
	PartOf        digest.Digest   // the image with a tag that it is another platform of
	From          []string        // names, canonical, under which a registry should have it
}

// Audit calls fn with everything on record, and with what must stay, while nothing is recorded, removed or begun to be pulled. fn must not
// call the Store. Until the batch is closed, what is on record stays. bad are the records that cannot be read: what they need is in neither.
func (l Ledger) Audit(fn func(all []Record, live Live, bad []error) error) (*Batch, error) {
	s := l.s
	b := s.Begin()
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.readable()
	if err != nil {
		return nil, err
	}
	for d := range c.live(nil) {
		b.pinned[d] = true
		s.pins[d]++
	}
	return b, fn(c.records(), Live{c.live(s.pins), c.chains()}, c.bad)
}

// Records is what is on record, by ID.
func (l Ledger) Records() ([]Record, error) {
	c, err := l.s.readable()
	return c.records(), err
}

func (c catalog) records() []Record {
	var all []Record
	for id, r := range c.images {
		all = append(all, Record{ID: id, Manifest: r.Manifest, Blobs: r.Blobs, Layers: r.Layers, Beside: r.Beside, Tags: namesOf(c.tags, id), Digests: namesOf(c.digests, id), PartOf: c.partOf(id), From: c.sources(id)})
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return all
}

// sources are the names under which a registry should have an image: those it came or went by, else its tags, where it was not made here.
func (c catalog) sources(id digest.Digest) []string {
	names := namesOf(c.digests, id)
	if len(names) == 0 && !c.images[id].Local {
		names = namesOf(c.tags, id)
	}
	return names
}

// Unrecorded are the images of which there are documents and no record.
func (l Ledger) Unrecorded() ([]digest.Digest, error) {
	docs, err := readDocuments(l.s)
	if err != nil {
		return nil, err
	}
	c, err := l.s.readable()
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for _, d := range docs {
		if d.Manifest == nil {
			continue
		}
		if _, ok := c.images[d.Manifest.Config.Digest]; !ok && l.s.c.Content.Has(d.Manifest.Config.Digest) {
			out = append(out, d.Manifest.Config.Digest)
		}
	}
	return out, nil
}

// Adopt makes an image's record anew from its config and a manifest that names it, both on disk. One that can be read stays but for force.
func (l Ledger) Adopt(id digest.Digest, force bool) error {
	s := l.s
	raw, err := s.c.Content.Read(id, manifest.MaxSize)
	if err != nil {
		return err
	}
	cfg, err := manifest.DecodeConfig(raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Sound(bucketImages, id.String()) {
		if found, err := s.c.DB.Get(bucketImages, id.String(), new(json.RawMessage)); err != nil || found && !force {
			return err
		}
	}
	docs, err := readDocuments(s)
	if err != nil {
		return err
	}
	r, err := docs.recordOf(id, cfg)
	if err != nil {
		return err
	}
	for _, d := range r.Layers {
		if _, err := s.c.Layers.Info(d); err != nil {
			return err
		}
	}
	return s.c.DB.Put(bucketImages, id.String(), r)
}

// Forget takes a record away that cannot be read, and a name that leads to no image. One that somebody has written anew meanwhile stays.
func (l Ledger) Forget(bucket, key string) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.c.DB.Update(func(tx *meta.Tx) error {
		if l.sound(tx, bucket, key) {
			return nil
		}
		return tx.Delete(bucket, key)
	})
	if err != nil {
		return err
	}
	return s.writeIndex(true)
}

// sound tells whether a record can be read, and a name leads to an image.
func (l Ledger) sound(tx *meta.Tx, bucket, key string) bool {
	var raw json.RawMessage
	if found, err := tx.Get(bucket, key, &raw); err != nil || !found {
		return false
	}
	if bucket == bucketImages || bucket == bucketPulls {
		return CheckRecord(bucket, key, raw) == nil
	}
	id, err := CheckName(bucket, key, raw)
	if err != nil {
		return false
	}
	found, err := tx.Get(bucketImages, id.String(), &raw)
	return err == nil && found
}

// Sound tells whether a record can be read, and a name leads to an image; one that is gone is.
func (l Ledger) Sound(bucket, key string) (ok bool) {
	err := l.s.c.DB.View(func(tx *meta.Tx) error {
		var raw json.RawMessage
		found, err := tx.Get(bucket, key, &raw)
		ok = err == nil && !found || l.sound(tx, bucket, key)
		return nil
	})
	return ok && err == nil
}

// Drop removes an image with all its names, where no container uses it and nothing is being done with it: Conflict otherwise.
func (l Ledger) Drop(id digest.Digest, inUse InUse) error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.drop(id, inUse)
}

func (l Ledger) drop(id digest.Digest, inUse InUse) error {
	s := l.s
	c, err := s.catalog()
	if err != nil {
		return err
	}
	if _, ok := c.images[id]; !ok {
		return errdef.New(errdef.NotFound, "No such image: %s", id)
	}
	if len(inUse.of(id)) > 0 {
		return errdef.New(errdef.Conflict, "image %s is in use", id)
	}
	_, _, err = s.apply(c, change{tags: namesOf(c.tags, id), digests: namesOf(c.digests, id), images: []digest.Digest{id}})
	return err
}

// GiveUp drops an image and hands what is damaged of it to aside, at the same moment, so that nobody builds on it any more. What another
// image needs stays until that one is given up; what anybody but b, an Audit's, has pinned is a Conflict.
func (l Ledger) GiveUp(id digest.Digest, b *Batch, bad []digest.Digest, inUse InUse, aside func(digest.Digest) error) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range bad {
		if err := l.busy(d, b); err != nil {
			return err
		}
	}
	if err := l.drop(id, inUse); err != nil {
		return err
	}
	c, err := s.catalog()
	if err != nil {
		return err
	}
	live := c.live(nil)
	for _, d := range bad {
		if live[d] {
			continue
		}
		if err := aside(d); err != nil {
			return err
		}
	}
	return nil
}

// busy tells whether anybody but b has pinned something damaged.
func (l Ledger) busy(d digest.Digest, b *Batch) error {
	if n := l.s.pins[d]; n > 1 || n == 1 && !b.pinned[d] {
		return errdef.New(errdef.Conflict, "a pull or load under way has the damaged %s: check again when it is done", d)
	}
	return nil
}

// Spoilt removes a damaged layer that no image has but an unfinished pull was to bring. Anybody's but b's pin on it is a Conflict.
func (l Ledger) Spoilt(d digest.Digest, b *Batch) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.catalog()
	if err != nil {
		return err
	}
	for id, r := range c.images {
		if slices.Contains(r.Layers, d) {
			return errdef.New(errdef.Conflict, "image %s has it by now: check again", id)
		}
	}
	if err := l.busy(d, b); err != nil {
		return err
	}
	return s.c.Layers.Remove(d)
}

// Buckets are those of this store, for whoever reads the records one by one: of images, of names, of pulls that have not ended well.
func Buckets() (images string, names []string, pulls string) {
	return bucketImages, []string{bucketTags, bucketDigests}, bucketPulls
}

// CheckRecord tells whether a raw record of an image or an unfinished pull can be read.
func CheckRecord(bucket, key string, raw []byte) error {
	if bucket == bucketPulls {
		return meta.Decode(bucket, key, raw, &unfinished{})
	}
	_, err := decodeRecord(key, raw)
	return err
}

// CheckName tells whether a raw tag or digest can be read, and which image it names.
func CheckName(bucket, key string, raw []byte) (id digest.Digest, err error) {
	if bucket == bucketTags {
		var t tagged
		err = meta.Decode(bucket, key, raw, &t)
		return t.ID, err
	}
	return id, meta.Decode(bucket, key, raw, &id)
}

// LayerBlobs are the layers of an image as its manifest has them, base first.
func (l Ledger) LayerBlobs(img Image) ([]ocispec.Descriptor, error) {
	s := l.s
	raw, err := s.c.Content.Read(img.Manifest.Digest, manifest.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("image %s: manifest: %w", img.ID, err)
	}
	doc, err := manifest.Decode(raw, img.Manifest.MediaType)
	if err == nil && (doc.Manifest == nil || len(doc.Manifest.Layers) != len(img.DiffIDs)) {
		err = errdef.New(errdef.DataLoss, "its manifest does not fit its layers")
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", img.ID, err)
	}
	return doc.Manifest.Layers, nil
}

// CheckIndex compares the layout's index.json with the records, errdef.DataLoss when they differ; mend writes it anew.
func (l Ledger) CheckIndex(mend bool) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if mend {
		return s.writeIndex(true)
	}
	c, err := s.readable()
	if err != nil {
		return err
	}
	return s.c.Content.CheckIndex(c.index())
}
