package oci

import (
	"errors"
	"os"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// enter compiles and runs an exec. A v2 cgroup that the container has handed controllers down from takes no process (EBUSY, EOPNOTSUPP
// where it made it threaded); then, unless the caller named the cgroup, the process goes where the container's first one is.
func (c *Container) enter(in compile.ExecInput, o *ExecOptions) (*interp.Running, error) {
	env := interp.Env{Trace: o.Trace != nil, Terminal: func(fd int) error {
		if o.Console == nil {
			syscall.Close(fd)
			return errdef.New(errdef.InvalidArgument, "process.terminal is set but nobody takes the terminal (console socket)")
		}
		return o.Console(os.NewFile(uintptr(fd), "console"))
	}, Listener: listenerOf(&c.State, in.Spec, specs.StateRunning), Wait: o.Wait}
	for again := false; ; again = true {
		p, err := compile.Exec(in)
		if err != nil {
			return nil, err
		}
		if !again {
			warn(o.Warn, p)
		}
		r, err := interp.Run(p, env)
		if err == nil && r.Parked() { // its seccomp listener is handed on
			err = r.Release()
		}
		if err == nil {
			return r, trace(o.Trace, p, r.Times())
		}
		if !again && len(o.Cgroup) == 0 && c.State.UserUnit && failedToJoin(p, err, syscall.EACCES, syscall.EPERM) {
			in.Scope = c.State.Unit // an ordinary user may not move processes from one part of the hierarchy to another; systemd may
			env.Unit = func(pid int) error { return scopeOf(&c.State).Attach(pid) }
			continue
		}
		if !again && len(o.Cgroup) == 0 && failedToJoin(p, err, syscall.EBUSY, syscall.EOPNOTSUPP) {
			if own, err := cgroup.Unified(c.State.Pid); err == nil {
				var other bool
				if in.Cgroups, other = plan.Same(in.Cgroups, own); other {
					continue
				}
			}
		}
		if err = explain(p, err); !c.State.Alive() {
			err = errdef.New(errdef.Conflict, "cannot exec in a stopped container: %q: %w", c.State.ID, err)
		}
		return nil, err
	}
}

// failedToJoin tells whether a program failed with one of these errnos because a cgroup does not take the process.
func failedToJoin(p *prog.Program, err error, errnos ...syscall.Errno) bool {
	var step *interp.StepError
	if !errors.As(err, &step) || step.Index < 0 || step.Index >= len(p.Ins) {
		return false
	}
	in := &p.Ins[step.Index]
	return slices.Contains(errnos, step.Errno) && (in.Op == prog.Clone || in.Why == "linux.cgroupsPath")
}
