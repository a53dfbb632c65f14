package cgroup

import (
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// Writable leaves in a layout the hierarchies in which we may make the cgroup at cgroupsPath: those whose nearest existing folder on
// the way is ours to write.
func Writable(l plan.Layout, cgroupsPath string) (plan.Layout, error) {
	dirs, err := plan.Dirs(l, cgroupsPath)
	if err != nil {
		return l, err
	}
	l = Only(l, slices.DeleteFunc(slices.Clone(dirs), func(d plan.Dir) bool { return !mayMake(d) }))
	if i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.V2 }); i >= 0 && l.Unified != "" {
		l.UnifiedOurs = handsDown(dirs[i])
	}
	return l, nil
}

// handsDown finds the highest folder on the way to a v2 cgroup whose controllers we may hand down; those above are somebody else's, who has
// done it or not. What does not exist yet will be ours.
func handsDown(d plan.Dir) string {
	for _, p := range append([]string{d.Mount}, d.Parents()...) {
		if err := unix.Faccessat(unix.AT_FDCWD, path.Join(p, "cgroup.subtree_control"), unix.W_OK, unix.AT_EACCESS); err == nil || err == unix.ENOENT {
			return p
		}
	}
	return d.Path
}

// Only leaves in a layout the hierarchies of dirs.
func Only(l plan.Layout, dirs []plan.Dir) plan.Layout {
	has := func(mount string) bool {
		return slices.ContainsFunc(dirs, func(d plan.Dir) bool { return d.Mount == mount })
	}
	l.Controllers = slices.DeleteFunc(slices.Clone(l.Controllers), func(c plan.Controller) bool { return !has(c.Mount) })
	if l.Unified != "" && !has(l.Unified) {
		l.Unified, l.UnifiedControllers = "", nil
	}
	return l
}

func mayMake(d plan.Dir) bool {
	for p := d.Path; len(p) >= len(d.Mount); p = path.Dir(p) {
		err := unix.Faccessat(unix.AT_FDCWD, p, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if err != unix.ENOENT {
			return err == nil
		}
	}
	return false
}
