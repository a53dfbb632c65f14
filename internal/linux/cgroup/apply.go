package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"golang.org/x/sys/unix"
)

// Apply carries out steps in order; pid is who joins. It stops at the first failure and undoes nothing: Remove does.
func Apply(steps []plan.Step, pid int) error {
	for i := range steps {
		if err := step(&steps[i], pid); err != nil {
			return err
		}
	}
	return nil
}

func step(s *plan.Step, pid int) error {
	err := act(s, pid)
	if s.Else != nil && errors.Is(err, unix.ENOENT) {
		return step(s.Else, pid)
	}
	if s.Then != nil && err == nil {
		return step(s.Then, pid)
	}
	var errno unix.Errno
	if err == nil || errors.As(err, &errno) && tolerated(s.Tolerate, errno) {
		return nil
	}
	if s.Kind == plan.Write || s.Kind == plan.Check {
		return fmt.Errorf("%s: %s %q to %s: %w%s", s.Why, s.Kind, s.Value, s.Path, err, hint(s, err))
	}
	return fmt.Errorf("%s: %s %s: %w%s", s.Why, s.Kind, s.Path, err, hint(s, err))
}

func tolerated(list []uint, errno unix.Errno) bool {
	for _, e := range list {
		if unix.Errno(e) == errno {
			return true
		}
	}
	return false
}

// hint is what to do about the errors people meet.
func hint(s *plan.Step, err error) string {
	file := path.Base(s.Path)
	switch {
	case errors.Is(err, unix.EINVAL) && file == "memory.limit_in_bytes":
		return "; v1 wants memory and swap together to be at least that, set memory.swap as well"
	case errors.Is(err, unix.EINVAL) && file == "memory.memsw.limit_in_bytes":
		return "; it is memory and swap together, and must be at least memory.limit"
	case errors.Is(err, unix.EINVAL) && file == "cpu.cfs_quota_us":
		return "; an ancestor's quota for its period is less, or the burst is more"
	case errors.Is(err, unix.EBUSY) && s.Kind == plan.Check:
		return "; that much is in use now, and memory.checkBeforeUpdate forbids to push it out"
	case errors.Is(err, unix.ENODEV) && s.Kind == plan.Write:
		return "; there is no such device"
	case errors.Is(err, unix.ENOENT):
		if _, gone := os.Stat(path.Dir(s.Path)); errors.Is(gone, os.ErrNotExist) {
			return "; the cgroup is gone"
		}
		return "; this kernel or hierarchy has no such setting"
	case errors.Is(err, unix.EBUSY):
		return "; more is in use than the new limit allows, or the cgroup has processes of its own"
	case errors.Is(err, unix.EROFS):
		return "; the hierarchy is mounted read-only here"
	}
	return ""
}

func act(s *plan.Step, pid int) error {
	switch s.Kind {
	case plan.Mkdir:
		return unix.Mkdir(s.Path, 0o755)
	case plan.Write:
		return write(s.Path, s.Value)
	case plan.Copy:
		have, err := read(s.Path, maxFile)
		if err != nil || strings.TrimSpace(string(have)) != "" {
			return err
		}
		value, err := read(s.From, maxFile)
		if err != nil {
			return err
		}
		return write(s.Path, strings.TrimSpace(string(value)))
	case plan.Check:
		return atMost(s.Path, s.Value)
	case plan.Devices:
		return LoadDevices(s.Path, s.Program)
	case plan.DeviceRules:
		return changeDevices(s.Path, s.Rules)
	case plan.Join:
		if pid <= 0 {
			return errdef.New(errdef.InvalidArgument, "no process to join with")
		}
		return write(s.Path, strconv.Itoa(pid))
	}
	return errdef.New(errdef.NotImplemented, "unknown kind of step %v", s.Kind)
}

func atMost(file, limit string) error {
	have, err := readUint(path.Dir(file), path.Base(file))
	if err != nil {
		return err
	}
	want, err := strconv.ParseUint(limit, 10, 64)
	if err != nil {
		return err
	}
	if have > want {
		return unix.EBUSY
	}
	return nil
}
