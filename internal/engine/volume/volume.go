// Package volume owns named folders that outlive containers, below one root folder.
//
// It promises that a volume which is listed exists completely, that one that a container holds cannot be removed, and that a
// crash leaves no folder without record once Open has run. It must never look into a volume's data, nor take a path from a user.
package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

const bucket = "volumes"

// AnonymousLabel marks a volume that nobody named; its container takes it away on rm -v.
const AnonymousLabel = "com.docker.volume.anonymous"

// Service is the volumes of one engine.
type Service struct {
	root   string
	db     *meta.DB
	events *event.Bus

	mu      sync.Mutex // guards the maps and every change on disk
	volumes map[string]volume.Volume
	holders map[string]map[string]struct{} // volume name to container IDs
	owners  map[string]string              // anonymous volume to the container it was made for, until somebody wants to keep it
}

// record is what the store holds.
type record struct {
	volume.Volume
	Owner string `json:",omitempty"`
}

// Open reads the records and removes folders that have none. A volume whose record is damaged is what its folder says.
func Open(root string, db *meta.DB, bus *event.Bus) (*Service, error) {
	if err := os.MkdirAll(root, 0o701); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	s := &Service{root: root, db: db, events: bus, volumes: map[string]volume.Volume{}, holders: map[string]map[string]struct{}{}, owners: map[string]string{}}
	err := db.Each(bucket, func(key string, raw []byte) error {
		var r record
		if meta.Decode(bucket, key, raw, &r) != nil { // system check tells
			v, ok := OfFolder(root, key)
			if !ok {
				return nil
			}
			r = record{Volume: v}
		}
		s.volumes[key] = r.Volume
		if r.Owner != "" {
			s.owners[key] = r.Owner
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	for _, e := range entries {
		if _, ok := s.volumes[e.Name()]; !ok {
			if err := s.removeFolder(e.Name()); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// OfFolder describes a volume by its folder alone, without labels and owner; false where there is no such folder.
func OfFolder(root, name string) (volume.Volume, bool) {
	v := volume.Volume{Name: name, Driver: "local", Scope: "local", Mountpoint: filepath.Join(root, name, "_data")}
	st, err := os.Stat(v.Mountpoint)
	if err != nil || !st.IsDir() {
		return v, false
	}
	v.CreatedAt = st.ModTime().Format(time.RFC3339)
	return v, true
}

// Create implements api.Volumes. A volume that exists already with the same driver and options is returned as it is.
func (s *Service) Create(_ context.Context, req volume.CreateRequest) (volume.Volume, error) {
	v, _, err := s.Ensure(req, "")
	return v, err
}

// Ensure returns the volume, made now (made) or before, and lets the container holder hold it when one is named.
func (s *Service) Ensure(req volume.CreateRequest, holder string) (v volume.Volume, made bool, err error) {
	if req.Driver != "" && req.Driver != "local" {
		return v, false, errdef.New(errdef.NotFound, "volume driver %q: only local is known", req.Driver)
	}
	if len(req.DriverOpts) > 0 {
		return v, false, errdef.New(errdef.NotImplemented, "volume DriverOpts %v are not implemented", slices.Sorted(maps.Keys(req.DriverOpts)))
	}
	if req.ClusterVolumeSpec != nil {
		return v, false, errdef.New(errdef.NotImplemented, "cluster volumes are not implemented")
	}
	labels, owner := maps.Clone(req.Labels), ""
	if req.Name == "" {
		owner = holder
		req.Name = id.New()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	if err := id.ValidName(req.Name); err != nil {
		return v, false, errdef.New(errdef.InvalidArgument, "create volume: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.volumes[req.Name]; ok {
		s.hold(req.Name, holder)
		return v, false, nil
	}
	v = volume.Volume{
		Name: req.Name, Driver: "local", Labels: labels, Options: nil, Scope: "local",
		CreatedAt: time.Now().Format(time.RFC3339), Mountpoint: filepath.Join(s.root, req.Name, "_data"),
	}
	if err := s.make(record{v, owner}); err != nil {
		return volume.Volume{}, false, fmt.Errorf("create volume %s: %w", req.Name, err)
	}
	s.volumes[v.Name] = v
	if owner != "" {
		s.owners[v.Name] = owner
	}
	s.hold(v.Name, holder)
	s.events.Publish(events.VolumeEventType, events.ActionCreate, v.Name, map[string]string{"driver": "local"})
	return v, true, nil
}

// make puts the folder on disk before the record: a crash between leaves a folder that Open removes.
func (s *Service) make(v record) (err error) {
	dir := filepath.Join(s.root, v.Name)
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := os.Mkdir(dir, 0o701); err != nil {
		return err
	}
	if err := os.Mkdir(v.Mountpoint, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(v.Mountpoint, 0o755); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(s.root); err != nil {
		return err
	}
	return s.db.Put(bucket, v.Name, v)
}

func (s *Service) hold(name, holder string) {
	if holder == "" {
		return
	}
	if s.holders[name] == nil {
		s.holders[name] = map[string]struct{}{}
	}
	s.holders[name][holder] = struct{}{}
}

// Hold notes that a container uses a volume, without making it.
func (s *Service) Hold(name, holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold(name, holder)
}

// Release ends a container's hold; with remove an anonymous volume that nobody else holds goes away.
func (s *Service) Release(name, holder string, remove bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holders[name], holder)
	if len(s.holders[name]) == 0 {
		delete(s.holders, name)
	}
	v, ok := s.volumes[name]
	if _, anonymous := v.Labels[AnonymousLabel]; !ok || !remove || !anonymous || len(s.holders[name]) > 0 {
		return nil
	}
	return s.remove(name)
}

// Keep lets an anonymous volume outlive the container it was made for. It comes before the container's record goes.
func (s *Service) Keep(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, owned := s.owners[name]; !owned {
		return nil
	}
	if err := s.db.Put(bucket, name, record{Volume: s.volumes[name]}); err != nil {
		return fmt.Errorf("keep volume %s: %w", name, err)
	}
	delete(s.owners, name)
	return nil
}

// Sweep removes the anonymous volumes of containers that nobody knows: a crash came in the middle of their creation or removal.
func (s *Service) Sweep(known func(container string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, owner := range maps.Clone(s.owners) {
		if !known(owner) && len(s.holders[name]) == 0 {
			errs = append(errs, s.remove(name))
		}
	}
	return errors.Join(errs...)
}

// List implements api.Volumes.
func (s *Service) List(_ context.Context, f api.Filters) ([]volume.Volume, []string, error) {
	for k := range f {
		if !slices.Contains([]string{"name", "driver", "label", "dangling", "scope"}, k) {
			return nil, nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []volume.Volume{}
	for _, name := range slices.Sorted(maps.Keys(s.volumes)) {
		if v := s.volumes[name]; s.match(v, f) {
			out = append(out, v)
		}
	}
	return out, nil, nil
}

func (s *Service) match(v volume.Volume, f api.Filters) bool {
	any := func(key string, ok func(string) bool) bool {
		return len(f[key]) == 0 || slices.ContainsFunc(f[key], ok)
	}
	return any("name", func(x string) bool { return strings.Contains(v.Name, x) }) &&
		any("driver", func(x string) bool { return v.Driver == x }) &&
		any("scope", func(x string) bool { return v.Scope == x }) &&
		any("dangling", func(x string) bool { return (x == "true" || x == "1") == (len(s.holders[v.Name]) == 0) }) &&
		f.Labelled(v.Labels)
}

// Inspect implements api.Volumes.
func (s *Service) Inspect(_ context.Context, name string) (volume.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[name]
	if !ok {
		return volume.Volume{}, errdef.New(errdef.NotFound, "get %s: no such volume", name)
	}
	return v, nil
}

// Remove implements api.Volumes; with force an absent volume is no error.
func (s *Service) Remove(_ context.Context, name string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.volumes[name]; !ok {
		if force {
			return nil
		}
		return errdef.New(errdef.NotFound, "get %s: no such volume", name)
	}
	if h := slices.Sorted(maps.Keys(s.holders[name])); len(h) > 0 {
		return errdef.New(errdef.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(h, ", "))
	}
	return s.remove(name)
}

// remove deletes the record before the folder, for the reason given at make.
func (s *Service) remove(name string) error {
	if err := s.db.Delete(bucket, name); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	delete(s.volumes, name)
	delete(s.owners, name)
	s.events.Publish(events.VolumeEventType, events.ActionDestroy, name, map[string]string{"driver": "local"})
	return s.removeFolder(name)
}

// removeFolder deletes by handles: containers may be moving links about in there.
func (s *Service) removeFolder(name string) error {
	r, err := safepath.OpenRoot(s.root)
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	defer r.Close()
	if err := r.RemoveAll(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// Prune implements api.Volumes: anonymous volumes that nobody holds, with all=true named ones too.
func (s *Service) Prune(_ context.Context, f api.Filters) (volume.PruneReport, error) {
	for k := range f {
		if !slices.Contains([]string{"label", "label!", "all"}, k) {
			return volume.PruneReport{}, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	all := slices.ContainsFunc(f["all"], func(v string) bool { return v == "true" || v == "1" })
	s.mu.Lock()
	defer s.mu.Unlock()
	out := volume.PruneReport{VolumesDeleted: []string{}}
	for _, name := range slices.Sorted(maps.Keys(s.volumes)) {
		v := s.volumes[name]
		_, anonymous := v.Labels[AnonymousLabel]
		unwanted := !f.Labelled(v.Labels)
		if len(s.holders[name]) > 0 || !anonymous && !all || unwanted {
			continue
		}
		size := du.Of(v.Mountpoint)
		if err := s.remove(name); err != nil {
			return out, err
		}
		out.VolumesDeleted = append(out.VolumesDeleted, name)
		out.SpaceReclaimed += uint64(size)
	}
	s.events.Publish(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(out.SpaceReclaimed)})
	return out, nil
}

// Usage returns all volumes with size and number of holders.
func (s *Service) Usage() []volume.Volume {
	s.mu.Lock()
	all := maps.Clone(s.volumes)
	refs := map[string]int{}
	for n, h := range s.holders {
		refs[n] = len(h)
	}
	s.mu.Unlock()
	var out []volume.Volume
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := all[name]
		v.UsageData = &volume.UsageData{RefCount: int64(refs[name]), Size: du.Of(v.Mountpoint)}
		out = append(out, v)
	}
	return out
}
