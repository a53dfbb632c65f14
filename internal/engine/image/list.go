package image

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	dimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	store "github.com/dhow-containers/dhow/internal/store/image"
)

// List implements api.Images. There are no intermediate images, so all changes nothing.
func (s *Service) List(ctx context.Context, _ bool, f api.Filters) ([]dimage.Summary, error) {
	for k := range f {
		if !slices.Contains([]string{"reference", "dangling", "label", "before", "since", "until"}, k) {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	for _, p := range f["reference"] {
		if _, err := path.Match(p, ""); err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter 'reference=%s': %w", p, err)
		}
	}
	keep, err := s.bounds(ctx, f)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.List()
	if err != nil {
		return nil, err
	}
	coming := store.Arriving(s.Store)
	all = append(coming, slices.DeleteFunc(all, func(i store.Image) bool {
		return slices.ContainsFunc(coming, func(c store.Image) bool { return c.ID == i.ID }) // it arrived just now
	})...)
	share := shared(all)
	out := []dimage.Summary{}
	for _, img := range all {
		tags, digests := img.RepoTags, img.RepoDigests
		if len(f["reference"]) > 0 {
			tags = matching(tags, f["reference"])
			digests = slices.Compact(slices.Sorted(slices.Values(append(matching(digests, f["reference"]), ofTags(digests, tags)...))))
			if len(tags)+len(digests) == 0 {
				continue
			}
		}
		if !keep(img) {
			continue
		}
		whole := img.Size
		for _, p := range img.Parts {
			whole += p.Size
		}
		out = append(out, dimage.Summary{
			ID: img.ID.String(), Created: img.Created.Unix(), Labels: img.Config.Config.Labels, RepoTags: list(tags), RepoDigests: list(digests),
			Size: whole, SharedSize: share(img), Containers: int64(len(s.Users(img.ID.String()))), Descriptor: &img.Manifest,
			Manifests: s.manifests(img),
		})
	}
	return out, nil
}

// manifests are the platforms of an image that are here.
func (s *Service) manifests(img store.Image) (out []dimage.ManifestSummary) {
	for _, i := range append([]store.Image{img}, img.Parts...) {
		users := s.Users(i.ID.String())
		m := dimage.ManifestSummary{ID: i.Manifest.Digest.String(), Descriptor: i.Manifest, Available: true, Kind: dimage.ManifestKindImage,
			ImageData: &dimage.ImageProperties{Platform: i.Platform, Containers: list(users)}}
		m.ImageData.Size.Unpacked, m.Size.Total = i.Size, i.Size
		out = append(out, m)
	}
	return out
}

// shared tells how much of an image is in others, too.
func shared(all []store.Image) func(store.Image) int64 {
	count := map[digest.Digest]int{}
	for _, img := range all {
		for _, d := range slices.Compact(slices.Sorted(slices.Values(img.DiffIDs))) {
			count[d]++
		}
	}
	return func(img store.Image) (sum int64) {
		for n, d := range img.DiffIDs {
			if count[d] > 1 && n < len(img.LayerSizes) {
				sum += img.LayerSizes[n]
			}
		}
		return sum
	}
}

// bounds is the filters that look at an image alone.
func (s *Service) bounds(ctx context.Context, f api.Filters) (func(store.Image) bool, error) {
	var tests []func(store.Image) bool
	if len(f["dangling"]) > 0 {
		want, err := f.Bool("dangling", true)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(i store.Image) bool { return (len(i.RepoTags) == 0) == want })
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return nil, err
	}
	if !until.IsZero() {
		tests = append(tests, func(i store.Image) bool { return i.Created.Before(until) })
	}
	for _, k := range []string{"before", "since"} {
		for _, v := range f[k] {
			other, err := s.resolve(ctx, v)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(i store.Image) bool {
				return k == "before" && i.Created.Before(other.Created) || k == "since" && i.Created.After(other.Created)
			})
		}
	}
	tests = append(tests, func(i store.Image) bool { return f.Labelled(i.Config.Config.Labels) })
	return func(i store.Image) bool {
		return !slices.ContainsFunc(tests, func(t func(store.Image) bool) bool { return !t(i) })
	}, nil
}

// ofTags keeps the digests of the repositories that the tags are of.
func ofTags(digests, tags []string) []string {
	return slices.DeleteFunc(slices.Clone(digests), func(d string) bool {
		repo, _, _ := strings.Cut(d, "@")
		return !slices.ContainsFunc(tags, func(t string) bool { return strings.HasPrefix(t, repo+":") })
	})
}

// matching keeps the names that one of the patterns fits: the whole name, or the name without its tag or digest.
func matching(names, patterns []string) []string {
	var out []string
	for _, n := range names {
		repo := n
		if i := strings.LastIndexAny(n, ":@"); i > strings.LastIndexByte(n, '/') {
			repo = n[:i]
		}
		if r, _, ok := strings.Cut(n, "@"); ok {
			repo = r
		}
		if slices.ContainsFunc(patterns, func(p string) bool {
			whole, _ := path.Match(p, n)
			bare, _ := path.Match(p, repo)
			return whole || bare
		}) {
			out = append(out, n)
		}
	}
	return out
}
