package container

import (
	"context"
	"errors"
	"math"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
)

// Stop implements api.Containers.
func (s *Service) Stop(ctx context.Context, ref, sig string, timeout *int) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if err := s.stopper().halt(ctx, u, sig, timeout); err != nil {
		return err
	}
	s.event(u.rec.Load(), events.ActionStop, nil)
	return nil
}

// Restart implements api.Containers.
func (s *Service) Restart(ctx context.Context, ref, signal string, timeout *int) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if err := s.stopper().halt(ctx, u, signal, timeout); err != nil && !errdef.Is(err, errdef.NotModified) {
		return err
	}
	if u.rec.Load().HostConfig.AutoRemove {
		if _, err := s.table.find(u.id); err != nil {
			return errdef.New(errdef.Conflict, "container %s was removed when it stopped, as asked by --rm", u.id[:12])
		}
	}
	if err := s.start(ctx, u, true); err != nil && !errdef.Is(err, errdef.NotModified) {
		return err
	}
	s.event(u.rec.Load(), events.ActionRestart, nil)
	return nil
}

// stopper ends and pauses runs.
type stopper struct{ *core }

func (c *core) stopper() stopper { return stopper{c} }

// halt asks the command to end, and makes it end after the timeout.
func (c stopper) halt(ctx context.Context, u *unit, sig string, timeout *int) error {
	rec := u.rec.Load()
	if sig == "" {
		sig = rec.StopSignal()
	}
	number, err := signal.ParseSignal(sig)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "stop container: %w", err)
	}
	seconds := rec.StopTimeout()
	if timeout != nil {
		seconds = *timeout
	}
	r, err := c.giveUp(ctx, u)
	if err != nil {
		return err
	}
	// From here on the container is to end: a client that hangs up does not change that.
	ctx = context.WithoutCancel(ctx)
	if rec.State.Paused {
		c.resume(ctx, u, r)
	}
	if seconds != 0 {
		if err := c.signal(ctx, u, r, number); err != nil {
			c.Log.Warn("stop signal not delivered", "container", u.id, "err", err)
		} else if ended(r, seconds) {
			return nil
		}
	}
	return c.kill(ctx, u, r)
}

// giveUp notes that a user wants the container stopped and returns its run, or NotModified when there is none.
func (c stopper) giveUp(ctx context.Context, u *unit) (*run, error) {
	if err := u.lock(ctx); err != nil {
		return nil, err
	}
	defer u.unlock()
	waiting := u.cancelRestart()
	r, err := u.current()
	rec := u.change()
	if err != nil && !waiting && !rec.State.Restarting {
		return nil, errdef.New(errdef.NotModified, "container %s is not running", u.id)
	}
	rec.WantStopped = true
	if err != nil {
		rec.State.Restarting = false
		c.note(u, rec)
		u.tell(func(w container.WaitCondition) bool { return w != container.WaitConditionRemoved })
		return nil, errdef.New(errdef.NotModified, "container %s was waiting to be restarted and will not be", u.id)
	}
	if err := c.save(u, rec); err != nil {
		c.Log.Error("record not saved", "container", u.id, "err", err) // stopping must work on a full disk
		u.rec.Store(rec)
	}
	return r, nil
}

// ended waits for the end of a run for so many seconds, for ever when negative.
func ended(r *run, seconds int) bool {
	if seconds < 0 {
		<-r.ended
		return true
	}
	t := time.NewTimer(time.Duration(min(seconds, math.MaxInt64/int(time.Second))) * time.Second)
	defer t.Stop()
	select {
	case <-r.ended:
		return true
	case <-t.C:
		return false
	}
}

// killTimeout is how long a killed container may take to end: its processes may hang in the kernel.
const killTimeout = 30

// signalTimeout is how long a shim may take to pass a signal on before it counts as stuck.
const signalTimeout = 5 * time.Second

// kill ends a run by SIGKILL, through the shim or, when that does not answer, through the cgroup.
func (c stopper) kill(ctx context.Context, u *unit, r *run) error {
	err := c.signal(ctx, u, r, syscall.SIGKILL)
	if err != nil && !ended(r, 2) { // it may be ending at this very moment
		c.Log.Warn("shim does not answer, killing by cgroup", "container", u.id, "err", err)
		if derr := errors.Join(c.destroy(ctx, u.rec.Load()), keeper.Kill(c.runDir(u.id))); derr != nil {
			return errors.Join(err, derr)
		}
	}
	if !ended(r, killTimeout) {
		return errdef.New(errdef.Unavailable, "container %s was killed but has not ended within %d seconds: its processes hang in the kernel or its shim is stopped", u.id, killTimeout)
	}
	return nil
}

func (c stopper) signal(ctx context.Context, u *unit, r *run, number syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	err := r.shim.Signal(ctx, "", int(number))
	if err != nil && ended(r, 0) {
		return nil
	}
	if errdef.Is(err, errdef.NotFound) || errdef.Is(err, errdef.Conflict) {
		return nil // init has ended, its exit is on the way
	}
	if err == nil {
		c.event(u.rec.Load(), events.ActionKill, map[string]string{"signal": strconv.Itoa(int(number))})
	}
	return err
}

// Kill implements api.Containers.
func (s *Service) Kill(ctx context.Context, ref, sig string) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if sig == "" {
		sig = "SIGKILL"
	}
	number, err := signal.ParseSignal(sig)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "kill container: %w", err)
	}
	r, err := u.current()
	if err != nil {
		return errdef.New(errdef.Conflict, "cannot kill container: %s: %w", ref, err)
	}
	stop, _ := signal.ParseSignal(u.rec.Load().StopSignal())
	if number == syscall.SIGKILL || number == stop {
		if _, err := s.stopper().giveUp(ctx, u); err != nil && !errdef.Is(err, errdef.NotModified) {
			return err
		}
	}
	if number != syscall.SIGKILL {
		return s.stopper().signal(ctx, u, r, number)
	}
	return s.stopper().kill(context.WithoutCancel(ctx), u, r)
}

// Pause implements api.Containers.
func (s *Service) Pause(ctx context.Context, ref string) error {
	return s.stopper().freeze(ctx, ref, true)
}

// Unpause implements api.Containers.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	return s.stopper().freeze(ctx, ref, false)
}

func (c stopper) freeze(ctx context.Context, ref string, on bool) error {
	u, err := c.table.find(ref)
	if err != nil {
		return err
	}
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	r, err := u.current()
	if err != nil {
		return err
	}
	paused := u.rec.Load().State.Paused
	switch {
	case on && paused:
		return errdef.New(errdef.Conflict, "container %s is already paused", u.id)
	case !on && !paused:
		return errdef.New(errdef.Conflict, "container %s is not paused", u.id)
	case on:
		err = r.shim.Pause(ctx)
	default:
		err = r.shim.Resume(ctx)
	}
	if err != nil {
		return err
	}
	c.paused(u, on)
	return nil
}

func (c stopper) paused(u *unit, on bool) {
	rec := u.change()
	rec.State.Paused = on
	c.note(u, rec)
	action := events.ActionUnPause
	if on {
		action = events.ActionPause
	}
	c.event(rec, action, nil)
}

// resume thaws a container that is to end: a frozen process takes no signal.
func (c stopper) resume(ctx context.Context, u *unit, r *run) {
	if err := u.lock(ctx); err != nil {
		return
	}
	defer u.unlock()
	ctx, cancel := context.WithTimeout(ctx, signalTimeout) // op is held: a stuck shim must not hold up rm -f
	defer cancel()
	if err := r.shim.Resume(ctx); err == nil {
		c.paused(u, false)
	}
}

// Wait implements api.Containers.
func (s *Service) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	switch cond {
	case "":
		cond = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return nil, errdef.New(errdef.InvalidArgument, "invalid condition: %q", cond)
	}
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	return u.wait(ctx, cond), nil
}

// Resize implements api.Containers.
func (s *Service) Resize(ctx context.Context, ref string, height, width uint) error {
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if height > 65535 || width > 65535 {
		return errdef.New(errdef.InvalidArgument, "resize to %dx%d: a terminal has at most 65535 rows and columns", height, width)
	}
	r, err := u.current()
	if err != nil {
		return err
	}
	if err := r.shim.Resize(ctx, "", uint16(height), uint16(width)); err != nil {
		return err
	}
	s.event(u.rec.Load(), events.ActionResize, map[string]string{"height": strconv.Itoa(int(height)), "width": strconv.Itoa(int(width))})
	return nil
}

// Remove implements api.Containers.
func (s *Service) Remove(ctx context.Context, ref string, o api.RemoveOptions) error {
	if o.Link {
		return errdef.New(errdef.NotImplemented, "removing links is not implemented")
	}
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	rec := u.rec.Load()
	if r, err := u.current(); err == nil {
		if !o.Force {
			return errdef.New(errdef.Conflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+rec.Name)
		}
		u.setRemoving(true)
		if _, err := s.stopper().giveUp(ctx, u); err != nil && !errdef.Is(err, errdef.NotModified) {
			u.setRemoving(false)
			return err
		}
		if err := s.stopper().kill(context.WithoutCancel(ctx), u, r); err != nil {
			u.setRemoving(false)
			return err
		}
	}
	return s.remove(context.WithoutCancel(ctx), u, o.Volumes || rec.HostConfig.AutoRemove)
}

// remove takes a container that does not run away.
func (c *core) remove(ctx context.Context, u *unit, volumes bool) error {
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	return c.delete(ctx, u, volumes)
}
