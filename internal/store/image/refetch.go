package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/partial"
	"github.com/dhow-containers/dhow/internal/store/registry"
)

// Keys gives the credentials of a registry, nil for none.
type Keys func(domain string) *registry.Auth

// Refetcher fetches anew what is damaged here, from the registries that images came from or went to.
type Refetcher struct {
	s    *Store
	c    catalog
	keys Keys
}

// Refetcher returns one that knows the images of this moment.
func (l Ledger) Refetcher(keys Keys) (*Refetcher, error) {
	s := l.s
	c, err := s.readable()
	if keys == nil {
		keys = func(string) *registry.Auth { return nil }
	}
	return &Refetcher{s, c, keys}, err
}

// Rest closes the connections that were used.
func (f *Refetcher) Rest() {
	if f.s.c.Registry != nil {
		f.s.c.Registry.Rest()
	}
}

// each tries every source of the images that match until one gives what is wanted; from is its name.
func (f *Refetcher) each(what string, match func(digest.Digest, record) bool, try func(digest.Digest, record, *registry.Repo) error) (from string, err error) {
	errs := []error{}
	for id, r := range f.c.images {
		if !match(id, r) {
			continue
		}
		for _, n := range f.c.sources(id) {
			at, err := ref.Parse(n)
			if err != nil || f.s.c.Registry == nil {
				continue
			}
			for _, repo := range f.s.c.Registry.Sources(at, f.keys(at.Domain)) {
				if err := try(id, r, repo); err == nil {
					return at.FamiliarName(), nil
				} else {
					errs = append(errs, err)
				}
			}
		}
	}
	if len(errs) == 0 {
		return "", errdef.New(errdef.NotFound, "%s: no image that needs it came from a registry", what)
	}
	return "", errors.Join(errs...)
}

// Document fetches a manifest, an index or a config. The manifest of an image that was made here is made again.
func (f *Refetcher) Document(ctx context.Context, d digest.Digest) (raw []byte, from string, err error) {
	if r, ok := f.c.images[d]; ok {
		from, err = f.each("config "+d.String(), func(id digest.Digest, _ record) bool { return id == d }, func(_ digest.Digest, _ record, repo *registry.Repo) error {
			last := error(errdef.New(errdef.NotFound, "config %s: no manifest of it can be read", d))
			for _, m := range f.manifests(d, r) {
				if raw, last = readBlob(ctx, repo, m.Config); last == nil {
					return nil
				}
			}
			return last
		})
		return raw, from, err
	}
	for id, r := range f.c.images {
		if r.Local && r.Manifest.Digest == d {
			if raw, err := f.describe(id, r); err == nil && digest.FromBytes(raw) == d {
				return raw, "its config and layers", nil
			}
		}
	}
	from, err = f.each("document "+d.String(), func(_ digest.Digest, r record) bool { return slices.Contains(r.Blobs, d) }, func(_ digest.Digest, _ record, repo *registry.Repo) error {
		raw, _, err = repo.Manifest(ctx, d)
		return err
	})
	return raw, from, err
}

// Beside fetches a file of what stands beside images: a manifest, or what one that can be read names.
func (f *Refetcher) Beside(ctx context.Context, d digest.Digest) (raw []byte, from string, err error) {
	from, err = f.each("attestation file "+d.String(), func(_ digest.Digest, r record) bool { return slices.Contains(r.Beside, d) }, func(_ digest.Digest, r record, repo *registry.Repo) error {
		for _, b := range r.Beside {
			if doc, err := f.s.c.Content.Read(b, manifest.MaxSize); err == nil {
				parts, _ := manifest.Files(doc, "", MaxBeside)
				if i := slices.IndexFunc(parts, func(p ocispec.Descriptor) bool { return p.Digest == d }); i >= 0 {
					raw, err = readUpTo(ctx, repo, parts[i], MaxBeside)
					return err
				}
			}
		}
		raw, _, err = repo.Manifest(ctx, d)
		return err
	})
	return raw, from, err
}

// manifests are those of an image that can be read.
func (f *Refetcher) manifests(id digest.Digest, r record) []*ocispec.Manifest {
	var out []*ocispec.Manifest
	for _, b := range r.Blobs {
		raw, err := f.s.c.Content.Read(b, manifest.MaxSize)
		if err != nil {
			continue
		}
		doc, err := manifest.Decode(raw, "")
		if err == nil && doc.Manifest != nil && doc.Manifest.Config.Digest == id && len(doc.Manifest.Layers) == len(r.Layers) {
			out = append(out, doc.Manifest)
		}
	}
	return out
}

func (f *Refetcher) describe(id digest.Digest, r record) ([]byte, error) {
	config, err := f.s.c.Content.Read(id, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	var layers []layer.Info
	for _, d := range r.Layers {
		i, err := f.s.c.Layers.Info(d)
		if err != nil {
			return nil, err
		}
		layers = append(layers, i)
	}
	raw, _, err := Describe(config, layers)
	return raw, err
}

// Layer fetches a layer and puts it in the place of the damaged one.
func (f *Refetcher) Layer(ctx context.Context, diff digest.Digest) (from string, err error) {
	return f.each("layer "+diff.String(), func(_ digest.Digest, r record) bool { return slices.Contains(r.Layers, diff) }, func(id digest.Digest, r record, repo *registry.Repo) error {
		at, last := slices.Index(r.Layers, diff), error(errdef.New(errdef.NotFound, "layer %s: no manifest of it can be read", diff))
		for _, m := range f.manifests(id, r) {
			if last = f.replace(ctx, repo, m.Layers[at], diff); last == nil {
				return nil
			}
		}
		return last
	})
}

func (f *Refetcher) replace(ctx context.Context, repo *registry.Repo, d ocispec.Descriptor, diff digest.Digest) error {
	return resume(ctx, f.s, d, func(kept *partial.Blob) error {
		b, err := repo.Resume(ctx, d, kept)
		if err != nil {
			return err
		}
		defer b.Close()
		in, err := inflate(b, f.s.c.MaxLayerSize)
		if err != nil {
			return fmt.Errorf("layer %s: %w", diff, err)
		}
		defer in.Close()
		err = layer.Replace(ctx, f.s.c.Layers, diff, in)
		if in.err != nil && in.err != io.EOF {
			err = in.err
		}
		return err
	})
}
