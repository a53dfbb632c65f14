package image

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions say how to pull. Platform is os/arch[/variant], AllPlatforms, or "" for this host's. Auth belongs to the registry of the reference. Progress is called from one goroutine at a time.
type PullOptions struct {
	Platform string
	Auth     *registry.Auth
	Progress func(Event)
	Lazy     *Lazy // nil: return when all of it is here
}

// found is what a reference led to.
type found struct {
	top    ocispec.Descriptor // what the tag names
	chain  []ocispec.Descriptor
	docs   [][]byte // the documents of chain: indexes first, the manifest last
	man    *ocispec.Manifest
	config []byte
	image  dockerspec.DockerOCIImage
	beside []digest.Digest // files that are here already and pinned
}

// Pull makes name an image of this host: documents, then layers (several at a time, each in one pass), then the records.
// Errors: NotFound, Unauthorized, Unavailable (registry), DataLoss (bytes are not what was promised), NotImplemented.
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (Image, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return Image{}, err
	}
	if s.c.Registry == nil {
		return Image{}, errdef.New(errdef.NotImplemented, "pull %s: this store has no registry client", r.Familiar())
	}
	all := o.Platform == AllPlatforms
	if all && o.Lazy != nil {
		return Image{}, errdef.New(errdef.InvalidArgument, "pull %s: lazily for all platforms: choose one of the two", r.Familiar())
	}
	want := s.c.Host
	if !all {
		if want, err = manifest.ParsePlatform(o.Platform, s.c.Host); err != nil {
			return Image{}, err
		}
	}
	p := &reporter{fn: o.Progress}
	for _, repo := range s.c.Registry.Sources(r, o.Auth) {
		pull := func() (Image, error) { return s.pullFrom(ctx, repo, r, want, o, p) }
		if all {
			pull = func() (Image, error) { return pullPlatforms(ctx, s, repo, r, p) }
		}
		img, err := pull()
		if err == nil || repo.Mirror() == "" || ctx.Err() != nil {
			return img, err
		}
		p.say("", fmt.Sprintf("Mirror %s: %v; going on without it", repo.Mirror(), err))
	}
	return Image{}, errdef.New(errdef.System, "pull %s: it has no source", r.Familiar())
}

// pullFrom pulls from one source.
func (s *Store) pullFrom(ctx context.Context, repo *registry.Repo, r ref.Ref, want ocispec.Platform, o PullOptions, p *reporter) (Image, error) {
	f, err := find(ctx, repo, r, want, o.Platform != "")
	if err != nil {
		return Image{}, err
	}
	if o.Lazy != nil {
		return arrive(ctx, s, repo, r, f, p, o.Lazy)
	}
	return take(ctx, s, repo, r, f, p)
}

// take makes what was found an image of this host.
func take(ctx context.Context, s *Store, repo *registry.Repo, r ref.Ref, f *found, p *reporter) (Image, error) {
	p.say(at(r), "Pulling from "+r.Path)
	s.pin(f.pins()...)
	img, err := bring(ctx, s, repo, r, f, p)
	s.unpin(f.pins()...)
	if err != nil {
		return Image{}, f.broke(s, err)
	}
	return img, nil
}

// at is what a pull's first line begins with.
func at(r ref.Ref) string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// documents are the digests of the manifests and the config.
func (f *found) documents() []digest.Digest {
	docs := []digest.Digest{f.man.Config.Digest}
	for _, d := range f.chain {
		docs = append(docs, d.Digest)
	}
	return docs
}

// pins are what must not be collected while it comes.
func (f *found) pins() []digest.Digest { return append(f.documents(), f.image.RootFS.DiffIDs...) }

// broke cleans up after a failed pull.
func (f *found) broke(s *Store, cause error) error {
	return broke(s, f.man.Config.Digest, f.documents(), f.blobs(), cause)
}

// blobs are the digests of the layers as they are sent.
func (f *found) blobs() (out []digest.Digest) {
	for _, d := range f.man.Layers {
		out = append(out, d.Digest)
	}
	return out
}

// bring stores everything of what was found.
func bring(ctx context.Context, s *Store, repo *registry.Repo, r ref.Ref, f *found, p *reporter) (Image, error) {
	if err := begin(s, f.man.Config.Digest, f.image.RootFS.DiffIDs); err != nil {
		return Image{}, err
	}
	if err := (&pull{s: s, repo: repo, f: f, p: p}).layers(ctx); err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", r.Familiar(), err)
	}
	return s.finish(ctx, r, f, p)
}

// store stores the documents and returns the record.
func (f *found) store(ctx context.Context, s *Store) (record, error) {
	rec := record{Manifest: f.chain[len(f.chain)-1], Layers: f.image.RootFS.DiffIDs, Beside: f.beside, Platform: f.image.Platform, Added: time.Now().UTC()}
	if f.image.Created != nil {
		rec.Created = *f.image.Created
	}
	put := func(d digest.Digest, raw []byte) error {
		rec.Blobs = append(rec.Blobs, d)
		return s.c.Content.Put(ctx, d, int64(len(raw)), bytes.NewReader(raw))
	}
	for i, d := range f.chain {
		if err := put(d.Digest, f.docs[i]); err != nil {
			return rec, err
		}
	}
	return rec, put(f.man.Config.Digest, f.config)
}

// finish stores the documents, then the records.
func (s *Store) finish(ctx context.Context, r ref.Ref, f *found, p *reporter) (Image, error) {
	rec, err := f.store(ctx, s)
	if err != nil {
		return Image{}, err
	}
	imageID := f.man.Config.Digest
	tag := ""
	if r.Digest == "" {
		tag = r.WithTag(r.Tag).String()
	}
	before, err := s.commit(imageID, rec, tag, r.WithDigest(f.top.Digest).String(), f.top.Digest)
	if err != nil {
		return Image{}, err
	}
	p.say("", "Digest: "+f.top.Digest.String())
	if before == imageID {
		p.say("", "Status: Image is up to date for "+r.Familiar())
	} else {
		p.say("", "Status: Downloaded newer image for "+r.Familiar())
	}
	return resolve(s, imageID.String())
}

// find follows a reference through indexes to one manifest and its config. asked tells that the user named a platform.
func find(ctx context.Context, repo *registry.Repo, r ref.Ref, want ocispec.Platform, asked bool) (*found, error) {
	f, err := follow(ctx, repo, r, func(ix *ocispec.Index) (ocispec.Descriptor, error) { return manifest.Select(ix, want) })
	if err != nil {
		return nil, err
	}
	return f, f.readConfig(ctx, repo, r, want, asked)
}

// follow follows a reference through indexes, where choose says on, to one manifest.
func follow(ctx context.Context, repo *registry.Repo, r ref.Ref, choose func(*ocispec.Index) (ocispec.Descriptor, error)) (*found, error) {
	f := &found{}
	next, seen := ocispec.Descriptor{Digest: r.Digest}, map[digest.Digest]bool{}
	for depth := 0; f.man == nil; depth++ {
		if depth >= manifest.MaxDepth {
			return nil, errdef.New(errdef.DataLoss, "manifest for %s: indexes nested deeper than %d", r.Familiar(), manifest.MaxDepth)
		}
		raw, d, err := repo.Manifest(ctx, next.Digest)
		if err != nil {
			return nil, err
		}
		if seen[d.Digest] {
			return nil, errdef.New(errdef.DataLoss, "manifest for %s: index %s contains itself", r.Familiar(), d.Digest)
		}
		seen[d.Digest] = true
		if depth > 0 && next.Size != d.Size {
			return nil, errdef.New(errdef.DataLoss, "manifest %s: wrong size: got %d bytes, promised %d", d.Digest, d.Size, next.Size)
		}
		if err := sameType(next, d); err != nil {
			return nil, err
		}
		doc, err := manifest.Decode(raw, d.MediaType)
		if err != nil {
			return nil, fmt.Errorf("manifest for %s: %w", r.Familiar(), err)
		}
		d.MediaType = doc.MediaType
		f.chain, f.docs, f.man = append(f.chain, d), append(f.docs, raw), doc.Manifest
		if doc.Index != nil {
			if next, err = choose(doc.Index); err != nil {
				return nil, fmt.Errorf("manifest for %s: %w", r.Familiar(), err)
			}
		}
	}
	f.top = f.chain[0]
	return f, nil
}

// sameType compares what an index promised with what the registry sent, as far as both speak.
func sameType(promised, got ocispec.Descriptor) error {
	if promised.MediaType == "" || got.MediaType == "" {
		return nil
	}
	for _, known := range manifest.Accepted() {
		if got.MediaType == known && promised.MediaType != known {
			return errdef.New(errdef.DataLoss, "manifest %s: its index says mediaType %q, the registry %q", got.Digest, promised.MediaType, got.MediaType)
		}
	}
	return nil
}

func (f *found) readConfig(ctx context.Context, repo *registry.Repo, r ref.Ref, want ocispec.Platform, asked bool) (err error) {
	if f.config, err = readBlob(ctx, repo, f.man.Config); err != nil {
		return fmt.Errorf("config of %s: %w", r.Familiar(), err)
	}
	if f.image, err = manifest.DecodeConfig(f.config); err != nil {
		return fmt.Errorf("%s: %w", r.Familiar(), err)
	}
	if n, m := len(f.image.RootFS.DiffIDs), len(f.man.Layers); n != m {
		return errdef.New(errdef.DataLoss, "%s: its manifest has %d layers, its config %d", r.Familiar(), m, n)
	}
	if asked && f.image.OS != "" && manifest.Match(f.image.Platform, want) == 0 {
		return errdef.New(errdef.NotFound, "image %s is for %s, not for %s", r.Familiar(),
			manifest.PlatformString(f.image.Platform), manifest.PlatformString(want))
	}
	return nil
}

// shortLayer is how progress names a layer.
func shortLayer(d ocispec.Descriptor) string { return id.Short(d.Digest.String()) }
