package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// ender clears up after runs and applies restart policies.
type ender struct{ *core }

// watch waits for the end of a run and then clears up after it.
func (c ender) watch(u *unit, r *run) {
	exit, err := r.shim.Wait(c.ctx)
	if c.ctx.Err() != nil {
		return // the engine ends, the container does not
	}
	if err != nil {
		exit = c.lost(u, err)
	}
	if err := u.lock(c.ctx); err != nil {
		return
	}
	c.finish(u, r, exit)
	u.unlock()
	c.after(u)
}

// lost is the exit of a container whose shim went away without a word: what is left of it is killed by its cgroup.
func (c ender) lost(u *unit, cause error) wire.Exit {
	rec := u.rec.Load()
	c.Log.Warn("shim lost", "container", u.id, "err", cause)
	text := "the container's shim was killed; the container was killed with it"
	if !errdef.Is(cause, errdef.NotFound) {
		text += ": " + cause.Error()
	}
	ctx, cancel := context.WithTimeout(c.ctx, opTimeout)
	defer cancel()
	if err := c.destroy(ctx, rec); err != nil {
		text += ": " + err.Error()
	}
	return wire.Exit{Code: 137, Signal: 9, At: time.Now().UTC(), Error: text}
}

// destroy removes a container from the kernel without its shim.
func (c *core) destroy(ctx context.Context, rec *api.Container) error {
	if err := c.Cgroups.Destroy(ctx, spec.CgroupsPath(rec, c.Host)); err != nil {
		return fmt.Errorf("remove the container's cgroup: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(c.ociRoot(), rec.ID)); err != nil {
		return fmt.Errorf("remove the runtime's state: %w", err)
	}
	return nil
}

// finish records the end of a run. It is called with op held and always succeeds: what cannot be done is logged, and done by the next
// start or the next engine.
func (c ender) finish(u *unit, r *run, exit wire.Exit) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	if err := r.shim.End(ctx, false); err != nil {
		c.Log.Warn("shim not ended", "container", u.id, "err", err)
		if err := c.destroy(ctx, u.rec.Load()); err != nil {
			c.Log.Error("container not cleared", "container", u.id, "err", err)
		}
	}
	if err := c.Network.Disconnect(ctx, u.id); err != nil {
		c.Log.Error("network not released", "container", u.id, "err", err)
	}
	if err := os.RemoveAll(c.runDir(u.id)); err != nil {
		c.Log.Error("run folder not removed", "container", u.id, "err", err)
	}
	rec := u.change()
	ran := exit.At.Sub(rec.State.StartedAt)
	rec.State = api.State{ExitCode: exit.Code, OOMKilled: exit.OOMKilled, Error: exit.Error, StartedAt: rec.State.StartedAt, FinishedAt: exit.At.UTC()}
	delay, again := c.restartDelay(u, rec, ran)
	if again {
		rec.State.Restarting = true
		rec.RestartCount++
	}
	if rec.HostConfig.AutoRemove {
		u.rec.Store(rec) // the record goes in a moment; until then exit.json tells the same
	} else {
		c.note(u, rec)
	}
	if exit.OOMKilled {
		c.event(rec, events.ActionOOM, nil)
	}
	c.event(rec, events.ActionDie, map[string]string{"exitCode": strconv.Itoa(exit.Code), "execDuration": strconv.Itoa(int(ran.Seconds()))})
	c.Log.Info("container ended", "container", u.id, "code", exit.Code, "oom", exit.OOMKilled)
	u.mu.Lock()
	u.run = nil
	if again && !u.removing {
		u.timer = time.AfterFunc(delay, func() { c.restart(u) })
	}
	u.mu.Unlock()
	close(r.ended)
	u.tell(func(w container.WaitCondition) bool {
		return w == container.WaitConditionNextExit || w == container.WaitConditionNotRunning && !again
	})
}

// after does what follows an end once nobody holds the container: --rm takes it away.
func (c ender) after(u *unit) {
	if !u.rec.Load().HostConfig.AutoRemove {
		return
	}
	if err := c.remove(context.Background(), u, true); err != nil && !errdef.Is(err, errdef.NotFound) && !errdef.Is(err, errdef.Conflict) {
		c.Log.Error("container not removed", "container", u.id, "err", err)
	}
}

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	calm       = 10 * time.Second // a run of this length resets the delay
)

// restartDelay decides whether the policy wants another run and when: the delay doubles from 100 ms to a minute.
func (c ender) restartDelay(u *unit, rec *api.Container, ran time.Duration) (time.Duration, bool) {
	if !wanted(rec, rec.State.ExitCode, false) {
		return 0, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.removing {
		return 0, false
	}
	if ran >= calm {
		u.failures = 0
	}
	delay := min(firstDelay<<min(u.failures, 12), lastDelay)
	u.failures++
	return delay, true
}

// wanted is the restart policy. boot is the engine's own start, at which unless-stopped and always differ.
func wanted(rec *api.Container, code int, boot bool) bool {
	p := rec.HostConfig.RestartPolicy
	switch {
	case p.IsAlways():
		return boot || !rec.WantStopped
	case p.IsUnlessStopped():
		return !rec.WantStopped
	case p.IsOnFailure():
		return !rec.WantStopped && code != 0 && (p.MaximumRetryCount == 0 || rec.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// restart is a timer's call.
func (c ender) restart(u *unit) {
	u.mu.Lock()
	u.timer = nil
	u.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	err := c.start(c.ctx, u, false)
	if err == nil || errdef.Is(err, errdef.NotModified) || errdef.Is(err, errdef.Conflict) {
		return
	}
	if err := u.lock(c.ctx); err != nil {
		return
	}
	defer u.unlock()
	rec := u.change()
	delay, again := c.restartDelay(u, rec, 0)
	if again {
		rec.RestartCount++
		rec.State.Restarting = true
		u.mu.Lock()
		u.timer = time.AfterFunc(delay, func() { c.restart(u) })
		u.mu.Unlock()
	}
	c.note(u, rec)
	if !again {
		u.tell(func(w container.WaitCondition) bool { return w == container.WaitConditionNotRunning })
	}
}
