package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/registry"
)

// What stands beside the images of an index for nobody's platform, as attestations of a build do, is kept as the files that it is, so that
// the index can be pushed as it came. Nothing here looks into it.

const (
	// MaxBeside is the size in bytes of one file of it.
	MaxBeside = 16 << 20
	// maxAllBeside is what all of an index may have.
	maxAllBeside = 128 << 20
)

// subject is the annotation that names the manifest which an attestation is about.
const subject = "vnd.docker.reference.digest"

// standsBeside tells whether an entry of an index is for no platform.
func standsBeside(d ocispec.Descriptor) bool {
	return d.Platform != nil && d.Platform.OS == "unknown"
}

// bringBeside fetches what stands beside the images of an index and returns its files, which b keeps. What cannot be had is told and left
// out: the images are whole without it. The error is the end of ctx.
func bringBeside(ctx context.Context, b *Batch, repo *registry.Repo, ix *ocispec.Index, p *reporter) (files []digest.Digest, err error) {
	left := int64(maxAllBeside)
	for _, d := range ix.Manifests {
		if !standsBeside(d) {
			continue
		}
		mine, size, err := fetchBeside(ctx, b, repo, d, left)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			p.say("", fmt.Sprintf("Attestation %s: %v; left out", id.Short(d.Digest.String()), err))
			continue
		}
		left -= size
		files = union(files, mine)
	}
	return files, nil
}

func fetchBeside(ctx context.Context, b *Batch, repo *registry.Repo, d ocispec.Descriptor, left int64) (files []digest.Digest, size int64, err error) {
	raw, got, err := repo.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, 0, err
	}
	parts, err := manifest.Files(raw, got.MediaType, MaxBeside)
	if err != nil {
		return nil, 0, err
	}
	size = int64(len(raw))
	for _, f := range parts {
		size += f.Size
	}
	if size > left {
		return nil, 0, errdef.New(errdef.DataLoss, "%d bytes; those of an index may have %d together", size, maxAllBeside)
	}
	for _, f := range parts {
		b.pin(f.Digest)
		if b.s.c.Content.Has(f.Digest) {
			continue
		}
		in, err := repo.Blob(ctx, f)
		if err != nil {
			return nil, 0, err
		}
		err = b.s.c.Content.Put(ctx, f.Digest, f.Size, in)
		in.Close()
		if err != nil {
			return nil, 0, err
		}
	}
	b.pin(d.Digest)
	files = []digest.Digest{d.Digest}
	for _, f := range parts {
		files = append(files, f.Digest)
	}
	return files, size, b.s.c.Content.Put(ctx, d.Digest, int64(len(raw)), bytes.NewReader(raw))
}

// has tells whether all files of what stands beside an image are here.
func (r record) has(s *Store, d ocispec.Descriptor) bool {
	if !slices.Contains(r.Beside, d.Digest) {
		return false
	}
	raw, err := s.c.Content.Read(d.Digest, manifest.MaxSize)
	if err != nil {
		return false
	}
	parts, err := manifest.Files(raw, d.MediaType, MaxBeside)
	return err == nil && !slices.ContainsFunc(parts, func(f ocispec.Descriptor) bool { return !s.c.Content.Has(f.Digest) })
}

// beside pushes what stands beside the images of an index, byte for byte.
func (u *push) beside(ctx context.Context, d ocispec.Descriptor) error {
	raw, err := u.s.c.Content.Read(d.Digest, manifest.MaxSize)
	if err != nil {
		return err
	}
	parts, err := manifest.Files(raw, d.MediaType, MaxBeside)
	if err != nil {
		return err
	}
	for _, f := range parts {
		if has, err := u.repo.Has(ctx, f.Digest, f.Size); err != nil || has {
			if err != nil {
				return err
			}
			continue
		}
		open := func() (io.ReadCloser, error) { return u.s.c.Content.Open(f.Digest) }
		if _, err := u.repo.Upload(ctx, nil, registry.Source{Digest: f.Digest, Size: f.Size, Open: open}); err != nil {
			return err
		}
	}
	return u.repo.PutManifest(ctx, "", d, raw)
}

// besides are the entries of an index that still have what they are about, once manifests in it were made anew.
func besides(ix *ocispec.Index) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(ix.Manifests), func(d ocispec.Descriptor) bool {
		about := digest.Digest(d.Annotations[subject])
		return standsBeside(d) && about != "" && !slices.ContainsFunc(ix.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == about })
	})
}
