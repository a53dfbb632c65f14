// Package machine owns what the engine knows of the machine, and how it acts on its containers' control groups, whichever version
// of them there is.
//
// It promises to touch nothing but cgroup directories below the path that it is given. It must never move a process.
package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// Tree implements container.Cgroups.
type Tree struct{ Layout plan.Layout }

// Detect finds the machine's hierarchies and the facts that specifications are built from.
func Detect() (Tree, spec.Host, error) {
	l, err := cgroup.Detect()
	if err != nil {
		return Tree{}, spec.Host{}, err
	}
	h, err := facts(Tree{l})
	return Tree{l}, h, err
}

// V2 reports whether the machine has nothing but the unified hierarchy.
func (t Tree) V2() bool { return t.Layout.Mode == plan.V2 }

// Swap reports whether swap is limited per cgroup.
func (t Tree) Swap() bool {
	if t.V2() {
		// The root has no memory.swap.max: the controller's presence and the kernel's option are asked of a child, which every system has.
		list, err := filepath.Glob(filepath.Join(t.Layout.Unified, "*", "memory.swap.max"))
		return err == nil && len(list) > 0
	}
	for _, c := range t.Layout.Controllers {
		if slices.Contains(c.Names, "memory") {
			_, err := os.Stat(filepath.Join(c.Mount, "memory.memsw.limit_in_bytes"))
			return err == nil
		}
	}
	return false
}

// Destroy implements container.Cgroups.
func (t Tree) Destroy(ctx context.Context, path string) error {
	dirs, err := plan.Dirs(t.Layout, path)
	if err != nil {
		return err
	}
	if !exists(dirs) {
		return nil
	}
	if err := cgroup.Thaw(dirs); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("thaw cgroup %s: %w", path, err)
	}
	for {
		if err := cgroup.Kill(dirs); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		left, err := cgroup.Pids(dirs)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return errdef.New(errdef.Unavailable, "cgroup %s: processes %v do not die: %w", path, left, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return cgroup.Remove(dirs)
}

func exists(dirs []plan.Dir) bool {
	return slices.ContainsFunc(dirs, func(d plan.Dir) bool { _, err := os.Stat(d.Path); return err == nil })
}

// Pids implements container.Cgroups.
func (t Tree) Pids(path string) ([]int, error) {
	dirs, err := plan.Dirs(t.Layout, path)
	if err != nil {
		return nil, err
	}
	return cgroup.Pids(dirs)
}

// Stats implements container.Cgroups.
func (t Tree) Stats(path string) (container.Usage, error) {
	dirs, err := plan.Dirs(t.Layout, path)
	if err != nil {
		return container.Usage{}, err
	}
	s, err := cgroup.Read(dirs)
	if err != nil {
		return container.Usage{}, err
	}
	u := container.Usage{
		CPU: s.CPU.Total, CPUUser: s.CPU.User, CPUSystem: s.CPU.System,
		Periods: s.CPU.Periods, Throttled: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.ThrottledTime,
		Memory: s.Memory.Usage, MemoryPeak: s.Memory.Peak, MemoryLimit: s.Memory.Limit, MemoryFailures: s.Memory.Failures, MemoryStat: s.Memory.Detail,
		Pids: s.Pids.Current, PidsLimit: s.Pids.Limit,
	}
	for _, d := range s.BlockIO {
		u.ReadBytes, u.WriteBytes, u.Reads, u.Writes = u.ReadBytes+d.ReadBytes, u.WriteBytes+d.WriteBytes, u.Reads+d.ReadOps, u.Writes+d.WriteOps
	}
	return u, nil
}

// Children implements container.Cgroups: the names in any hierarchy.
func (t Tree) Children(path string) ([]string, error) {
	dirs, err := plan.Dirs(t.Layout, path)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, d := range dirs {
		list, err := os.ReadDir(d.Path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.IsDir() {
				found[e.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// RemoveEmpty removes path itself and its empty ancestors, as long as nobody has put anything there.
func (t Tree) RemoveEmpty(path string) {
	dirs, err := plan.Dirs(t.Layout, path)
	if err != nil {
		return
	}
	for _, d := range dirs {
		for _, p := range slices.Backward(d.Parents()) {
			if os.Remove(p) != nil { // rmdir(2): a cgroup with children or processes stays
				break
			}
		}
	}
}
