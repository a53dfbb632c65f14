package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/checkpoint"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// CheckpointOptions are what may be asked of Checkpoint and Restore.
type CheckpointOptions = checkpoint.Options

// Checkpoint saves a running container. Unless it shall run on it has ended then, and Delete removes what is left.
func Checkpoint(c *Container, o *CheckpointOptions) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != state.Running && status != state.Paused {
		return errdef.New(errdef.Conflict, "container %s cannot be checkpointed: it is %s", c.State.ID, status)
	}
	s, err := c.Spec()
	if err != nil {
		return err
	}
	if c.State.Notify != "" {
		return errdef.New(errdef.NotImplemented, "container %s cannot be checkpointed: it reports to a service manager (NOTIFY_SOCKET)", c.State.ID)
	}
	if _, err := os.Stat(filepath.Join(c.State.Bundle, "rootfs.json")); err == nil {
		return errdef.New(errdef.NotImplemented, "container %s cannot be checkpointed: its root is put together from an engine's layers (rootfs.json)", c.State.ID)
	}
	err = checkpoint.Dump(&checkpoint.Container{PID: c.State.Pid, Alive: c.State.Alive, Bundle: c.State.Bundle, Rootfs: c.State.Rootfs, Spec: s, Cgroups: c.State.Cgroups}, o)
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", c.State.ID, err)
	}
	return nil
}

// Restore makes a container from a checkpoint: its processes go on where they were. The bundle must be the one it was made from, or one
// like it. Its first process is a child of this process.
func Restore(o CreateOptions, r *CheckpointOptions) (_ *Container, err error) {
	defer unix.Umask(unix.Umask(0o022))
	dir, lock, err := newFolder(&o)
	if err != nil {
		return nil, err
	}
	defer func() { lock.release(err != nil) }()
	if o.Rootfs != nil {
		return nil, errdef.New(errdef.NotImplemented, "restore container %s: its root is put together from an engine's layers (rootfs.json)", o.ID)
	}
	in, closeFacts, err := input(&o, "")
	if err != nil {
		return nil, err
	}
	defer closeFacts()
	if in.Facts.Rootless {
		return nil, errdef.New(errdef.Forbidden, "restore container %s: criu needs root", o.ID)
	}
	p, err := compile.Compile(in) // the same config that create would refuse
	if err != nil {
		return nil, err
	}
	warn(o.Warn, p)
	steps, err := plan.Create(in.Facts.Cgroup, in.CgroupPath, compile.DefaultRules(o.Spec.Linux.Resources))
	if err != nil {
		return nil, err
	}
	dirs, err := in.CgroupDirs()
	if err == nil && in.Unit == nil {
		err = unoccupied(dirs)
	}
	if err != nil {
		return nil, err
	}
	c := &Container{root: o.Root, spec: o.Spec, Warn: o.Warn, State: state.State{Version: specs.Version, ID: o.ID, Bundle: o.Bundle, Rootfs: rootOf(&o),
		Created: time.Now().UTC(), CgroupPath: in.CgroupPath, Cgroups: dirs, Annotations: o.Spec.Annotations, SharedPids: SharesPids(o.Spec), NoNewKeyring: o.NoNewKeyring, Keyring: in.Keyring}}
	if in.Unit != nil {
		c.State.Unit, c.State.UserUnit = in.Unit.Name, in.Unit.User
	}
	if o.Config != nil {
		if err := os.WriteFile(filepath.Join(dir, bundle.ConfigFile), o.Config, 0o600); err != nil {
			return nil, err
		}
	}
	if err := state.Save(dir, &c.State); err != nil { // before anything exists: whoever finds it can take it back
		return nil, err
	}
	if err := watchRestored(o.Root, o.ID, o.Spec); err != nil {
		return nil, err
	}
	if err := (restoring{c}).run(&o, r, dir, cgroupsOf(in.Unit, steps)); err != nil {
		err = fmt.Errorf("restore container %s: %w", o.ID, err)
		if rmErr := (restoring{c}).takeBack(); rmErr != nil {
			err = fmt.Errorf("%w (and undoing it: %v)", err, rmErr)
		}
		return nil, err
	}
	return c, nil
}

// cgroupsOf returns what makes the cgroups around a process: the scope first, where systemd makes one.
func cgroupsOf(u *plan.Unit, steps []plan.Step) func(pid int) error {
	scope := startUnit(u)
	return func(pid int) error {
		if scope != nil {
			if err := scope(pid); err != nil {
				return err
			}
		}
		return cgroup.Apply(steps, pid)
	}
}

// restoring is a container that is being restored.
type restoring struct{ *Container }

func (c restoring) run(o *CreateOptions, r *CheckpointOptions, dir string, join func(pid int) error) error {
	place := filepath.Join(dir, "criu-root")
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	defer os.Remove(place)
	run := checkpoint.Restorer{
		Container: checkpoint.Container{Bundle: o.Bundle, Rootfs: c.State.Rootfs, Spec: o.Spec, Cgroups: c.State.Cgroups},
		Stdio:     o.Stdio, Place: place, Console: o.Console, Keyring: c.State.Keyring,
		Join:       join,
		Namespaces: c.hooks,
		Born: func(pid int) error {
			if err := c.born(pid, dir); err != nil {
				return fmt.Errorf("first process %d: %w", pid, err)
			}
			return nil
		},
	}
	return run.Run(r)
}

// restoreHooks runs what create runs when the namespaces exist.
func (c restoring) hooks(pid int) error {
	h := c.spec.Hooks
	if h == nil {
		return nil
	}
	for _, kind := range []struct {
		name string
		list []specs.Hook
		//lint:ignore SA1019 the spec deprecates it and still requires it of runtimes
	}{{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}} {
		for i, one := range kind.list {
			call := prog.HookCall{Kind: kind.name, Path: one.Path, Args: one.Args, Env: one.Env}
			if one.Timeout != nil {
				call.Timeout = *one.Timeout
			}
			if err := c.hook(call, pid); err != nil {
				return fmt.Errorf("hooks.%s[%d]: %w", kind.name, i, err)
			}
		}
	}
	return nil
}

// takeBack removes what a failed restore left in the container's cgroups, and them; what createRuntime hooks made poststop hooks take back.
func (c restoring) takeBack() error {
	err := cgroup.Kill(c.State.Cgroups)
	if err == nil {
		err = removeCgroups(&c.State)
	}
	return errors.Join(err, c.poststop(c.spec.Hooks))
}
