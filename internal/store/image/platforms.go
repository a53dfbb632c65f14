package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AllPlatforms in place of a platform asks a pull for every image of an index.
const AllPlatforms = "all"

// family are the images that came through an index which id came through, too, and id itself: one image for several platforms.
func (c catalog) family(id digest.Digest) []digest.Digest {
	out := []digest.Digest{id}
	for _, o := range slices.Sorted(maps.Keys(c.images)) {
		if o != id && slices.ContainsFunc(c.images[o].Blobs, func(d digest.Digest) bool { return slices.Contains(c.images[id].Blobs, d) }) {
			out = append(out, o)
		}
	}
	return out
}

// partOf is the image with a tag that a nameless one belongs to as another platform, "" for none.
func (c catalog) partOf(id digest.Digest) digest.Digest {
	if len(namesOf(c.tags, id)) > 0 {
		return ""
	}
	for _, o := range c.family(id)[1:] {
		if len(namesOf(c.tags, o)) > 0 {
			return o
		}
	}
	return ""
}

// parts are the nameless images that go when the last tag of id's family goes with id.
func (c catalog) parts(id digest.Digest) []digest.Digest {
	var out []digest.Digest
	for _, o := range c.family(id)[1:] {
		switch {
		case len(namesOf(c.tags, o)) > 0:
			return nil // they are its parts as well
		default:
			out = append(out, o)
		}
	}
	return out
}

// provide finds the image of a family for a platform, or that runs there as well.
func (c catalog) provide(name string, id digest.Digest, want ocispec.Platform, exact bool) (best digest.Digest, err error) {
	rate := 0
	if exact {
		rate = manifest.Exact - 1
	}
	for _, o := range c.family(id) {
		if r := manifest.Match(c.images[o].Platform, want); r > rate {
			best, rate = o, r
		}
	}
	if best == "" {
		err = errdef.New(errdef.NotFound, "image with reference %s was found but does not provide the specified platform (%s): it is for %s",
			printable(name), manifest.PlatformString(want), manifest.PlatformString(c.images[id].Platform))
	}
	return best, err
}

// ResolvePlatform is Resolve for one platform of an image; "" is what the name itself means.
func ResolvePlatform(s *Store, name, platform string) (Image, error) {
	if platform == "" {
		return s.Resolve(name)
	}
	want, err := manifest.ParsePlatform(platform, s.c.Host)
	if err != nil {
		return Image{}, err
	}
	c, err := s.readable()
	if err != nil {
		return Image{}, err
	}
	id, err := c.find(name)
	if err != nil {
		return Image{}, err
	}
	best, err := c.provide(name, id, want, false)
	if err != nil {
		return Image{}, err
	}
	return s.describe(c, best)
}

// RemovePlatforms removes the images of some platforms from one for several. Its names stay with the others, and go with the last of them.
// What a container uses is a Conflict; force only helps against names in several repositories.
func RemovePlatforms(s *Store, name string, platforms []ocispec.Platform, force bool, inUse InUse) (untagged, deleted []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.catalog()
	if err != nil {
		return nil, nil, err
	}
	whole, err := c.find(name)
	if err != nil {
		return nil, nil, err
	}
	var ch change
	for _, p := range platforms {
		o, err := c.provide(name, whole, p, true)
		if err != nil {
			return nil, nil, err
		}
		if users := inUse.of(o); len(users) > 0 {
			return nil, nil, errdef.New(errdef.Conflict, "conflict: unable to delete %s of %s (cannot be forced) - container %s is using it",
				manifest.PlatformString(c.images[o].Platform), printable(name), id.Short(users[0]))
		}
		if !slices.Contains(ch.images, o) {
			ch.images = append(ch.images, o)
		}
	}
	if err := c.inherit(&ch, whole, s.c.Host, force); err != nil {
		return nil, nil, err
	}
	return s.apply(c, ch)
}

// inherit settles the names of what goes from the family of whole: they pass to the image for the host or the first that stays, but those of
// manifests that go, and all where none stays.
func (c catalog) inherit(ch *change, whole digest.Digest, host ocispec.Platform, force bool) error {
	ch.moved = map[string][]string{}
	for _, o := range c.family(whole) {
		if !slices.Contains(ch.images, o) && (ch.heir == "" || manifest.Match(c.images[o].Platform, host) > manifest.Match(c.images[ch.heir].Platform, host)) {
			ch.heir = o
		}
	}
	for _, o := range ch.images {
		tags := namesOf(c.tags, o)
		switch {
		case ch.heir == "":
			ch.tags = append(ch.tags, tags...)
		case len(tags) > 0 && o != whole:
			return errdef.New(errdef.Conflict, "conflict: unable to delete %s - it is also %s: remove that name first", manifest.PlatformString(c.images[o].Platform), familiar(tags[0]))
		default:
			ch.moved[bucketTags] = append(ch.moved[bucketTags], tags...)
		}
		for _, n := range namesOf(c.digests, o) {
			if _, d, _ := strings.Cut(n, "@"); slices.Contains(c.images[ch.heir].Blobs, digest.Digest(d)) {
				ch.moved[bucketDigests] = append(ch.moved[bucketDigests], n)
			} else {
				ch.digests = append(ch.digests, n)
			}
		}
	}
	if !force && repositories(ch.tags) > 1 {
		return errdef.New(errdef.Conflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", id.Short(whole.String()))
	}
	return nil
}

// Parts are the images of other platforms that came through an index with this one.
func Parts(s *Store, id digest.Digest) (out []Image, err error) {
	c, err := s.readable()
	if err != nil {
		return nil, err
	}
	for _, o := range c.family(id)[1:] {
		img, err := s.describe(c, o)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// pullPlatforms pulls every image of an index. The one for this host gets the tag, last; when there is none, the first. Attestations are no images.
func pullPlatforms(ctx context.Context, s *Store, repo *registry.Repo, r ref.Ref, p *reporter) (Image, error) {
	raw, top, err := repo.Manifest(ctx, r.Digest)
	if err != nil {
		return Image{}, err
	}
	doc, err := manifest.Decode(raw, top.MediaType)
	if err != nil {
		return Image{}, fmt.Errorf("manifest for %s: %w", r.Familiar(), err)
	}
	if doc.Index == nil {
		return s.pullFrom(ctx, repo, r, s.c.Host, false, p)
	}
	var all []ocispec.Descriptor
	for _, d := range doc.Index.Manifests {
		if d.Platform == nil || d.Platform.OS != "unknown" {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return Image{}, errdef.New(errdef.NotFound, "manifest for %s: the index %s has no images", r.Familiar(), top.Digest)
	}
	mine := all[0].Digest
	if d, err := manifest.Select(doc.Index, s.c.Host); err == nil {
		mine = d.Digest
	}
	slices.SortStableFunc(all, func(a, b ocispec.Descriptor) int { // the one with the tag last
		return index(a.Digest == mine) - index(b.Digest == mine)
	})
	var img Image
	for _, d := range all {
		f, err := follow(ctx, repo, r, func(ix *ocispec.Index) (ocispec.Descriptor, error) {
			if slices.ContainsFunc(ix.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == d.Digest }) {
				return d, nil
			}
			return manifest.Select(ix, s.c.Host) // an index within the index
		})
		if err == nil {
			err = f.readConfig(ctx, repo, r, s.c.Host, false)
		}
		if err != nil {
			return Image{}, err
		}
		name := r
		if d.Digest != mine {
			f.top, name = d, r.WithDigest(d.Digest)
		}
		p.say("", "Platform: "+manifest.PlatformString(f.image.Platform))
		if img, err = take(ctx, s, repo, name, f, p); err != nil {
			return Image{}, err
		}
	}
	return img, nil
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Together makes images that were added one for several platforms, by an index of their manifests; the first keeps the names.
func (b *Batch) Together(ctx context.Context, ids []digest.Digest) error {
	c, err := b.s.readable()
	if err != nil || len(ids) < 2 {
		return err
	}
	var members []*Fresh
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	ix.SchemaVersion = 2
	for _, id := range ids {
		at := slices.IndexFunc(b.fresh, func(f *Fresh) bool { return f.id == id })
		if at < 0 {
			return errdef.New(errdef.System, "image %s was not added", id)
		}
		f := b.fresh[at]
		r, ok := c.images[id]
		if !ok {
			r = f.record
		}
		d := r.Manifest
		d.Platform = &r.Platform
		ix.Manifests, members = append(ix.Manifests, d), append(members, f)
	}
	raw, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	index := digest.FromBytes(raw)
	b.pin(index)
	for n, f := range members {
		f.index, f.part = index, f.part || n > 0
	}
	return b.s.c.Content.Put(ctx, index, int64(len(raw)), bytes.NewReader(raw))
}
