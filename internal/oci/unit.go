package oci

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// place says where the container's cgroup will be: in a scope that systemd makes, or where we make it ourselves, as far as we may.
func place(o *CreateOptions, in *compile.Input) (err error) {
	f := &in.Facts
	if _, owned := compile.CgroupOwner(f.Cgroup, o.Spec); owned {
		f.Delegate = cgroup.Delegated()
	}
	if !o.Systemd {
		in.CgroupPath = cgroupPath(o, f.Rootless)
		if f.Rootless {
			f.Cgroup, err = cgroup.Writable(f.Cgroup, in.CgroupPath)
		}
		return err
	}
	var where string
	var r *specs.LinuxResources
	if o.Spec.Linux != nil {
		where, r = o.Spec.Linux.CgroupsPath, compile.DefaultRules(o.Spec.Linux.Resources)
	}
	uid := 0
	if f.Rootless {
		uid = cgroup.CallerUID()
		if r != nil { // rules for devices are not an ordinary user's to load
			limits := *r
			limits.Devices = nil
			r = &limits
		}
	}
	if in.Unit, err = plan.NewUnit(f.Cgroup, where, o.ID, uid); err != nil {
		return err
	}
	in.CgroupPath = in.Unit.Path
	if f.Rootless && f.Cgroup.Mode != plan.V2 { // systemd gives users nothing on v1 but its own hierarchy
		if f.Cgroup, err = cgroup.Writable(f.Cgroup, in.CgroupPath); err != nil {
			return err
		}
	}
	return in.Unit.Describe(f.Cgroup, o.ID, r, o.Spec.Annotations)
}

// startUnit returns what makes the container's unit around a process; nil where there is none to make.
func startUnit(u *plan.Unit) func(pid int) error {
	if u == nil {
		return nil
	}
	return func(pid int) error { return cgroup.StartScope(u, pid) }
}

func scopeOf(s *state.State) cgroup.Scope { return cgroup.Scope{Name: s.Unit, User: s.UserUnit} }

// removeCgroups removes the container's unit, where it has one, and its cgroups. What is gone already is no error.
func removeCgroups(s *state.State) error {
	if err := scopeOf(s).Stop(); err != nil {
		return fmt.Errorf("remove cgroup of container %s: %w", s.ID, err)
	}
	return cgroup.Remove(s.Cgroups)
}

// updateUnit tells systemd of new limits before they are written.
func updateUnit(s *state.State, l plan.Layout, r *specs.LinuxResources) error {
	if s.Unit == "" {
		return nil
	}
	properties, err := plan.UnitLimits(l, r)
	if err != nil {
		return err
	}
	return scopeOf(s).Set(properties)
}

// cgroupHint is what to do when a cgroup could not be made, limited or entered.
func cgroupHint(in *prog.Ins, e syscall.Errno) string {
	switch {
	case e == syscall.EOPNOTSUPP && strings.HasPrefix(in.Why, "linux.resources"):
		return "the device or the kernel does not have this setting; weights need the I/O scheduler bfq"
	case e == syscall.EOPNOTSUPP:
		return "the cgroup is threaded or lies below a threaded one, where no container can be: choose another linux.cgroupsPath"
	case e == syscall.EBUSY && in.Why == "linux.resources":
		return "a cgroup on the way has processes of its own and so hands no controllers down: choose another linux.cgroupsPath"
	case e == syscall.EBUSY:
		return "more is in use than the limit allows, or the cgroup hands controllers down and takes no processes"
	case e == syscall.EAGAIN && in.Op == prog.Clone:
		return "pids.limit, of the container or of a cgroup above it, or our user's RLIMIT_NPROC is reached"
	case e == syscall.ENOENT && strings.HasPrefix(in.Why, "linux.resources"):
		return "this kernel has no such setting, or the controller is not handed down to this cgroup"
	case e == syscall.EROFS:
		return "the cgroup hierarchy is mounted read-only here"
	case e == syscall.EPERM || e == syscall.EACCES:
		return "are we root, with the needed capabilities?"
	}
	return ""
}
