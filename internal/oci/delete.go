package oci

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// Delete removes what the container left: cgroups and state. One that still runs is an error, or with force is killed first.
// Deleting twice is no error.
func (c *Container) Delete(force bool) error {
	if c.init == nil { // else it is ours from the beginning
		lock, gone, err := claim(c, force)
		if gone || err != nil {
			return err
		}
		defer lock.release(false)
	}
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != state.Stopped && status != state.Creating {
		if !force && status != state.Created {
			return errdef.New(errdef.Conflict, "cannot delete container %s that is not stopped: %s", c.State.ID, status)
		}
	}
	if status != state.Stopped || c.State.Unit != "" || !cgroup.RemoveEmpty(c.State.Cgroups) { // what can be removed holds nobody who would have to be killed
		if err := killAll(c); err != nil {
			return err
		}
		if status != state.Stopped && status != state.Creating {
			c.killInit()
		}
		if err := removeCgroups(&c.State); err != nil {
			return err
		}
	}
	if c.running != nil {
		c.running.Forget()
		c.running = nil
	}
	if err := removeDirs(c.State.Removes); err != nil {
		return err
	}
	var last *specs.Hooks
	if !c.State.NoHooks {
		if s, err := c.Spec(); err == nil { // a part of what is removed now; a bundle that is gone has no hooks left to run
			last = s.Hooks
		}
	}
	if err := removeState(c.dir()); err != nil {
		return fmt.Errorf("remove state of container %s: %w", c.State.ID, err)
	}
	return c.poststop(last)
}

// killInit kills the first process, which may be in no cgroup of ours any more, and waits until it is gone.
func (c *Container) killInit() {
	fd, err := unix.PidfdOpen(c.State.Pid, 0)
	if err != nil || !c.State.Alive() {
		if err == nil {
			unix.Close(fd)
		}
		return
	}
	defer unix.Close(fd)
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	}
}
