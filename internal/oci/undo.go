package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// madeGroups returns the groups of resctrl that a program made before it failed, the last one first. Unlike a cgroup, one that belongs to
// others can be removed, so it must be known to be ours.
func madeGroups(p *prog.Program, err error) (dirs []string) {
	end := len(p.Ins)
	if step := (*interp.StepError)(nil); errors.As(err, &step) {
		end = min(end, max(step.Index, 0))
	}
	for i := end - 1; i >= 0; i-- {
		if in := &p.Ins[i]; in.Undo != "" && strings.HasPrefix(in.Why, "linux.intelRdt") {
			dirs = append(dirs, in.Undo)
		}
	}
	return dirs
}

// removeDirs removes the folders in resctrl that go with the container; one that is not there any more, or never was, is no error.
func removeDirs(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}
