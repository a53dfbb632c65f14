package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// delete removes the record first and then all that was behind it, so that a crash in between leaves what Recover clears away.
// It is called with op held.
func (c *core) delete(ctx context.Context, u *unit, volumes bool) error {
	if c.table.v.Load().byID[u.id] != u {
		return errdef.New(errdef.NotFound, "No such container: %s", u.id)
	}
	if _, err := u.current(); err == nil {
		return errdef.New(errdef.Conflict, "cannot remove container %s: it is running again", u.id)
	}
	u.setRemoving(true)
	gone := false
	defer func() {
		if !gone { // it stays a container like any other
			u.setRemoving(false)
		}
	}()
	u.cancelRestart()
	rec := u.rec.Load()
	for _, m := range rec.Mounts {
		if m.Anonymous && !volumes {
			if err := c.Volumes.Keep(m.Name); err != nil {
				return fmt.Errorf("remove container: %w", err)
			}
		}
	}
	if err := c.DB.Delete(bucket, u.id); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	c.table.remove(u)
	u.mu.Lock()
	gone, u.deleted = true, true
	u.mu.Unlock()
	err := errors.Join(c.Snapshots.Remove(ctx, u.id), os.RemoveAll(c.stateDir(u.id)), os.RemoveAll(c.runDir(u.id)), c.dropVolumes(rec, rec.Mounts, volumes))
	if err != nil {
		c.Log.Error("container's remains not removed, the next engine start will", "container", u.id, "err", err)
	}
	c.execs.forget(u.id)
	c.endPending(u, nil)
	c.event(rec, events.ActionDestroy, nil)
	c.Log.Info("container removed", "container", u.id)
	u.tell(func(container.WaitCondition) bool { return true })
	return nil
}

// Prune implements api.Containers: all that do not run, filtered by label and age.
func (s *Service) Prune(ctx context.Context, f api.Filters) (container.PruneReport, error) {
	out := container.PruneReport{ContainersDeleted: []string{}}
	for k := range f {
		if !slices.Contains([]string{"label", "label!", "until"}, k) {
			return out, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	until, err := f.Until(time.Now())
	if err != nil {
		return out, err
	}
	for _, u := range s.table.all() {
		rec := u.rec.Load()
		if st := rec.Status(); st != container.StateCreated && st != container.StateExited && st != container.StateDead {
			continue
		}
		if !f.Labelled(rec.Config.Labels) || !until.IsZero() && rec.Created.After(until) {
			continue
		}
		size, _ := s.Snapshots.Usage(u.id)
		err := s.remove(ctx, u, false)
		if errdef.Is(err, errdef.Conflict) || errdef.Is(err, errdef.NotFound) {
			continue // started or removed by somebody else meanwhile
		}
		if err != nil {
			return out, err
		}
		out.ContainersDeleted = append(out.ContainersDeleted, u.id)
		out.SpaceReclaimed += uint64(size)
	}
	s.Events.Publish(events.ContainerEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(out.SpaceReclaimed)})
	return out, nil
}
