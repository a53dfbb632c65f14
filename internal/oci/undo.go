package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/netdev"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// netDevices are the network devices that a container being made was given.
type netDevices struct{ moved []*netdev.Moved }

func (d *netDevices) move(name, as string, ns int) error {
	m, err := netdev.Move(name, as, ns)
	if err == nil {
		d.moved = append(d.moved, m)
	}
	return err
}

// back returns them to where they were, the last one first.
func (d *netDevices) back() error {
	var errs []error
	for i := len(d.moved) - 1; i >= 0; i-- {
		if err := d.moved[i].Back(); err != nil {
			errs = append(errs, fmt.Errorf("take a network device back: %w", err))
		}
	}
	return errors.Join(errs...)
}

// stay leaves them to the container: when its network namespace ends the kernel returns physical devices to the host and removes others.
func (d *netDevices) stay() {
	for _, m := range d.moved {
		m.Close()
	}
}

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
