package image

import (
	"context"

	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	store "github.com/dhow-containers/dhow/internal/store/image"
	reg "github.com/dhow-containers/dhow/internal/store/registry"
)

// client is the one for a request, which may allow a registry without TLS.
func (s *Service) client(name string, insecure bool) *reg.Client {
	if r, err := ref.Parse(name); err == nil && insecure {
		return s.Registry.Insecurely(r.Domain)
	}
	return s.Registry
}

// Manifest implements api.Images.
func (s *Service) Manifest(ctx context.Context, name string, insecure bool, auth *registry.AuthConfig) (api.Manifest, error) {
	k := s.client(name, insecure)
	defer k.Rest()
	d, err := store.RemoteDocument(ctx, k, name, credentials(auth, name))
	return api.Manifest(d), err
}

// PushManifests implements api.Images.
func (s *Service) PushManifests(ctx context.Context, target string, all []api.Manifest, insecure bool, auth *registry.AuthConfig) (string, error) {
	var docs []store.Document
	for _, m := range all {
		docs = append(docs, store.Document(m))
	}
	k := s.client(target, insecure)
	defer k.Rest()
	d, err := store.PushIndex(ctx, k, target, docs, credentials(auth, target))
	return d.Digest.String(), err
}
