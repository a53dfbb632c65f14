package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"golang.org/x/sys/unix"
)

// OOMWatch tells of a container's running out of memory.
type OOMWatch struct {
	dir   plan.Dir
	file  *os.File // eventfd (v1) or inotify (v2)
	seen  uint64   // v2: kills told of
	close sync.Once
}

// WatchOOM begins to watch; what happened before is not told. It needs the memory controller.
func WatchOOM(dirs []plan.Dir) (*OOMWatch, error) {
	for _, d := range dirs {
		if !d.Has("memory") {
			continue
		}
		if err := check(d); err != nil {
			return nil, err
		}
		w, err := watchV1(d)
		if d.V2 {
			w, err = watchV2(d)
		}
		if err != nil {
			return nil, fmt.Errorf("watch for out of memory in %s: %w", d.Path, err)
		}
		return w, nil
	}
	return nil, errdef.New(errdef.Unavailable, "watch for out of memory: no memory cgroup controller here")
}

// watchV1 has the kernel count events into an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, OOM Control).
func watchV1(d plan.Dir) (*OOMWatch, error) {
	if d.V2 {
		return nil, nil
	}
	control, err := open(path.Join(d.Path, "memory.oom_control"), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(control) // the kernel needs it only to register
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err := write(path.Join(d.Path, "cgroup.event_control"), strconv.Itoa(fd)+" "+strconv.Itoa(control)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &OOMWatch{dir: d, file: os.NewFile(uintptr(fd), "eventfd")}, nil
}

// watchV2 uses that the kernel says IN_MODIFY of two files (Documentation/admin-guide/cgroup-v2.rst), up to 10 ms late and not at all when
// the cgroup is removed before; that is told by the folder above.
func watchV2(d plan.Dir) (*OOMWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{dir: d, file: os.NewFile(uintptr(fd), "inotify")}
	for name, what := range map[string]uint32{"memory.events": unix.IN_MODIFY, "cgroup.events": unix.IN_MODIFY, "..": unix.IN_DELETE} {
		if _, err := unix.InotifyAddWatch(fd, path.Join(d.Path, name), what); err != nil {
			w.file.Close()
			return nil, err
		}
	}
	if w.seen, err = OOMKills([]plan.Dir{d}); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// Wait returns true when the container ran out of memory since the last call, false when there is nothing more to wait for: its cgroup
// is gone or (v2) empty, or Close was called.
func (w *OOMWatch) Wait() (bool, error) {
	var buf [4096]byte
	for {
		n, err := w.file.Read(buf[:])
		if errors.Is(err, os.ErrClosed) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("watch for out of memory: %w", err)
		}
		if !w.dir.V2 {
			if _, err := os.Lstat(w.dir.Path); err != nil {
				return false, nil // the kernel counts the removal, too
			}
			if n >= 8 && binary.NativeEndian.Uint64(buf[:]) > 0 {
				return true, nil
			}
			continue
		}
		kills, err := OOMKills([]plan.Dir{w.dir})
		if err == nil && kills > w.seen {
			w.seen = kills
			return true, nil
		}
		b, eventsErr := read(path.Join(w.dir.Path, "cgroup.events"), maxFile)
		if err != nil || eventsErr != nil || parseKeyed(b)["populated"] == 0 {
			return false, nil
		}
	}
}

// Close ends Wait. It may be called from anywhere, more than once.
func (w *OOMWatch) Close() { w.close.Do(func() { w.file.Close() }) }
