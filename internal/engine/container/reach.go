package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// Reach opens the files of containers, as they are seen inside, to those who copy.
type Reach struct{ *core }

// NewReach reaches into the containers of s.
func NewReach(s *Service) *Reach { return &Reach{s.core} }

// Record is the record of a container.
func (s *Reach) Record(ref string) (*api.Container, error) { return (&Service{s.core}).Record(ref) }

// Event tells that files were copied.
func (s *Reach) Event(rec *api.Container, in bool, path string) {
	action := events.ActionArchivePath
	if in {
		action = events.ActionExtractToDir
	}
	s.event(rec, action, map[string]string{"path": path})
}

// Look calls f with the root of a container, volumes and binds included, for reading. The container may be started, stopped and removed
// meanwhile: what f has opened it can read to the end.
func (s *Reach) Look(ctx context.Context, ref string, f func(*api.Container, *os.File) error) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	root, err := s.open(ctx, u)
	if errors.Is(err, rootfs.ErrNoTarget) { // of a container that never ran
		if err = s.furnish(ctx, u); err == nil {
			root, err = s.open(ctx, u)
		}
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return f(u.rec.Load(), root)
}

func (s *Reach) open(ctx context.Context, u *unit) (*os.File, error) {
	for {
		r, err := u.current()
		if err != nil {
			return s.view(u, false)
		}
		root, err := reach(ctx, r, rootfs.Top)
		if err == nil || !r.over(ctx) {
			return root, err
		}
	}
}

// over waits, not for long, until the end of a run whose files could not be reached is on record.
func (r *run) over(ctx context.Context) bool {
	t := time.NewTimer(endTimeout)
	defer t.Stop()
	select {
	case <-r.ended:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

const endTimeout = 5 * time.Second

// furnish makes the mount points that the first start would make.
func (s *Reach) furnish(ctx context.Context, u *unit) error {
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	if _, err := u.current(); err == nil {
		return nil
	}
	root, err := s.view(u, true)
	if err != nil {
		return err
	}
	return root.Close()
}

// Change calls f with the root of a container for writing, by mounts of their own on which nothing acts (mount.Inert); nothing else is done
// with the container meanwhile.
func (s *Reach) Change(ctx context.Context, ref string, f func(*api.Container, *os.File) error) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	for {
		ended, err := s.change(ctx, u, f)
		if ended == nil || !ended.over(ctx) {
			return err
		}
	}
}

// change returns the run that it could not reach, because it is about to be over; who waits for that must not hold the container.
func (s *Reach) change(ctx context.Context, u *unit, f func(*api.Container, *os.File) error) (*run, error) {
	if err := u.lock(ctx); err != nil {
		return nil, err
	}
	defer u.unlock()
	r, err := u.current()
	var root *os.File
	if err == nil {
		if root, err = reach(ctx, r, rootfs.Copy); err != nil {
			return r, err
		}
	} else if root, err = s.view(u, true); err != nil {
		return nil, err
	}
	defer root.Close()
	if err := rootfs.Still(root); err != nil {
		return nil, err
	}
	return nil, f(u.rec.Load(), root)
}

// view mounts the files of a container that does not run, for this process only.
func (s *Reach) view(u *unit, write bool) (*os.File, error) {
	rec := u.rec.Load()
	r, err := s.Snapshots.Rootfs(u.id)
	if err != nil {
		return nil, err
	}
	root, err := s.Snapshots.Mount(u.id, !write)
	if err != nil {
		return nil, err
	}
	var places []rootfs.Place
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		places = append(places, rootfs.Place{Source: m.Source, Target: m.Destination, ReadOnly: m.ReadOnly, Shallow: m.NonRecursive, NoFollow: m.Type == mount.TypeVolume})
	}
	if root, err = rootfs.View(root, places, write, r.Scratch); err != nil {
		return nil, err
	}
	if write && rec.HostConfig.ReadonlyRootfs {
		if err := rootfs.Freeze(root); err != nil {
			root.Close()
			return nil, err
		}
	}
	return root, nil
}

// reach opens the root of a run's mount namespace.
func reach(ctx context.Context, r *run, open func(pidfd *os.File) (*os.File, error)) (*os.File, error) {
	pidfd, err := held(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("reach the container's files: %w", err)
	}
	defer pidfd.Close()
	return open(pidfd)
}
