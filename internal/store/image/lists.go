package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Document is a manifest or index as a registry has it. The descriptor of a manifest has the platform that its config says.
type Document struct {
	Ref        string // canonical
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// RemoteDocument fetches what a reference names; no layer is looked at.
func RemoteDocument(ctx context.Context, k *registry.Client, name string, auth *registry.Auth) (out Document, err error) {
	r, err := ref.Parse(name)
	if err != nil {
		return out, err
	}
	repo := k.Repo(r, auth)
	raw, d, err := repo.Manifest(ctx, r.Digest)
	if err != nil {
		return out, err
	}
	doc, err := manifest.Decode(raw, d.MediaType)
	if err != nil {
		return out, fmt.Errorf("manifest for %s: %w", r.Familiar(), err)
	}
	d.MediaType = doc.MediaType
	if doc.Manifest != nil {
		config, err := readBlob(ctx, repo, doc.Manifest.Config)
		if err != nil {
			return out, fmt.Errorf("config of %s: %w", r.Familiar(), err)
		}
		img, err := manifest.DecodeConfig(config)
		if err != nil {
			return out, fmt.Errorf("%s: %w", r.Familiar(), err)
		}
		d.Platform = &ocispec.Platform{Architecture: img.Architecture, OS: img.OS, Variant: img.Variant, OSVersion: img.OSVersion, OSFeatures: img.OSFeatures}
	}
	return Document{r.String(), d, raw}, nil
}

// NewIndex makes the index of these manifests: Docker's manifest list, unless all of them are the OCI's.
func NewIndex(all []Document) (raw []byte, d ocispec.Descriptor, err error) {
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	ix.SchemaVersion = 2
	for _, m := range all {
		if m.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
			ix.MediaType = manifest.DockerManifestList
		}
		ix.Manifests = append(ix.Manifests, m.Descriptor)
	}
	if raw, err = json.MarshalIndent(ix, "", "   "); err != nil {
		return nil, d, err
	}
	if _, err := manifest.Decode(raw, ix.MediaType); err != nil {
		return nil, d, err
	}
	return raw, ocispec.Descriptor{MediaType: ix.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, nil
}

// PushIndex puts an index of manifests, which are in the same registry, under a tag. What lies in other repositories is mounted into this one.
func PushIndex(ctx context.Context, k *registry.Client, target string, all []Document, auth *registry.Auth) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	r, err := ref.Parse(target)
	if err == nil && (r.Digest != "" || len(all) == 0) {
		err = errdef.New(errdef.InvalidArgument, "push manifest list %s: it needs a tag and at least one manifest", r.Familiar())
	}
	if err != nil {
		return none, err
	}
	raw, d, err := NewIndex(all)
	if err != nil {
		return none, fmt.Errorf("push manifest list %s: %w", r.Familiar(), err)
	}
	repo := k.Repo(r, auth)
	defer k.Rest()
	for _, m := range all {
		if err := bringOver(ctx, repo, r, m); err != nil {
			return none, fmt.Errorf("push manifest list %s: %w", r.Familiar(), err)
		}
	}
	return d, repo.PutManifest(ctx, r.Tag, d, raw)
}

// bringOver makes the target's repository have a manifest and its blobs.
func bringOver(ctx context.Context, repo *registry.Repo, target ref.Ref, m Document) error {
	from, err := ref.Parse(m.Ref)
	if err != nil {
		return err
	}
	switch {
	case digest.FromBytes(m.Raw) != m.Descriptor.Digest:
		return errdef.New(errdef.InvalidArgument, "manifest %s: its bytes do not have the digest %s", from.Familiar(), m.Descriptor.Digest)
	case from.Domain != target.Domain:
		return errdef.New(errdef.InvalidArgument, "cannot use source images from a different registry than the target image: %s != %s", from.Domain, target.Domain)
	case from.Path == target.Path:
		return nil
	}
	doc, err := manifest.Decode(m.Raw, m.Descriptor.MediaType)
	if err != nil || doc.Manifest == nil {
		return errdef.New(errdef.InvalidArgument, "manifest %s: it is no image manifest", from.Familiar())
	}
	for _, b := range append([]ocispec.Descriptor{doc.Manifest.Config}, doc.Manifest.Layers...) {
		if foreign(b.MediaType) {
			continue
		}
		if has, err := repo.Has(ctx, b.Digest, b.Size); err != nil || has {
			if err != nil {
				return err
			}
			continue
		}
		session, err := repo.Begin(ctx, b.Digest, from.Path)
		if err != nil {
			return err
		}
		if session != nil {
			return errdef.New(errdef.Unavailable, "registry %s does not mount blob %s of %s into %s: push the image to that repository first", target.Domain, b.Digest, from.FamiliarName(), target.FamiliarName())
		}
	}
	return repo.PutManifest(ctx, "", ocispec.Descriptor{MediaType: m.Descriptor.MediaType, Digest: m.Descriptor.Digest, Size: int64(len(m.Raw))}, m.Raw)
}
