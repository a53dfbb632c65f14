package oci

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Signal sends a signal to the container's first process, or with all to every process in its cgroups as well. SIGKILL reaches frozen
// processes, and all that share the first one's PID namespace with others, whom the kernel does not end with it.
func (c *Container) Signal(sig syscall.Signal, all bool) error {
	if sig == syscall.SIGKILL && (all || c.State.SharedPids) {
		if err := killAll(c); err != nil {
			return err
		}
		return signalInit(c, sig, nil) // which others may have moved out
	}
	if all {
		pids, err := Pids(&c.State)
		if err == nil {
			err = signalInit(c, sig, pids)
		}
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := c.signalMember(pid, sig); err != nil {
				return fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		return nil
	}
	fd, err := unix.PidfdOpen(c.State.Pid, 0)
	if err != nil || !c.State.Alive() {
		if err == nil {
			unix.Close(fd)
		}
		return errdef.New(errdef.Conflict, "container not running: %q", c.State.ID)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal container %s: %w", c.State.ID, err)
	}
	if sig == syscall.SIGKILL {
		if frozen(&c.State) { // cgroup v1 keeps the dead frozen
			return cgroup.Thaw(c.State.Cgroups)
		}
	}
	return nil
}

// signalInit signals the first process if it is alive and none of those.
func signalInit(c *Container, sig syscall.Signal, but []int) error {
	fd, err := unix.PidfdOpen(c.State.Pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if slices.Contains(but, c.State.Pid) || !c.State.Alive() {
		return nil
	}
	if err := ignoreGone(unix.PidfdSendSignal(fd, sig, nil, 0)); err != nil {
		return fmt.Errorf("signal container %s: %w", c.State.ID, err)
	}
	return nil
}

// signalMember signals one process of the container's cgroups. The PID is looked up again once a pidfd pins it, so that a process of the
// host that got the number meanwhile is left alone.
func (c *Container) signalMember(pid int, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd)
	now, err := Pids(&c.State)
	if err != nil {
		return err
	}
	if !slices.Contains(now, pid) {
		return nil
	}
	return ignoreGone(unix.PidfdSendSignal(fd, sig, nil, 0))
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// SharesPids tells whether the container has no PID namespace of its own.
func SharesPids(s *bundle.Spec) bool {
	return s.Linux == nil || !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace && n.Path == "" })
}
