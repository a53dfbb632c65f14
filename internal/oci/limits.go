package oci

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
)

// Meter reads what the kernel counts for a container.
type Meter struct{ dirs []plan.Dir }

// MeterOf returns a container's meter.
func MeterOf(c *Container) Meter { return Meter{c.State.Cgroups} }

// Counters returns all counters, in the shape of runc's events.
func (m Meter) Counters() (cgroup.Counters, error) { return cgroup.Count(m.dirs) }

// WatchOOM begins to watch for the container's running out of memory.
func (m Meter) WatchOOM() (*cgroup.OOMWatch, error) { return cgroup.WatchOOM(m.dirs) }

// OOMKilled tells whether the kernel has killed a process of the container for want of memory.
func (c *Container) OOMKilled() bool {
	n, err := cgroup.OOMKills(c.State.Cgroups)
	return err == nil && n > 0
}

// Update changes the limits of a container that runs, all that were given or, on an error, none.
func (c *Container) Update(r *specs.LinuxResources) error {
	if !c.State.Alive() {
		return errdef.New(errdef.Conflict, "cannot update container %s: it is not running", c.State.ID)
	}
	if err := needCgroups(&c.State, "update"); err != nil {
		return err
	}
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	l = cgroup.Only(l, c.State.Cgroups)
	if r, err = cgroup.Complete(c.State.Cgroups, r); err != nil {
		return err
	}
	r = compile.DefaultRules(r)
	steps, err := plan.Update(l, c.State.CgroupPath, r)
	if err != nil {
		return err
	}
	if err := updateUnit(&c.State, l, r); err != nil {
		return fmt.Errorf("update container %s: %w", c.State.ID, err)
	}
	if err := cgroup.Change(steps); err != nil {
		return fmt.Errorf("update container %s: %w", c.State.ID, err)
	}
	return nil
}
