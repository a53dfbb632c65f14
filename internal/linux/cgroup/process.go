package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"golang.org/x/sys/unix"
)

// How often and how long we wait for the kernel: freezing and dying take microseconds to milliseconds, a process in
// uninterruptible sleep longer.
const (
	firstWait = 50 * time.Microsecond
	maxWait   = 20 * time.Millisecond
	patience  = 5 * time.Second
)

// until calls done until it says so, with growing pauses, for at most patience.
func until(done func() (bool, error)) (bool, error) {
	deadline := time.Now().Add(patience)
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		ok, err := done()
		if ok || err != nil || time.Now().After(deadline) {
			return ok, err
		}
		time.Sleep(wait)
	}
}

// home is the hierarchy we look for processes in: v2, else the freezer's, else pids', else the first.
func home(dirs []plan.Dir) (plan.Dir, error) {
	if len(dirs) == 0 {
		return plan.Dir{}, errdef.New(errdef.Unavailable, "the container has no cgroup: who made it could make none")
	}
	for _, d := range dirs {
		if err := check(d); err != nil {
			return plan.Dir{}, err
		}
	}
	for _, want := range []func(plan.Dir) bool{
		func(d plan.Dir) bool { return d.V2 },
		func(d plan.Dir) bool { return d.Has("freezer") },
		func(d plan.Dir) bool { return d.Has("pids") },
	} {
		if i := slices.IndexFunc(dirs, want); i >= 0 {
			return dirs[i], nil
		}
	}
	return dirs[0], nil
}

// Pids lists the container's processes, those of cgroups it made below included, in ascending order. A directory that is gone has none.
func Pids(dirs []plan.Dir) ([]int, error) {
	d, err := home(dirs)
	if err != nil {
		return nil, err
	}
	pids, err := pidsBelow(d.Path, 0)
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// Occupant returns a process that lives in one of the directories, or below, before the container does; 0 where there is none. It looks
// where processes are looked for that are to be signalled.
func Occupant(dirs []plan.Dir) (pid int, where string, err error) {
	for i, d := range dirs {
		if i > 0 && !d.V2 && !d.Has("freezer") && !d.Has("pids") {
			continue
		}
		pids, err := pidsBelow(d.Path, 0)
		if err != nil {
			return 0, "", err
		}
		if len(pids) > 0 {
			return pids[0], d.Path, nil
		}
	}
	return 0, "", nil
}

// maxDepth bounds the walk; the kernel's paths end at 4096 bytes anyway.
const maxDepth = 512

func pidsBelow(dir string, depth int) ([]int, error) {
	b, err := read(path.Join(dir, "cgroup.procs"), 16<<20)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, nil
	case errors.Is(err, unix.EOPNOTSUPP): // a threaded cgroup: its domain lists the processes
		b = nil
	case err != nil:
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		// 0 is a process our pid namespace does not show.
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	children, err := subdirs(dir)
	if err != nil || depth >= maxDepth {
		return pids, err
	}
	for _, c := range children {
		more, err := pidsBelow(path.Join(dir, c), depth+1)
		if err != nil {
			return pids, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Kill sends SIGKILL to every process of the container, those forked meanwhile too, and does not wait for them to be gone.
func Kill(dirs []plan.Dir) error {
	if len(dirs) == 0 { // a container of a user who may make no cgroups
		return nil
	}
	d, err := home(dirs)
	if err != nil {
		return err
	}
	if d.V2 {
		err := write(path.Join(d.Path, "cgroup.kill"), "1") // Linux 5.14
		if err == nil {
			return killLeft(dirs)
		}
		if _, gone := os.Stat(d.Path); errors.Is(gone, os.ErrNotExist) {
			return killLeft(dirs)
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("kill cgroup %s: %w", d.Path, err)
		}
	}
	return killListed(dirs, d)
}

// killLeft makes sure that no v1 hierarchy lists a process that the unified one did not: someone may have moved it there.
func killLeft(dirs []plan.Dir) error {
	if i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.Has("freezer") && !d.V2 }); i >= 0 {
		// A frozen process takes its SIGKILL once thawed.
		if err := setFrozen(dirs[i], false); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		pids, err := pidsBelow(dirs[i].Path, 0)
		if err != nil || len(pids) == 0 {
			return err
		}
		return killListed(dirs, dirs[i])
	}
	return nil
}

// killListed signals what the directory lists until it lists nothing new. Frozen, the processes can neither fork nor end
// (so no pid can change hands); where freezing fails, each pid is pinned by a pidfd and looked up again before it is signalled.
func killListed(dirs []plan.Dir, d plan.Dir) error {
	seen := make(map[int]bool)
	_, err := until(func() (bool, error) {
		frozen := Freeze(dirs) == nil
		pids, err := pidsBelow(d.Path, 0)
		if err == nil {
			err = signal(d, pids)
		}
		if frozen {
			err = errors.Join(err, Thaw(dirs))
		}
		fresh := false
		for _, pid := range pids {
			fresh = fresh || !seen[pid]
			seen[pid] = true
		}
		return frozen || !fresh, err
	})
	return err
}

func signal(d plan.Dir, pids []int) error {
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH || err == unix.EINVAL { // gone, or a thread now
			continue
		}
		if err != nil {
			return fmt.Errorf("open process %d: %w", pid, err)
		}
		fds[pid] = fd
	}
	still, err := pidsBelow(d.Path, 0)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := fds[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

// Freeze stops all processes of the container and returns once they are stopped.
func Freeze(dirs []plan.Dir) error { return freezer(dirs, true) }

// Thaw lets them run again.
func Thaw(dirs []plan.Dir) error { return freezer(dirs, false) }

// Frozen reports whether the container is frozen.
func Frozen(dirs []plan.Dir) (bool, error) {
	d, err := freezerDir(dirs)
	if err != nil {
		return false, err
	}
	return isFrozen(d)
}

func freezerDir(dirs []plan.Dir) (plan.Dir, error) {
	if _, err := home(dirs); err != nil {
		return plan.Dir{}, err
	}
	if i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.Has("freezer") && !d.V2 }); i >= 0 {
		return dirs[i], nil
	}
	if i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.V2 }); i >= 0 {
		return dirs[i], nil
	}
	return plan.Dir{}, errdef.New(errdef.Unavailable, "freeze: neither a v1 freezer nor a v2 hierarchy is mounted")
}

func freezer(dirs []plan.Dir, on bool) error {
	d, err := freezerDir(dirs)
	if err != nil {
		return err
	}
	verb := "thaw"
	if on {
		verb = "freeze"
	}
	ok, err := until(func() (bool, error) {
		// v1 can miss a process that forks while it freezes and stay FREEZING; saying it again helps.
		if err := setFrozen(d, on); err != nil {
			return false, err
		}
		frozen, err := isFrozen(d)
		return frozen == on, err
	})
	if !on && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)) {
		if _, gone := os.Stat(d.Path); errors.Is(gone, os.ErrNotExist) { // removed meanwhile: nobody is in it
			return nil
		}
	}
	if err == nil && !ok {
		err = errdef.New(errdef.Unavailable, "not done after %v; a process is in uninterruptible sleep", patience)
		if on {
			err = errors.Join(err, setFrozen(d, false))
		}
	}
	if err != nil {
		return fmt.Errorf("%s cgroup %s: %w", verb, d.Path, err)
	}
	return nil
}

func setFrozen(d plan.Dir, on bool) error {
	switch {
	case d.V2 && on:
		return write(path.Join(d.Path, "cgroup.freeze"), "1")
	case d.V2:
		return write(path.Join(d.Path, "cgroup.freeze"), "0")
	case on:
		return write(path.Join(d.Path, "freezer.state"), "FROZEN")
	}
	return write(path.Join(d.Path, "freezer.state"), "THAWED")
}

func isFrozen(d plan.Dir) (bool, error) {
	if d.V2 {
		b, err := read(path.Join(d.Path, "cgroup.events"), maxFile)
		return parseKeyed(b)["frozen"] == 1, err
	}
	b, err := read(path.Join(d.Path, "freezer.state"), maxFile)
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

// Remove removes the container's directories and those below them; what is gone already is no error. It waits a little for
// processes that are just ending and fails with EBUSY if some stay.
func Remove(dirs []plan.Dir) error {
	var errs []error
	for _, d := range dirs {
		if err := check(d); err != nil {
			errs = append(errs, err)
			continue
		}
		var last error
		ok, err := until(func() (bool, error) {
			last = removeTree(d.Path, 0)
			if errors.Is(last, unix.EBUSY) {
				return false, nil
			}
			return true, last
		})
		if err == nil && !ok {
			err = last
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", d.Path, err))
		}
	}
	return errors.Join(errs...)
}

// RemoveEmpty removes the directories if they hold no process and nothing below, and tells whether all are gone. It does not wait.
func RemoveEmpty(dirs []plan.Dir) bool {
	for _, d := range dirs {
		if check(d) != nil {
			return false
		}
		if err := unix.Rmdir(d.Path); err != nil && err != unix.ENOENT {
			return false
		}
	}
	return true
}

func removeTree(dir string, depth int) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if _, gone := os.Lstat(dir); errors.Is(gone, os.ErrNotExist) { // rmdir(2) says EROFS before it looks
		return nil
	}
	if err != unix.EBUSY && err != unix.ENOTEMPTY || depth >= maxDepth {
		return err
	}
	children, lerr := subdirs(dir)
	if lerr != nil || len(children) == 0 {
		return err
	}
	for _, c := range children {
		if err := removeTree(path.Join(dir, c), depth+1); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != unix.ENOENT {
		return err
	}
	return nil
}

// Unified returns where a process is in the v2 hierarchy, as a path from that hierarchy's root.
func Unified(pid int) (string, error) {
	file := "/proc/" + strconv.Itoa(pid) + "/cgroup"
	b, err := read(file, maxFile)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok && path.IsAbs(p) {
			return path.Clean(p), nil
		}
	}
	return "", errdef.New(errdef.NotFound, "%s: no line of the v2 hierarchy", file)
}
