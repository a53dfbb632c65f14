package container

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
)

// unit is one container as the engine holds it.
type unit struct {
	id  string
	rec atomic.Pointer[api.Container]
	// op serialises changes; it may be held for as long as a start takes. Nobody who holds it waits for a run to end.
	op      chan struct{}
	deleted bool // written with op and mu held: no record may be written again

	mu       sync.Mutex // guards all below, for moments only
	run      *run
	removing bool
	failures int         // ends in a row that made the restart delay grow
	timer    *time.Timer // of a restart to come
	pending  []*session
	waiters  map[*waiter]struct{}
}

// run is one life of the container's command.
type run struct {
	shim  *keeper.Shim
	ended chan struct{} // closed once the end has been recorded
}

type waiter struct {
	cond container.WaitCondition
	ch   chan container.WaitResponse
}

func newUnit(rec *api.Container) *unit {
	u := &unit{id: rec.ID, op: make(chan struct{}, 1), waiters: map[*waiter]struct{}{}}
	u.rec.Store(rec)
	return u
}

// lock takes op or gives up with ctx. Of a container that was removed meanwhile it is errdef.NotFound: who found it before must
// not write its record again.
func (u *unit) lock(ctx context.Context) error {
	select {
	case u.op <- struct{}{}:
		if u.deleted {
			u.unlock()
			return errdef.New(errdef.NotFound, "No such container: %s", u.id)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another operation on container %s has not ended: %w", u.id[:12], ctx.Err())
	}
}

func (u *unit) unlock() { <-u.op }

// change returns a copy of the record to work on; the parts behind pointers must be replaced, not written to.
func (u *unit) change() *api.Container {
	c := *u.rec.Load()
	return &c
}

// current returns the run, or an error that says the container does not run.
func (u *unit) current() (*run, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.run == nil {
		return nil, errdef.New(errdef.Conflict, "container %s is not running", u.id)
	}
	return u.run, nil
}

func (u *unit) setRun(r *run) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.run = r
}

// wait registers for cond, or answers at once when it holds already.
func (u *unit) wait(ctx context.Context, cond container.WaitCondition) <-chan container.WaitResponse {
	w := &waiter{cond: cond, ch: make(chan container.WaitResponse, 1)}
	u.mu.Lock()
	defer u.mu.Unlock()
	rec := u.rec.Load()
	if u.deleted || cond == container.WaitConditionNotRunning && u.run == nil && !rec.State.Running && !rec.State.Restarting {
		w.ch <- answer(rec)
		close(w.ch)
		return w.ch
	}
	u.waiters[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if _, ok := u.waiters[w]; ok {
			delete(u.waiters, w)
			close(w.ch)
		}
	})
	return w.ch
}

func answer(rec *api.Container) container.WaitResponse {
	return container.WaitResponse{StatusCode: int64(rec.State.ExitCode)}
}

// setRemoving says that the container is about to go, or that it stays after all.
func (u *unit) setRemoving(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removing = on
}

// tell answers the waiters whose condition now holds.
func (u *unit) tell(holds func(container.WaitCondition) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for w := range u.waiters {
		if holds(w.cond) {
			w.ch <- answer(u.rec.Load())
			close(w.ch)
			delete(u.waiters, w)
		}
	}
}

// cancelRestart forgets a restart to come and tells whether there was one.
func (u *unit) cancelRestart() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.timer == nil {
		return false
	}
	stopped := u.timer.Stop()
	u.timer = nil
	return stopped
}

// over returns a channel that is closed once the container does not run and no restart is on its way, or with ctx.
func (u *unit) over(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r, err := u.current()
			if err == nil {
				select {
				case <-r.ended:
				case <-ctx.Done():
				}
				continue
			}
			// Between two runs there is nothing to wait on; the delay is at least firstDelay.
			if st := u.rec.Load().State; !st.Restarting && !st.Running || u.gone() {
				return
			}
			select {
			case <-time.After(firstDelay / 4):
			case <-ctx.Done():
			}
		}
	}()
	return done
}

func (u *unit) gone() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.removing
}
