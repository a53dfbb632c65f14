package image

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/partial"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// readBlob fetches a small blob whole; the descriptor was checked to be small.
func readBlob(ctx context.Context, repo *registry.Repo, d ocispec.Descriptor) ([]byte, error) {
	return readUpTo(ctx, repo, d, manifest.MaxSize)
}

func readUpTo(ctx context.Context, repo *registry.Repo, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, errdef.New(errdef.DataLoss, "blob %s: %d bytes, at most %d are allowed", d.Digest, d.Size, limit)
	}
	b, err := repo.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

// pull is one pull while its layers come in.
type pull struct {
	s    *Store
	repo *registry.Repo
	f    *found
	p    *reporter
	// later are layers that can be used before they are here.
	later map[digest.Digest]bool
}

// layers makes every layer present. The first failure ends the others.
func (u *pull) layers(ctx context.Context) error {
	s, f, p := u.s, u.f, u.p
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.c.Downloads)
	started := map[digest.Digest]bool{}
	var todo []int
	for i, want := range f.image.RootFS.DiffIDs {
		switch d := f.man.Layers[i]; {
		case started[want]: // the same layer twice in one image
		case u.later[want]:
			p.say(shortLayer(d), "Can be used, arrives later")
			started[want] = true
		case s.c.Layers.Has(want):
			p.say(shortLayer(d), "Already exists")
			started[want] = true
			s.c.Content.Partial().Remove(d.Digest) // a crash may have come between the layer and that
		default:
			p.say(shortLayer(d), "Pulling fs layer")
			started[want] = true
			todo = append(todo, i)
		}
	}
	for n, i := range todo {
		if n >= s.c.Downloads {
			p.say(shortLayer(f.man.Layers[i]), "Waiting")
		}
	}
	for _, i := range todo {
		g.Go(func() error { return u.layer(ctx, f.man.Layers[i], f.image.RootFS.DiffIDs[i]) })
	}
	return g.Wait()
}

// layer makes one layer present. Of several pulls that want it one fetches and the others wait; when that one fails, for
// whatever reason of its own, the next tries by itself with its own registry and credentials.
func (u *pull) layer(ctx context.Context, d ocispec.Descriptor, want digest.Digest) error {
	s := u.s
	for {
		s.mu.Lock()
		flight, busy := s.flights[want]
		if !busy {
			flight = make(chan struct{})
			s.flights[want] = flight
		}
		s.mu.Unlock()
		if !busy {
			defer func() {
				s.mu.Lock()
				delete(s.flights, want)
				s.mu.Unlock()
				close(flight)
			}()
			if s.c.Layers.Has(want) { // another flight landed while we looked
				u.p.say(shortLayer(d), "Pull complete")
				return nil
			}
			return roomy(s, func() error { return u.fetch(ctx, d, want) })
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if s.c.Layers.Has(want) {
			u.p.say(shortLayer(d), "Pull complete")
			return nil
		}
	}
}

// fetch brings a layer.
func (u *pull) fetch(ctx context.Context, d ocispec.Descriptor, want digest.Digest) error {
	tries := 0
	return resume(ctx, u.s, d, func(kept *partial.Blob) error {
		if tries++; tries > 1 {
			u.p.say(shortLayer(d), "What was kept of it is wrong, downloading all of it")
		}
		return u.receive(ctx, d, want, kept)
	})
}

// resume lets receive go on where an earlier try with a layer's blob ended. That beginning may be what is wrong, so a layer that is not what
// was promised is fetched anew, once. What comes is kept for the next try, unless it is wrong.
func resume(ctx context.Context, s *Store, d ocispec.Descriptor, receive func(*partial.Blob) error) error {
	for again := true; ; again = false {
		kept := s.c.Content.Partial().Take(d.Digest, d.Size)
		err := receive(kept)
		switch {
		case err == nil:
			kept.Drop()
		case ctx.Err() != nil || !spoiled(err):
			kept.Keep()
		default:
			kept.Drop()
			if again && kept.Len() > 0 {
				continue
			}
		}
		return err
	}
}

// receive is the one pass: download, verify, inflate, verify, store.
func (u *pull) receive(ctx context.Context, d ocispec.Descriptor, want digest.Digest, kept *partial.Blob) error {
	s, p := u.s, u.p
	short := shortLayer(d)
	b, err := u.repo.Resume(ctx, d, kept)
	if err != nil {
		return err
	}
	defer b.Close()
	now := Event{ID: short, Status: "Downloading", Current: kept.Len(), Total: d.Size}
	if now.Current > 0 {
		p.send(Event{ID: short, Status: "Resuming download", Current: now.Current, Total: d.Size})
	}
	f, err := inflate(&meter{r: b, p: p, e: now, every: 100 * time.Millisecond}, s.c.MaxLayerSize)
	if err != nil {
		return fmt.Errorf("layer %s: %w", short, err)
	}
	defer f.Close()
	// The layer store reads to the end, and the end of f is the end of a blob with the right digest. It reads nothing only when
	// somebody else brought the same diff ID meanwhile.
	if _, err := s.c.Layers.Ingest(ctx, want, f); err != nil {
		if f.err != nil && f.err != io.EOF { // the cause, not what the layer store made of it
			err = f.err
		}
		return fmt.Errorf("layer %s: %w", short, err)
	}
	p.say(short, "Verifying Checksum")
	p.say(short, "Download complete")
	p.send(Event{ID: short, Status: "Extracting", Current: d.Size, Total: d.Size})
	p.say(short, "Pull complete")
	return nil
}
