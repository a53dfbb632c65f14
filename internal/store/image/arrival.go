package image

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/lazy"
	"github.com/dhow-containers/dhow/internal/store/registry"
)

// Lazy has a pull return when its image can be used, while layers that have tables of contents still arrive. The functions are called from
// goroutines of the pull's, until Close has returned.
type Lazy struct {
	Arrived func(Image, error) // the rest is over: the image is one like any other, or not here at all
	Trouble func(error)        // a container got EIO
}

// arrivals are the images that arrive.
type arrivals struct {
	pool   *lazy.Pool
	mu     sync.Mutex
	all    map[digest.Digest]*arrival // by image ID
	closed bool
	work   sync.WaitGroup
}

// arrival is an image whose pull goes on in the background.
type arrival struct {
	name   string // that it was pulled by first
	found  *found
	record record
	image  Image
	refs   []ref.Ref     // the names that it gets in the end; guarded by mu
	going  bool          // it is being removed: nobody may begin to use it
	layers []*lazy.Layer // those that were not here
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends what arrives, and waits for that. What has come is kept for the next pull.
func Close(s *Store) {
	a := &s.arrivals
	a.mu.Lock()
	a.closed = true
	for _, v := range a.all {
		v.cancel()
	}
	a.mu.Unlock()
	a.work.Wait()
}

// catalog is what arrives as if it were here. Call it with mu held.
func (a *arrivals) catalog() catalog {
	c := newCatalog()
	for id, v := range a.all {
		c.images[id] = v.record
		for _, r := range v.refs {
			if r.Digest == "" {
				c.tags[r.WithTag(r.Tag).String()] = id
			} else {
				c.digests[r.WithDigest(r.Digest).String()] = id
			}
		}
	}
	return c
}

// find returns what arrives under a name; nil: nothing does.
func (a *arrivals) find(name string) (*arrival, catalog) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) == 0 {
		return nil, catalog{}
	}
	c := a.catalog()
	id, err := c.find(name)
	if err != nil {
		return nil, c
	}
	return a.all[id], c
}

// describe tells an arriving image.
func (v *arrival) describe(s *Store, c catalog) Image {
	img := c.withNames(v.image)
	img.LayerSizes = nil
	for n, d := range img.DiffIDs {
		size := int64(0)
		if l, err := s.c.Layers.Info(d); err == nil {
			size = l.Size
		} else {
			img.Arriving++
			if l := v.layers[n]; l != nil {
				size = l.Size()
			}
		}
		img.Size += size
		img.LayerSizes = append(img.LayerSizes, size)
	}
	img.Arriving = max(img.Arriving, 1) // until it has a record
	return img
}

// Find is ResolvePlatform for those who want no more of an image than to use it: it may be arriving, see Image.Arriving.
func Find(s *Store, name, platform string) (Image, error) {
	v, c := s.arrivals.find(name)
	if v == nil {
		return ResolvePlatform(s, name, platform)
	}
	img := v.describe(s, c)
	want, err := manifest.ParsePlatform(platform, s.c.Host)
	if err != nil {
		return Image{}, err
	}
	if platform != "" && manifest.Match(img.Platform, want) == 0 {
		return Image{}, errdef.New(errdef.NotFound, "image %s is arriving for %s, not for %s", printable(name), manifest.PlatformString(img.Platform), manifest.PlatformString(want))
	}
	return img, nil
}

// Arriving lists the images that arrive.
func Arriving(s *Store) []Image {
	a := &s.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.catalog()
	var out []Image
	for _, v := range a.all {
		out = append(out, v.describe(s, c))
	}
	slices.SortFunc(out, func(a, b Image) int { return b.Created.Compare(a.Created) })
	return out
}

// whole refuses a name whose image is not here yet.
func (a *arrivals) whole(name string) error {
	if v, _ := a.find(name); v != nil {
		return errdef.New(errdef.Conflict, "image %s is still arriving (pull --lazy): containers can use it, all else has to wait; dhow pull %[1]s waits for it", printable(name))
	}
	return nil
}

// stands reports whether an image arrives and may be used.
func (a *arrivals) stands(id digest.Digest) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.all[id]
	return v != nil && !v.going
}

// stop ends the arrival of an image that is to be removed, and tells its names. ok is false when no image arrives under the name.
func (a *arrivals) stop(s *Store, name string, inUse InUse) (untagged []string, ok bool, err error) {
	v, c := a.find(name)
	if v == nil {
		return nil, false, nil
	}
	a.mu.Lock()
	v.going = true
	a.mu.Unlock()
	if users := inUse.of(v.image.ID); len(users) > 0 {
		a.mu.Lock()
		v.going = false
		a.mu.Unlock()
		return nil, true, errdef.New(errdef.Conflict, "conflict: unable to remove %s (cannot be forced) - it is still arriving, and container %s is using it", printable(name), id.Short(users[0]))
	}
	v.cancel()
	<-v.done
	if _, err := resolve(s, v.image.ID.String()); err == nil { // it had just arrived, or came by another pull
		return nil, false, nil
	}
	img := c.withNames(v.image)
	s.c.Content.Partial().Remove(v.found.blobs()...)
	s.mu.Lock()
	_, _, err = abandon(s, func(d digest.Digest) bool { return d == v.image.ID })
	s.mu.Unlock()
	<-s.c.Layers.Free()
	return append(img.RepoTags, img.RepoDigests...), true, err
}

// arrive makes what was found an image that can be used while its layers come. Where that cannot be, it is an ordinary pull.
func arrive(ctx context.Context, s *Store, repo *registry.Repo, r ref.Ref, f *found, p *reporter, o *Lazy) (Image, error) {
	v, err := s.arrivals.join(r, f)
	for v == nil && err == nil { // again when somebody else was quicker
		if v, err = begun(ctx, s, repo, r, f, p, o); v == nil && err == nil {
			v, err = s.arrivals.join(r, f)
		}
	}
	if errdef.Is(err, errdef.NotImplemented) {
		p.say("", fmt.Sprintf("Not lazily: %v", err))
		return take(ctx, s, repo, r, f, p)
	}
	if err != nil {
		return Image{}, err
	}
	s.arrivals.mu.Lock()
	img := v.describe(s, s.arrivals.catalog())
	s.arrivals.mu.Unlock()
	p.say("", "Digest: "+f.top.Digest.String())
	p.say("", fmt.Sprintf("Status: Image can be used, %d of its %d layers still arrive for %s", img.Arriving, len(img.DiffIDs), r.Familiar()))
	return img, nil
}

// join gives an image that arrives already one more name.
func (a *arrivals) join(r ref.Ref, f *found) (*arrival, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.all[f.man.Config.Digest]
	switch {
	case v == nil:
		return nil, nil
	case v.going:
		return nil, errdef.New(errdef.Conflict, "image %s is being removed", r.Familiar())
	case !slices.Contains(v.refs, r):
		v.refs = append(v.refs, r)
	}
	return v, nil
}

// begun begins an arrival. NotImplemented: it cannot be. Without an error it may be nil: the image arrives already.
func begun(ctx context.Context, s *Store, repo *registry.Repo, r ref.Ref, f *found, p *reporter, o *Lazy) (*arrival, error) {
	if err := layer.Lendable(s.c.Layers); err != nil {
		return nil, err
	}
	offered := false
	for i, d := range f.image.RootFS.DiffIDs {
		offered = offered || !s.c.Layers.Has(d) && lazy.Offered(f.man.Layers[i])
	}
	if !offered {
		return nil, errdef.New(errdef.NotImplemented, "no layer that is missing has a table of contents (zstd:chunked or eStargz)")
	}
	p.say(at(r), "Pulling from "+r.Path)
	s.pin(f.pins()...)
	u := &pull{s: s, repo: repo, f: f, p: p}
	v, err := u.lend(ctx, r, o)
	if v == nil {
		s.unpin(f.pins()...)
		if err != nil && !errdef.Is(err, errdef.NotImplemented) {
			err = f.broke(s, fmt.Errorf("pull %s: %w", r.Familiar(), err))
		}
		return nil, err
	}
	return v, nil
}

// lend makes the layers that need not be here usable by their tables, and begins to pull them.
func (u *pull) lend(ctx context.Context, r ref.Ref, o *Lazy) (begun *arrival, err error) {
	s, f := u.s, u.f
	if err := begin(s, f.man.Config.Digest, f.image.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	v := &arrival{name: r.Familiar(), found: f, refs: []ref.Ref{r}, image: f.asImage(), layers: make([]*lazy.Layer, len(f.man.Layers)), done: make(chan struct{})}
	defer func() {
		if begun == nil {
			v.close()
		}
	}()
	if err := u.tables(ctx, v); err != nil {
		return nil, err
	}
	if err := u.layers(ctx); err != nil { // what else there is
		return nil, err
	}
	if v.record, err = f.store(ctx, s); err != nil {
		return nil, err
	}
	back, err := v.serve(ctx, s, o)
	if err != nil {
		return nil, err
	}
	ctx, v.cancel = context.WithCancel(context.Background())
	a := &s.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		back()
		return nil, errdef.New(errdef.Cancelled, "the engine ends")
	}
	if a.all[f.man.Config.Digest] != nil {
		back()
		return nil, nil
	}
	if a.all == nil {
		a.all = map[digest.Digest]*arrival{}
	}
	a.all[f.man.Config.Digest] = v
	a.work.Go(func() {
		img, err := v.run(ctx, &pull{s: s, repo: u.repo, f: f, p: &reporter{}}, back)
		if o.Arrived != nil {
			o.Arrived(img, err)
		}
	})
	return v, nil
}

// tables opens the tables of contents of the layers that are not here.
func (u *pull) tables(ctx context.Context, v *arrival) error {
	s, f := u.s, u.f
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.c.Downloads)
	u.later = map[digest.Digest]bool{}
	for i, diff := range f.image.RootFS.DiffIDs {
		d := f.man.Layers[i]
		if s.c.Layers.Has(diff) || u.later[diff] || !lazy.Offered(d) {
			continue
		}
		u.later[diff] = true
		g.Go(func() (err error) {
			v.layers[i], err = s.arrivals.pool.Open(ctx, layer.Spool(s.c.Layers), u.repo, d, s.c.Layers, diff)
			if errdef.Is(err, errdef.NotImplemented) {
				u.p.say(shortLayer(d), fmt.Sprintf("Not lazily: %v", err))
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	u.later = map[digest.Digest]bool{}
	for i, l := range v.layers {
		if l != nil {
			u.later[f.image.RootFS.DiffIDs[i]] = true
		}
	}
	if len(u.later) == 0 {
		return errdef.New(errdef.NotImplemented, "no table of contents can be used")
	}
	return nil
}

// serve mounts the chain.
func (v *arrival) serve(ctx context.Context, s *Store, o *Lazy) (back func(), err error) {
	var open []*lazy.Layer
	for _, l := range v.layers {
		if l != nil {
			open = append(open, l)
		}
	}
	served, err := lazy.Serve(open, func(err error) {
		if o.Trouble != nil {
			o.Trouble(fmt.Errorf("image %s: %w", v.name, err))
		}
	})
	if err != nil {
		return nil, err
	}
	defer served.Close()
	loans := map[digest.Digest]layer.Lent{}
	n := 0
	for i, l := range v.layers {
		if l == nil {
			continue
		}
		loan, err := served.Lend(n)
		if err != nil {
			return nil, err
		}
		defer loan.Data.Close()
		loans[v.image.DiffIDs[i]] = loan
		n++
	}
	return layer.Lend(ctx, s.c.Layers, v.image.DiffIDs, loans)
}

// run pulls what is missing, and makes the image one like any other, or none.
func (v *arrival) run(ctx context.Context, u *pull, back func()) (img Image, err error) {
	s, a, imageID := u.s, &u.s.arrivals, u.f.man.Config.Digest
	defer close(v.done)
	if err = u.layers(ctx); err != nil {
		err = fmt.Errorf("pull %s: %w", v.name, err)
	}
	for n := 0; ; n++ {
		a.mu.Lock()
		if err != nil || n == len(v.refs) {
			delete(a.all, imageID)
			a.mu.Unlock()
			break
		}
		r := v.refs[n]
		a.mu.Unlock()
		img, err = s.finish(ctx, r, u.f, u.p)
	}
	back()
	s.unpin(u.f.pins()...)
	v.cancel()
	if err != nil {
		return v.image, u.f.broke(s, err)
	}
	return img, nil
}

// asImage is what the documents say.
func (f *found) asImage() Image {
	img := Image{ID: f.man.Config.Digest, Manifest: f.chain[len(f.chain)-1], Config: f.image, DiffIDs: f.image.RootFS.DiffIDs, Added: time.Now().UTC(), Platform: f.image.Platform}
	if f.image.Created != nil {
		img.Created = *f.image.Created
	}
	return img
}

// close lets go of layers that nobody serves.
func (v *arrival) close() {
	for _, l := range v.layers {
		if l != nil {
			l.Close()
		}
	}
}
