package upkeep

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/store/image"
)

// Size is a number of bytes that a flag takes as 20g or 512MiB.
type Size int64

// String implements flag.Value.
func (s *Size) String() string {
	if *s == 0 {
		return ""
	}
	return units.BytesSize(float64(*s))
}

// Set implements flag.Value.
func (s *Size) Set(v string) error {
	n, err := units.RAMInBytes(v)
	if err == nil && n < 0 {
		err = fmt.Errorf("%q is negative", v)
	}
	*s = Size(n)
	return err
}

// Watch keeps the images below Limit until ctx ends: at its beginning, and whenever one came.
func (s *Service) Watch(ctx context.Context) {
	for s.Limit > 0 && ctx.Err() == nil {
		all := s.Bus.Subscribe(ctx, time.Time{}, time.Time{}, api.Filters{"type": {"image", "container"}})
		s.shrink()
		for m := range all { // ends with ctx, or when events come faster than images go
			switch m.Action {
			case events.ActionPull, events.ActionLoad, events.ActionImport, events.ActionCommit, api.ActionArrive:
				s.touch(m.Actor.ID)
				s.shrink()
			case events.ActionCreate, events.ActionDestroy:
				s.touch(m.Actor.Attributes["image"])
			}
		}
	}
}

// The moment when an image was used last is the modification time of its config's file. It came with the image; nothing depends on it.
func (s *Service) lastUse(id digest.Digest) time.Time {
	st, err := os.Stat(s.configFile(id))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

func (s *Service) touch(ref string) {
	if img, err := s.Store.Images.Resolve(ref); err == nil {
		now := time.Now()
		os.Chtimes(s.configFile(img.ID), now, now)
	}
}

func (s *Service) configFile(id digest.Digest) string {
	return filepath.Join(s.Store.Content.Dir(), "blobs", "sha256", id.Encoded())
}

// shrink removes what broken pulls left of blobs, then images that no container uses, until the rest takes no more than Limit: nameless
// ones first, then those that were used longest ago. The youngest stays: it is what somebody waits for.
func (s *Service) shrink() {
	size, err := s.imageSize()
	if err != nil || size <= int64(s.Limit) {
		return
	}
	if freed, err := s.Store.Content.Partial().Clear(); err != nil {
		s.Log.Error("partial blobs not removed", "err", err)
	} else if size -= freed; size <= int64(s.Limit) {
		return
	}
	ledger := image.LedgerOf(s.Store.Images)
	all, err := ledger.Records()
	if err != nil {
		s.Log.Error("images not kept small", "err", err)
		return
	}
	used := map[digest.Digest]time.Time{}
	for _, r := range all {
		used[r.ID] = s.lastUse(r.ID)
	}
	slices.SortFunc(all, func(a, b image.Record) int {
		return cmp.Or(named(a)-named(b), used[a.ID].Compare(used[b.ID]))
	})
	for _, r := range all[:max(0, len(all)-1)] {
		if size <= int64(s.Limit) {
			return
		}
		err := ledger.Drop(r.ID, func(id digest.Digest) []string { return s.Users(id.String()) })
		if errdef.Is(err, errdef.Conflict) || errdef.Is(err, errdef.NotFound) {
			continue // in use, or gone
		}
		now, serr := s.imageSize()
		if err != nil || serr != nil {
			s.Log.Error("images not kept small", "image", r.ID, "err", cmp.Or(err, serr))
			return
		}
		s.told(r, size-now)
		size = now
	}
	if size > int64(s.Limit) {
		s.Log.Warn("images take more than --image-store-size, and all others are in use", "size", units.BytesSize(float64(size)), "limit", units.BytesSize(float64(s.Limit)))
	}
}

// named is 0 for an image without a name, and that is no platform of another.
func named(r image.Record) int {
	if len(r.Tags) == 0 && r.PartOf == "" {
		return 0
	}
	return 1
}

// told says what went and why.
func (s *Service) told(r image.Record, freed int64) {
	attr := map[string]string{"name": r.ID.String(), "reason": "image-store-size", "reclaimed": fmt.Sprint(max(freed, 0))}
	for _, t := range r.Tags {
		s.Bus.Publish(events.ImageEventType, events.ActionUnTag, r.ID.String(), map[string]string{"name": t, "reason": "image-store-size"})
	}
	s.Bus.Publish(events.ImageEventType, events.ActionDelete, r.ID.String(), attr)
	s.Log.Info("image removed to keep images below --image-store-size", "image", r.ID, "names", r.Tags, "freed", freed)
}
