package oci

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
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

// Update changes the limits of a running container.
func (c *Container) Update(r *specs.LinuxResources) error {
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	steps, err := plan.Update(l, c.State.CgroupPath, r)
	if err != nil {
		return err
	}
	return cgroup.Apply(steps, c.State.Pid)
}
