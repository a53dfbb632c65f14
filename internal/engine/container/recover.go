package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Recovery brings a new engine and what the last one left together: Load, then Adopt, then, with the network in order, Boot.
type Recovery struct{ *core }

// Recovery returns it.
func (s *Service) Recovery() *Recovery { return &Recovery{s.core} }

// Load reads the records. Nothing is adopted, cleared or started yet.
func (s *Recovery) Load() error {
	for _, d := range []string{s.DataRoot + "/containers", s.RunRoot + "/containers", s.ociRoot()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	err := s.DB.Each(bucket, func(key string, raw []byte) error {
		var rec api.Container
		if err := meta.Decode(bucket, key, raw, &rec); err != nil {
			if kept := keptRecord(s.runDir(key)); kept != nil {
				s.know(kept)
				return nil
			}
			s.Log.Error("container record is damaged, the container is left alone", "container", key, "err", err)
			return nil
		}
		s.know(&rec)
		return nil
	})
	if err == nil && s.Degraded {
		err = s.loadRuns()
	}
	return err
}

func (s *Recovery) know(rec *api.Container) {
	for _, m := range rec.Mounts {
		if m.Name != "" {
			s.Volumes.Hold(m.Name, rec.ID)
		}
	}
	s.table.add(newUnit(rec))
}

// Adopt finds the runs of the last engine: living shims are watched again, ended ones are recorded, the rest is cleared away. It
// returns the IDs of the containers that run, for the network to reconcile. Live containers are never disturbed.
func (s *Recovery) Adopt(ctx context.Context) (live []string, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, u := range s.table.all() {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if s.adopt(ctx, u) {
				mu.Lock()
				live = append(live, u.id)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if s.Degraded {
		return live, nil
	}
	return live, s.sweep(ctx)
}

// adopt brings one container's record and reality together; it reports whether the container runs.
func (s *Recovery) adopt(ctx context.Context, u *unit) bool {
	rec := u.rec.Load()
	shim := keeper.Find(s.runDir(u.id), s.stateDir(u.id))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := shim.State(ctx)
	if err == nil && (st.Status == "running" || st.Status == "paused") {
		s.readopt(u, shim, st)
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) && (rec.State.Running || rec.HostConfig.AutoRemove) { // whose start is not always recorded
		if !rec.State.Running {
			rec = u.change()
			rec.State.Running = true
			u.rec.Store(rec)
		}
		s.Log.Warn("shim is slow to answer, its container counts as running", "container", u.id) // killing it would be wrong
		s.follow(u, shim)
		go s.catchUp(u, shim) // ends with the shim's answer, or the engine
		return true
	}
	_, statErr := os.Stat(s.runDir(u.id))
	if !rec.State.Running && os.IsNotExist(statErr) {
		if rec.State.Restarting {
			rec = u.change()
			rec.State.Restarting = false // the policy decides again, in Boot
			s.note(u, rec)
		}
		if _, err := os.Stat(filepath.Join(s.stateDir(u.id), hostsFile)); err == nil && rec.HostConfig.AutoRemove && !s.Degraded { // it ran when the machine went down
			ender{s.core}.after(u)
		}
		return false
	}
	exit, exitErr := shim.Recorded()
	switch {
	case err == nil && st.Exit != nil:
		exit = *st.Exit
	case exitErr == nil:
	case rec.State.Running:
		exit = ender{s.core}.lost(u, exitErr)
	default: // a start that the last engine did not finish
		if err := shim.End(ctx, true); err != nil {
			s.Log.Warn("half-started container not ended by its shim", "container", u.id, "err", err)
		}
		if err := s.destroy(ctx, rec); err != nil {
			s.Log.Error("half-started container not cleared", "container", u.id, "err", err)
		}
		if err := s.Network.Disconnect(ctx, u.id); err != nil {
			s.Log.Error("network not released", "container", u.id, "err", err)
		}
		os.RemoveAll(s.runDir(u.id))
		if !s.Degraded {
			ender{s.core}.after(u) // or it ran, and its shim was lost with the last engine
		}
		return false
	}
	r := &run{shim: shim, ended: make(chan struct{})}
	u.setRun(r)
	u.op <- struct{}{}
	s.finishAtBoot(u, r, exit)
	u.unlock()
	ender{s.core}.after(u)
	return false
}

// finishAtBoot records an end that nobody watched. Restart policies are applied by Boot, once, with the network in order.
func (s *Recovery) finishAtBoot(u *unit, r *run, exit wire.Exit) {
	u.mu.Lock()
	removing := u.removing
	u.removing = true // keeps finish from setting a timer
	u.mu.Unlock()
	ender{s.core}.finish(u, r, exit)
	u.mu.Lock()
	u.removing = removing
	u.mu.Unlock()
}

// catchUp records what a shim says that was slow to answer.
func (s *Recovery) catchUp(u *unit, shim *keeper.Shim) {
	st, err := shim.State(s.ctx)
	if err != nil || st.Status != "running" && st.Status != "paused" || u.lock(s.ctx) != nil {
		return // whoever follows the run hears of its end
	}
	defer u.unlock()
	if running(u) {
		s.remember(u, shim, st)
	}
}

func (s *Recovery) readopt(u *unit, shim *keeper.Shim, st *wire.State) {
	s.remember(u, shim, st)
	s.Log.Info("container adopted", "container", u.id, "pid", st.Pid)
	s.follow(u, shim)
}

// remember records what a shim says of its container.
func (s *Recovery) remember(u *unit, shim *keeper.Shim, st *wire.State) {
	s.thaw(u, shim, st)
	rec := u.change()
	if !rec.State.Running || rec.State.Pid != st.Pid || rec.State.Paused != (st.Status == "paused") {
		rec.State.Running, rec.State.Pid, rec.State.Paused, rec.State.Restarting = true, st.Pid, st.Status == "paused", false
		if !st.StartedAt.IsZero() {
			rec.State.StartedAt = st.StartedAt
		}
		rec.State.ExitCode, rec.State.Error = 0, ""
		s.note(u, rec)
	}
}

// thaw ends a freeze that the last engine meant to last for a moment.
func (s *Recovery) thaw(u *unit, shim *keeper.Shim, st *wire.State) {
	if !u.rec.Load().State.Held {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if st.Status == "paused" {
		if err := shim.Resume(ctx); err != nil {
			s.Log.Error("container not thawed", "container", u.id, "err", err)
			return
		}
		st.Status = "running"
	}
	s.unhold(u)
}

func (s *Recovery) follow(u *unit, shim *keeper.Shim) {
	r := &run{shim: shim, ended: make(chan struct{})}
	u.setRun(r)
	go ender{s.core}.watch(u, r) // ends with the run or the engine
}

// sweep removes what no record owns: runs, folders, writable layers and cgroups of containers that were half made or half removed.
func (s *Recovery) sweep(ctx context.Context) error {
	known := func(id string) bool { return s.table.v.Load().byID[id] != nil }
	runs, err := names(s.RunRoot + "/containers")
	if err != nil {
		return err
	}
	for _, id := range runs {
		if known(id) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := keeper.Find(s.runDir(id), s.stateDir(id)).End(short, true); err != nil {
			s.Log.Warn("unowned shim not ended", "container", id, "err", err)
		}
		cancel()
		os.RemoveAll(s.runDir(id))
	}
	groups, err := s.Cgroups.Children(s.Host.CgroupParent)
	if err != nil {
		return fmt.Errorf("list cgroups: %w", err)
	}
	for _, id := range groups {
		u := s.table.v.Load().byID[id]
		if u != nil && running(u) {
			continue
		}
		if err := s.Cgroups.Destroy(ctx, path.Join(s.Host.CgroupParent, id)); err != nil {
			s.Log.Error("unowned cgroup not removed", "container", id, "err", err)
		}
	}
	return s.sweepFolders(ctx, known)
}

func running(u *unit) bool {
	_, err := u.current()
	return err == nil
}

func (s *Recovery) sweepFolders(ctx context.Context, known func(string) bool) error {
	states, err := names(s.ociRoot())
	if err != nil {
		return err
	}
	for _, id := range states {
		if u := s.table.v.Load().byID[id]; u == nil || !running(u) {
			os.RemoveAll(path.Join(s.ociRoot(), id))
		}
	}
	dirs, err := names(s.DataRoot + "/containers")
	if err != nil {
		return err
	}
	damaged := map[string]bool{} // a record that cannot be read still owns its things
	if err := s.DB.Each(bucket, func(key string, _ []byte) error { damaged[key] = true; return nil }); err != nil {
		return err
	}
	for _, id := range dirs {
		if !known(id) && !damaged[id] {
			os.RemoveAll(s.stateDir(id))
		}
	}
	if err := s.Volumes.Sweep(func(id string) bool { return known(id) || damaged[id] }); err != nil {
		s.Log.Error("unowned volumes not removed", "err", err)
	}
	layers, err := s.Snapshots.List()
	if err != nil {
		return err
	}
	for _, id := range layers {
		if !known(id) && !damaged[id] {
			if err := s.Snapshots.Remove(ctx, id); err != nil {
				s.Log.Error("unowned writable layer not removed", "container", id, "err", err)
			}
		}
	}
	return nil
}

func names(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out, nil
}

// Boot applies the restart policies, once per engine start, a few containers at a time.
func (s *Recovery) Boot(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, u := range s.table.all() {
		rec := u.rec.Load()
		started := !rec.State.StartedAt.IsZero()
		if running(u) || !started || !wanted(rec, rec.State.ExitCode, true) {
			s.settle(u)
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := s.start(ctx, u, true); err != nil && !errdef.Is(err, errdef.NotModified) {
				s.Log.Warn("container not restarted", "container", u.id, "err", err)
				return
			}
			s.event(u.rec.Load(), events.ActionRestart, nil)
		})
	}
	wg.Wait()
}

// settle ends the state "restarting" of a container that will not be.
func (s *Recovery) settle(u *unit) {
	rec := u.change()
	if !rec.State.Restarting {
		return
	}
	rec.State.Restarting = false
	s.note(u, rec)
	u.tell(func(w container.WaitCondition) bool { return w == container.WaitConditionNotRunning })
}
