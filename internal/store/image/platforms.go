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

// family is id itself and the images that came through one of these indexes: one image for several platforms.
func (c catalog) family(id digest.Digest, through []digest.Digest) []digest.Digest {
	out := []digest.Digest{id}
	for _, o := range slices.Sorted(maps.Keys(c.images)) {
		if o != id && slices.ContainsFunc(c.images[o].Blobs, func(d digest.Digest) bool { return slices.Contains(through, d) }) {
			out = append(out, o)
		}
	}
	return out
}

// through are the documents, indexes and manifests, that a name of an image stands for: an ID for those of all its tags.
func (c catalog) through(name string, id digest.Digest) []digest.Digest {
	if r, err := ref.Parse(name); err == nil {
		if at, ok := c.named(r); ok && at == id {
			return c.standsFor(r)
		}
	}
	if d, err := ref.ParseDigest(name); err == nil && d != id {
		return []digest.Digest{d}
	}
	var out []digest.Digest
	for _, t := range namesOf(c.tags, id) {
		if r, err := ref.Parse(t); err == nil {
			out = union(out, c.standsFor(r))
		}
	}
	if len(out) == 0 { // nameless: another platform of something, maybe
		return c.images[id].Blobs
	}
	return out
}

// standsFor are the documents of a name that is known.
func (c catalog) standsFor(r ref.Ref) []digest.Digest {
	if r.Digest != "" {
		return []digest.Digest{r.Digest}
	}
	if top := c.tops[r.String()]; top != "" {
		return []digest.Digest{top}
	}
	return c.images[c.tags[r.String()]].Blobs
}

// topOf is what a further tag for a name stands for: the same; for an ID whose tags stand for different documents, the image's own manifest.
func (c catalog) topOf(name string, id digest.Digest) digest.Digest {
	if all := c.through(name, id); len(all) == 1 {
		return all[0]
	}
	if r, err := ref.Parse(name); err == nil && r.Digest == "" && c.tags[r.String()] == id {
		return c.tops[r.String()] // "": of a tag from before that was kept
	}
	return c.images[id].Manifest.Digest
}

// partOf is the image with a tag that a nameless one belongs to as another platform, "" for none.
func (c catalog) partOf(id digest.Digest) (whole digest.Digest) {
	for _, to := range c.tags {
		if to == id {
			return ""
		}
	}
	mine := c.images[id].Blobs
	for t, o := range c.tags {
		if whole != "" && whole <= o {
			continue
		}
		through := []digest.Digest{c.tops[t]}
		if through[0] == "" {
			through = c.images[o].Blobs
		}
		if slices.ContainsFunc(through, func(d digest.Digest) bool { return slices.Contains(mine, d) }) {
			whole = o
		}
	}
	return whole
}

// orphans are the nameless images, other platforms of something, that are of nothing any more without these tags and images.
func (c catalog) orphans(tags []string, images []digest.Digest) (out []digest.Digest) {
	after := c
	after.tags = maps.Clone(c.tags)
	for _, t := range tags {
		delete(after.tags, t)
	}
	for _, id := range slices.Sorted(maps.Keys(c.images)) {
		if !slices.Contains(images, id) && c.partOf(id) != "" && after.partOf(id) == "" {
			out = append(out, id)
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
	for _, o := range c.family(id, c.through(name, id)) {
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
	if err := s.arrivals.whole(name); err != nil {
		return Image{}, err
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
	if err := s.arrivals.whole(name); err != nil {
		return nil, nil, err
	}
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
	if err := c.inherit(&ch, name, whole, s.c.Host, force); err != nil {
		return nil, nil, err
	}
	return s.apply(c, ch)
}

// inherit settles the names of what goes from the family of whole: they pass to the image for the host or the first that stays, but those of
// manifests that go, and all where none stays. A tag that stands for something else has to go before.
func (c catalog) inherit(ch *change, name string, whole digest.Digest, host ocispec.Platform, force bool) error {
	ch.moved = map[string][]string{}
	for _, o := range c.family(whole, c.through(name, whole)) {
		if !slices.Contains(ch.images, o) && (ch.heir == "" || manifest.Match(c.images[o].Platform, host) > manifest.Match(c.images[ch.heir].Platform, host)) {
			ch.heir = o
		}
	}
	for _, o := range ch.images {
		for _, t := range namesOf(c.tags, o) {
			top := c.tops[t]
			switch {
			case ch.heir == "":
				ch.tags = append(ch.tags, t)
			case o != whole || top != "" && !slices.Contains(c.images[ch.heir].Blobs, top):
				return errdef.New(errdef.Conflict, "conflict: unable to delete %s - it is also %s: remove that name first", manifest.PlatformString(c.images[o].Platform), familiar(t))
			default:
				ch.moved[bucketTags] = append(ch.moved[bucketTags], t)
			}
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

// Parts are the images of other platforms that a name, or all names of an ID, stands for.
func Parts(s *Store, name string) (out []Image, err error) {
	c, err := s.readable()
	if err != nil {
		return nil, err
	}
	id, err := c.find(name)
	if err != nil {
		return nil, err
	}
	for _, o := range c.family(id, c.through(name, id))[1:] {
		img, err := s.describe(c, o)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// pullPlatforms pulls every image of an index. The one for this host gets the tag, last; when there is none, the first. Attestations are no
// images, and are kept with that one.
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
		return s.pullFrom(ctx, repo, r, s.c.Host, PullOptions{}, p)
	}
	var all []ocispec.Descriptor
	for _, d := range doc.Index.Manifests {
		if !standsBeside(d) {
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
	b := s.Begin()
	defer b.Close()
	beside, err := bringBeside(ctx, b, repo, doc.Index, p)
	if err != nil {
		return Image{}, err
	}
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
		} else {
			f.beside = beside
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
