package image

import (
	"context"
	"fmt"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RemoteTags are the names repository:tag that a registry has of a repository.
func RemoteTags(ctx context.Context, k *registry.Client, repository string, auth *registry.Auth) ([]string, error) {
	r, err := ref.Parse(repository)
	if err != nil {
		return nil, err
	}
	tags, err := k.Repo(r, auth).Tags(ctx)
	for i, t := range tags {
		tags[i] = r.WithTag(t).Familiar()
	}
	return tags, err
}

// Remote says what a reference is in its registry: the descriptor of what it names, and the platforms that it is for.
func Remote(ctx context.Context, k *registry.Client, name string, auth *registry.Auth) (d ocispec.Descriptor, platforms []ocispec.Platform, err error) {
	r, err := ref.Parse(name)
	if err != nil {
		return d, nil, err
	}
	repo := k.Repo(r, auth)
	raw, d, err := repo.Manifest(ctx, "")
	if err != nil {
		return d, nil, err
	}
	doc, err := manifest.Decode(raw, d.MediaType)
	if err != nil {
		return d, nil, fmt.Errorf("manifest for %s: %w", r.Familiar(), err)
	}
	d.MediaType = doc.MediaType
	if doc.Index != nil {
		for _, m := range doc.Index.Manifests {
			if m.Platform != nil {
				platforms = append(platforms, *m.Platform)
			}
		}
		return d, platforms, nil
	}
	config, err := readBlob(ctx, repo, doc.Manifest.Config)
	if err != nil {
		return d, nil, fmt.Errorf("config of %s: %w", r.Familiar(), err)
	}
	img, err := manifest.DecodeConfig(config)
	if err != nil {
		return d, nil, fmt.Errorf("%s: %w", r.Familiar(), err)
	}
	return d, []ocispec.Platform{img.Platform}, nil
}
