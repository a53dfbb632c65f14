package container

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
)

// Observer looks at containers' files from outside.
type Observer struct{ *core }

// NewObserver looks at the containers of s.
func NewObserver(s *Service) *Observer { return &Observer{s.core} }

// Record is the record of a container.
func (s *Observer) Record(ref string) (*api.Container, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	return u.rec.Load(), nil
}

// Still calls f while a container's files hold still: one that does not run is neither started nor removed meanwhile, one that runs is
// frozen, unless freeze is false. What f saw of a container that was removed meanwhile does not count: that is an error.
func (s *Observer) Still(ctx context.Context, ref string, freeze bool, f func(*api.Container) error) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if err := u.lock(ctx); err != nil {
		return err
	}
	r, err := u.current()
	if err == nil && !freeze { // the command runs on, and may be stopped and removed
		u.unlock()
		if err := f(u.rec.Load()); err != nil {
			return err
		}
		return s.there(u)
	}
	defer u.unlock()
	if err == nil && !u.rec.Load().State.Paused {
		if err := s.hold(ctx, u, r); err != nil {
			return err
		}
		defer s.release(u, r)
	}
	return f(u.rec.Load())
}

// there is an error when a container was removed.
func (s *Observer) there(u *unit) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.deleted || u.removing {
		return errdef.New(errdef.Conflict, "container %s was removed meanwhile", u.id)
	}
	return nil
}

// hold freezes a container. That it is we who did is on record first: an engine that dies here has a successor who thaws.
func (s *Observer) hold(ctx context.Context, u *unit, r *run) error {
	rec := u.change()
	rec.State.Held = true
	if err := s.save(u, rec); err != nil {
		return err
	}
	if err := r.shim.Pause(ctx); err != nil {
		s.unhold(u)
		return fmt.Errorf("freeze container %s: %w", u.id, err)
	}
	return nil
}

func (s *Observer) release(u *unit, r *run) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // whoever asked may be gone
	defer cancel()
	if err := r.shim.Resume(ctx); err != nil {
		s.Log.Error("container not thawed", "container", u.id, "err", err)
	}
	s.unhold(u)
}

func (c *core) unhold(u *unit) {
	rec := u.change()
	rec.State.Held = false
	c.note(u, rec)
}

// Root opens a container's root file system, without what is mounted in it, as it is seen inside. The second result tells, after it was
// read, whether the container was there all the time.
func (s *Observer) Root(ctx context.Context, ref string) (root *os.File, there func() error, err error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, nil, err
	}
	there = func() error { return s.there(u) }
	if r, err := u.current(); err == nil {
		if root, err = s.inside(ctx, r); err == nil {
			return root, there, nil
		}
		if _, err := u.current(); err == nil {
			s.Log.Warn("root of a running container not reached, its layers are read instead", "container", u.id, "err", err)
		}
	}
	root, err = s.Snapshots.Mount(u.id, true)
	return root, there, err
}

// inside copies the root mount of a run.
func (s *Observer) inside(ctx context.Context, r *run) (*os.File, error) {
	pidfd, err := held(ctx, r)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	return rootfs.Inside(pidfd)
}

// held returns the pidfd of a run's first process. It counts only when the shim still knows the process after its pidfd was opened.
func held(ctx context.Context, r *run) (*os.File, error) {
	before, err := r.shim.State(ctx)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(before.Pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	after, err := r.shim.State(ctx)
	if err == nil && (after.Pid != before.Pid || after.Status != "running" && after.Status != "paused") {
		err = errdef.New(errdef.Conflict, "the container's command has ended")
	}
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	return pidfd, nil
}
