package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushOptions say how to push. Auth belongs to the registry of the reference. Progress is called from one goroutine at a time.
// Compression ("gzip", "zstd", "" for what the image had) is for layers that the registry has in no form that is known here.
type PushOptions struct {
	Platform    string
	Compression string
	Auth        *registry.Auth
	Progress    func(Event)
}

// Tags returns the names repository:tag of this host of one repository, in order, as users read them.
func (s *Store) Tags(repository string) ([]string, error) {
	r, err := ref.Parse(repository)
	if err != nil {
		return nil, err
	}
	c, err := s.readable()
	if err != nil {
		return nil, err
	}
	var out []string
	for n := range c.tags {
		if strings.HasPrefix(n, r.Name()+":") {
			out = append(out, familiar(n))
		}
	}
	slices.Sort(out)
	return out, nil
}

// push is one tag on its way to a registry.
type push struct {
	s    *Store
	c    catalog
	r    ref.Ref
	repo *registry.Repo
	o    PushOptions
	p    *reporter
}

// Push uploads what a tag names: layers that the registry lacks, config, manifest, and the index above it when every image of
// that is here. It returns what the tag names there now. The manifest is the image's own, byte for byte, unless a layer had to be
// compressed anew.
// Errors: NotFound (no such tag here), InvalidArgument, Unauthorized, Forbidden, Unavailable (registry), DataLoss (a damaged layer).
func (s *Store) Push(ctx context.Context, name string, o PushOptions) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	r, err := ref.Parse(name)
	if err != nil {
		return none, err
	}
	if r.Digest != "" {
		return none, errdef.New(errdef.InvalidArgument, "cannot push a digest reference: %s", r.Familiar())
	}
	if !slices.Contains([]string{"", "gzip", "zstd"}, o.Compression) {
		return none, errdef.New(errdef.InvalidArgument, "compression %q: gzip and zstd are known", printable(o.Compression))
	}
	if s.c.Registry == nil {
		return none, errdef.New(errdef.NotImplemented, "push %s: this store has no registry client", r.Familiar())
	}
	u := &push{s: s, r: r, o: o, p: &reporter{fn: o.Progress}, repo: s.c.Registry.Repo(r, o.Auth)}
	id, pins, err := u.hold()
	if err != nil {
		return none, err
	}
	defer s.unpin(pins...)
	defer s.c.Registry.Rest()
	d, err := u.tag(ctx, id)
	if err != nil {
		return none, fmt.Errorf("push %s: %w", r.Familiar(), err)
	}
	return d, nil
}

// hold finds the image and pins what may be pushed of it, so that it stays whatever is removed meanwhile.
func (u *push) hold() (id digest.Digest, pins []digest.Digest, err error) {
	s := u.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.c, err = s.readable(); err != nil {
		return "", nil, err
	}
	id, ok := u.c.named(u.r)
	if !ok {
		return "", nil, errdef.New(errdef.NotFound, "An image does not exist locally with the tag: %s", u.r.FamiliarName())
	}
	for _, r := range u.c.images { // itself, and what came through the same index
		if slices.ContainsFunc(r.Blobs, func(d digest.Digest) bool { return slices.Contains(u.c.images[id].Blobs, d) }) {
			pins = append(append(append(pins, r.Blobs...), r.Layers...), r.Beside...)
		}
	}
	for _, d := range pins {
		s.pins[d]++
	}
	return id, pins, nil
}

// tag pushes an image, or the index that it came through when all of that is here.
func (u *push) tag(ctx context.Context, id digest.Digest) (ocispec.Descriptor, error) {
	rec := u.c.images[id]
	own := rec.Manifest
	ix, top := u.whole(id)
	if at := u.c.tops[u.r.String()]; at != "" {
		if ix, top = u.index(id, at); ix == nil {
			own = u.manifest(rec, at)
		}
	}
	if u.o.Platform != "" {
		want, err := manifest.ParsePlatform(u.o.Platform, u.s.c.Host)
		if err != nil {
			return top, err
		}
		best, err := u.c.provide(u.r.Familiar(), id, want, false)
		if err != nil {
			return top, err
		}
		if ix = nil; best != id {
			id, own = best, u.c.images[best].Manifest
		}
	}
	if ix == nil {
		return u.image(ctx, id, own, u.r.Tag)
	}
	changed := false
	for i, m := range ix.Manifests {
		if standsBeside(m) {
			continue
		}
		child, _ := u.c.byDocument(m.Digest)
		d, err := u.image(ctx, child, m, "")
		if err != nil {
			return top, err
		}
		changed = changed || d.Digest != m.Digest
		ix.Manifests[i].Digest, ix.Manifests[i].Size = d.Digest, d.Size
	}
	raw, err := u.s.c.Content.Read(top.Digest, manifest.MaxSize)
	if changed && err == nil {
		ix.Manifests = besides(ix)
		raw, err = json.Marshal(ix)
		top.Digest, top.Size = digest.FromBytes(raw), int64(len(raw))
	}
	if err != nil {
		return top, err
	}
	for _, m := range ix.Manifests {
		if standsBeside(m) {
			if err := u.beside(ctx, m); err != nil {
				return top, fmt.Errorf("attestation %s: %w", m.Digest, err)
			}
		}
	}
	if err := u.repo.PutManifest(ctx, u.r.Tag, top, raw); err != nil {
		return top, err
	}
	return top, u.record(ctx, id, top, raw, nil)
}

// whole returns the index that an image came through if each of its manifests is that of an image which is here. It is for tags of which
// is not known what they stand for.
func (u *push) whole(id digest.Digest) (*ocispec.Index, ocispec.Descriptor) {
	rec := u.c.images[id]
	for _, d := range rec.Blobs {
		if _, isImage := u.c.images[d]; isImage || d == rec.Manifest.Digest {
			continue
		}
		if ix, top := u.index(id, d); ix != nil && len(ix.Manifests) > 1 {
			return ix, top
		}
	}
	return nil, ocispec.Descriptor{}
}

// index reads an index of the image id, nil for what is none, or where not each of its manifests is that of an image which is here, or stands
// beside them.
func (u *push) index(id, d digest.Digest) (*ocispec.Index, ocispec.Descriptor) {
	raw, err := u.s.c.Content.Read(d, manifest.MaxSize)
	if err != nil {
		return nil, ocispec.Descriptor{}
	}
	doc, err := manifest.Decode(raw, "")
	if err != nil || doc.Index == nil || slices.ContainsFunc(doc.Index.Manifests, func(m ocispec.Descriptor) bool {
		if standsBeside(m) {
			return !u.c.images[id].has(u.s, m)
		}
		id, ok := u.c.byDocument(m.Digest)
		return !ok || u.manifest(u.c.images[id], m.Digest).Digest != m.Digest
	}) {
		return nil, ocispec.Descriptor{}
	}
	return doc.Index, ocispec.Descriptor{MediaType: doc.MediaType, Digest: d, Size: int64(len(raw))}
}

// manifest describes the manifest of an image, which may have come by several, that is d or in the index d; for any other d the one on record.
func (u *push) manifest(rec record, d digest.Digest) ocispec.Descriptor {
	if d == rec.Manifest.Digest || !slices.Contains(rec.Blobs, d) {
		return rec.Manifest
	}
	raw, err := u.s.c.Content.Read(d, manifest.MaxSize)
	if err != nil {
		return rec.Manifest
	}
	doc, err := manifest.Decode(raw, "")
	switch {
	case err != nil:
	case doc.Index != nil:
		for _, m := range doc.Index.Manifests {
			if slices.Contains(rec.Blobs, m.Digest) {
				return u.manifest(rec, m.Digest)
			}
		}
	case len(doc.Manifest.Layers) == len(rec.Layers):
		return ocispec.Descriptor{MediaType: doc.MediaType, Digest: d, Size: int64(len(raw))}
	}
	return rec.Manifest
}

// image pushes layers, config and the manifest d of one image. tag "" stores the manifest by its digest only.
func (u *push) image(ctx context.Context, id digest.Digest, d ocispec.Descriptor, tag string) (ocispec.Descriptor, error) {
	rec := u.c.images[id]
	raw, err := u.s.c.Content.Read(d.Digest, manifest.MaxSize)
	if err != nil {
		return d, err
	}
	doc, err := manifest.Decode(raw, d.MediaType)
	if err != nil {
		return d, err
	}
	if doc.Manifest == nil || len(doc.Manifest.Layers) != len(rec.Layers) {
		return d, errdef.New(errdef.DataLoss, "image %s: its manifest does not fit its layers", id)
	}
	layers, made, err := u.layers(ctx, rec, doc.Manifest.Layers)
	if err != nil {
		return d, err
	}
	if !slices.EqualFunc(layers, doc.Manifest.Layers, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }) {
		doc.Manifest.Layers = layers
		if raw, err = json.Marshal(doc.Manifest); err != nil {
			return d, err
		}
		d.Digest, d.Size = digest.FromBytes(raw), int64(len(raw))
	}
	if err := u.config(ctx, doc.Manifest.Config); err != nil {
		return d, err
	}
	if err := u.repo.PutManifest(ctx, tag, d, raw); err != nil {
		return d, err
	}
	return d, u.record(ctx, id, d, raw, made)
}

func (u *push) config(ctx context.Context, d ocispec.Descriptor) error {
	if has, err := u.repo.Has(ctx, d.Digest, d.Size); err != nil || has {
		return err
	}
	raw, err := u.s.c.Content.Read(d.Digest, manifest.MaxSize)
	if err != nil {
		return err
	}
	_, err = u.repo.Upload(ctx, nil, registry.Source{Digest: d.Digest, Size: d.Size,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }})
	return err
}

// record remembers where the image is now and what its layers were compressed to.
func (u *push) record(ctx context.Context, id digest.Digest, d ocispec.Descriptor, raw []byte, made []sent) error {
	s := u.s
	s.pin(d.Digest)
	defer s.unpin(d.Digest)
	if err := s.c.Content.Put(ctx, d.Digest, d.Size, bytes.NewReader(raw)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c.DB.Update(func(tx *meta.Tx) error {
		var rec record
		found, err := tx.Get(bucketImages, id.String(), &rec)
		if err != nil || !found { // removed meanwhile: the registry has it
			return err
		}
		rec.Blobs = union(rec.Blobs, []digest.Digest{d.Digest})
		for _, m := range made {
			rec.Sent = append(slices.DeleteFunc(rec.Sent, func(o sent) bool { return o.Layer == m.Layer && o.Format == m.Format }), m)
		}
		if err := tx.Put(bucketImages, id.String(), rec); err != nil {
			return err
		}
		return tx.Put(bucketDigests, u.r.WithDigest(d.Digest).String(), id)
	})
}
