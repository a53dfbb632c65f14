package image

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	store "github.com/dhow-containers/dhow/internal/store/image"
)

// PullAll implements api.Images.
func (s *Service) PullAll(ctx context.Context, repository string, o api.PullOptions, auth *registry.AuthConfig, p api.Progress) error {
	tags, err := store.RemoteTags(ctx, s.Registry, repository, credentials(auth, repository))
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		return errdef.New(errdef.NotFound, "repository %s has no tags", repository)
	}
	for _, t := range tags {
		if err := s.Pull(ctx, t, o, auth, p); err != nil {
			return err
		}
		if p != nil {
			p(jsonstream.Message{Status: t})
		}
	}
	return nil
}

// Distribution implements api.Images.
func (s *Service) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	d, platforms, err := store.Remote(ctx, s.Registry, ref, credentials(auth, ref))
	if platforms == nil {
		platforms = []ocispec.Platform{}
	}
	return registry.DistributionInspect{Descriptor: d, Platforms: platforms}, err
}

// maxHits is how many results one may ask for; Docker Hub gives no more.
const maxHits = 100

// Search implements api.Images.
func (s *Service) Search(ctx context.Context, term string, limit int, f api.Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	if limit == 0 {
		limit = 25
	}
	if limit < 1 || limit > maxHits {
		return nil, errdef.New(errdef.InvalidArgument, "Limit %d is outside the range of [1, %d]", limit, maxHits)
	}
	keep, err := hits(f)
	if err != nil {
		return nil, err
	}
	domain := "docker.io"
	if host, rest, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		domain, term = host, rest
	}
	if term == "" {
		return nil, errdef.New(errdef.InvalidArgument, "search: no term given")
	}
	found, err := s.Registry.Search(ctx, domain, term, limit, credentials(auth, domain+"/any"))
	if err != nil {
		return nil, err
	}
	out := []registry.SearchResult{}
	for _, h := range found {
		if r := (registry.SearchResult{Name: h.Name, Description: h.Description, StarCount: h.Stars, IsOfficial: h.Official}); keep(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// hits is the filters of a search.
func hits(f api.Filters) (func(registry.SearchResult) bool, error) {
	stars, official, automated := 0, "", ""
	for k, values := range f {
		for _, v := range values {
			switch n, err := strconv.Atoi(v); {
			case k == "stars" && err == nil:
				stars = max(stars, n)
			case k == "is-official" && slices.Contains([]string{"true", "false", "1", "0"}, v):
				official = map[string]string{"1": "true", "0": "false"}[v]
				if official == "" {
					official = v
				}
			case k == "is-automated" && slices.Contains([]string{"true", "false", "1", "0"}, v):
				automated = v
			default:
				return nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s=%s'", k, v)
			}
		}
	}
	return func(r registry.SearchResult) bool {
		return r.StarCount >= stars && (official == "" || strconv.FormatBool(r.IsOfficial) == official) && automated != "true" && automated != "1"
	}, nil
}
