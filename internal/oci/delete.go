package oci

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Delete removes what the container left: cgroups and state. One that still runs is an error, or with force is killed first.
// Deleting twice is no error.
func (c *Container) Delete(force bool) error {
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

// removeState removes the state folder: what every container has there by name, the state itself last, and what else there is by looking.
func removeState(dir string) error {
	for _, name := range []string{state.Program, bundle.ConfigFile, state.File} {
		unix.Unlink(filepath.Join(dir, name))
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	return removeFolder(dir)
}

// Discard removes what a creation or removal that was cut off left of a container without a state. What is not there is no error.
func Discard(root, id string) error {
	if err := state.ValidID(id); err != nil {
		return err
	}
	return removeFolder(filepath.Join(root, id))
}

// removeFolder removes a state folder and lets go of the mounts that it may hold.
func removeFolder(dir string) error {
	for range 2 { // mostly there is nothing; else what holds a mount namespace, and what that lies on
		if unix.Unmount(filepath.Join(dir, state.Mounts), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			break
		}
	}
	return os.RemoveAll(dir)
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
