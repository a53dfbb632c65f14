package image

import (
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
)

// document is a manifest or index as it lies on disk.
type document struct {
	desc ocispec.Descriptor
	manifest.Document
}

// documents are all that can be read.
type documents []document

func readDocuments(s *Store) (documents, error) {
	all, err := s.c.Content.List()
	if err != nil {
		return nil, err
	}
	var out documents
	for _, b := range all {
		raw, err := s.c.Content.Read(b.Digest, manifest.MaxSize)
		if err != nil {
			continue
		}
		if d, err := manifest.Decode(raw, ""); err == nil {
			out = append(out, document{ocispec.Descriptor{MediaType: d.MediaType, Digest: b.Digest, Size: int64(len(raw))}, d})
		}
	}
	return out, nil
}

// recordOf makes the record of an image out of the documents that belong to it: the manifests of its config, the indexes above those. A
// manifest with compressed layers came from a registry, and counts before one that was made here.
func (all documents) recordOf(id digest.Digest, cfg dockerspec.DockerOCIImage) (record, error) {
	r := record{Blobs: []digest.Digest{id}, Layers: cfg.RootFS.DiffIDs, Platform: cfg.Platform, Added: time.Now().UTC()}
	if cfg.Created != nil {
		r.Created = *cfg.Created
	}
	add := func(d digest.Digest) { r.Blobs = union(r.Blobs, []digest.Digest{d}) }
	for _, d := range all {
		if d.Manifest == nil || d.Manifest.Config.Digest != id || len(d.Manifest.Layers) != len(r.Layers) {
			continue
		}
		add(d.desc.Digest)
		local := slices.EqualFunc(d.Manifest.Layers, r.Layers, func(l ocispec.Descriptor, diff digest.Digest) bool { return l.Digest == diff })
		if r.Manifest.Digest == "" || r.Local && !local {
			r.Manifest, r.Local = d.desc, local
		}
	}
	if r.Manifest.Digest == "" {
		return r, errdef.New(errdef.NotFound, "image %s: no manifest of it is here", id)
	}
	for range manifest.MaxDepth {
		for _, d := range all {
			if d.Index != nil && slices.ContainsFunc(d.Index.Manifests, func(m ocispec.Descriptor) bool { return slices.Contains(r.Blobs, m.Digest) }) {
				add(d.desc.Digest)
			}
		}
	}
	return r, nil
}
