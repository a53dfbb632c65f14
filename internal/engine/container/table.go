package container

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// table finds containers. Readers take one immutable view; writers make the next.
type table struct {
	v        atomic.Pointer[view]
	mu       sync.Mutex        // for writers
	reserved map[string]string // names of containers that are being made
	making   map[string]int    // images of containers that are being made
}

type view struct {
	byID   map[string]*unit
	byName map[string]*unit
	ids    []string // sorted, for prefixes
}

func (t *table) init() {
	t.v.Store(&view{byID: map[string]*unit{}, byName: map[string]*unit{}})
	t.reserved, t.making = map[string]string{}, map[string]int{}
}

// reserve takes a name for a container in the making; release or add ends that.
func (t *table) reserve(name, cid string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.claim(name, cid)
}

func (t *table) claim(name, cid string) error {
	holder := t.reserved[name]
	if u := t.v.Load().byName[name]; u != nil {
		holder = u.id
	}
	if holder != "" {
		return errdef.New(errdef.Conflict, "Conflict. The container name %q is already in use by container %q. Remove or rename that container to use the name again.", "/"+name, holder)
	}
	t.reserved[name] = cid
	return nil
}

// reserveRandom finds a free readable name.
func (t *table) reserveRandom(cid string) string {
	for i := 0; ; i++ {
		name := id.Name(i)
		if i > 20 {
			name += "_" + cid[:6]
		}
		if t.reserve(name, cid) == nil {
			return name
		}
	}
}

// hold keeps an image while a container is made from it; the returned function lets it go.
func (t *table) hold(imageID string) (letGo func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.making[imageID]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.making[imageID]--; t.making[imageID] == 0 {
			delete(t.making, imageID)
		}
	}
}

func (t *table) release(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.reserved, name)
}

// add publishes a container whose name was reserved.
func (t *table) add(u *unit) {
	t.change(func(v *view) {
		name := u.rec.Load().Name
		v.byID[u.id], v.byName[name] = u, u
		delete(t.reserved, name)
	})
}

func (t *table) remove(u *unit) {
	t.change(func(v *view) {
		delete(v.byID, u.id)
		if name := u.rec.Load().Name; v.byName[name] == u {
			delete(v.byName, name)
		}
	})
}

// rename moves a container from one name to another that was reserved.
func (t *table) rename(u *unit, old, name string) {
	t.change(func(v *view) {
		delete(v.byName, old)
		v.byName[name] = u
		delete(t.reserved, name)
	})
}

func (t *table) change(f func(*view)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.v.Load()
	next := &view{byID: maps.Clone(old.byID), byName: maps.Clone(old.byName)}
	f(next)
	next.ids = slices.Sorted(maps.Keys(next.byID))
	t.v.Store(next)
}

// find looks a container up by ID, name, or the unambiguous beginning of an ID.
func (t *table) find(ref string) (*unit, error) {
	v := t.v.Load()
	if u := v.byID[ref]; u != nil {
		return u, nil
	}
	if u := v.byName[strings.TrimPrefix(ref, "/")]; u != nil {
		return u, nil
	}
	none := errdef.New(errdef.NotFound, "No such container: %s", ref)
	if ref == "" {
		return nil, none
	}
	i := sort.SearchStrings(v.ids, ref)
	if i == len(v.ids) || !strings.HasPrefix(v.ids[i], ref) {
		return nil, none
	}
	if i+1 < len(v.ids) && strings.HasPrefix(v.ids[i+1], ref) {
		return nil, errdef.New(errdef.InvalidArgument, "container ID prefix %q is ambiguous: give more digits", ref)
	}
	return v.byID[v.ids[i]], nil
}

// all returns the containers, newest first.
func (t *table) all() []*unit {
	out := slices.Collect(maps.Values(t.v.Load().byID))
	slices.SortFunc(out, func(a, b *unit) int {
		if c := b.rec.Load().Created.Compare(a.rec.Load().Created); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return out
}

func (t *table) records() []*api.Container {
	var out []*api.Container
	for _, u := range slices.Backward(t.all()) {
		out = append(out, u.rec.Load())
	}
	return out
}

// Record returns the record of a container.
func (s *Service) Record(ref string) (*api.Container, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	return u.rec.Load(), nil
}

// Running names the containers that run and were made from an image.
func Running(s *Service, imageID string) (out []string) {
	for _, rec := range s.table.records() {
		if rec.ImageID == imageID && rec.State.Running {
			out = append(out, rec.ID)
		}
	}
	return out
}

// Users names the containers that were or are being made from an image.
func (s *Service) Users(imageID string) []string {
	var out []string
	s.table.mu.Lock()
	if s.table.making[imageID] > 0 {
		out = append(out, "being made")
	}
	s.table.mu.Unlock()
	for _, rec := range s.table.records() {
		if rec.ImageID == imageID {
			out = append(out, rec.ID)
		}
	}
	return out
}
