package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
)

// stage makes a folder under tmp/ that Sweep leaves alone until drop is called; drop also removes what is still in it.
func (s *Store) stage(kind string) (dir string, drop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err = os.MkdirTemp(filepath.Join(s.dir, tmpDir), kind+"-")
	if err != nil {
		return "", nil, fmt.Errorf("stage %s: %w", kind, err)
	}
	name := filepath.Base(dir)
	s.staged[name] = struct{}{}
	return dir, func() {
		RemoveTree(dir)
		s.mu.Lock()
		delete(s.staged, name)
		s.mu.Unlock()
	}, nil
}

// publish gives a staged folder, whose files are synced, its name, durably. That it exists already is no error: it is the same.
func publish(stage, final string) error {
	if err := atomicfile.SyncDir(stage); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, stage, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	if err != nil && err != unix.EEXIST {
		return &os.LinkError{Op: "rename", Old: stage, New: final, Err: err}
	}
	return atomicfile.SyncDir(filepath.Dir(final))
}

// discard makes a folder vanish at once; Free gives its space back. It makes no new file: a full disk has no room for one.
func (s *Store) discard(path, what string) error {
	gone := filepath.Join(s.dir, tmpDir, "rm-"+id.New()[:16])
	err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, gone, unix.RENAME_NOREPLACE)
	if err == unix.ENOENT {
		return errdef.New(errdef.NotFound, "%s: not in the store", what)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", what, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, gone)
	return nil
}

// Free begins to give back the space of what was removed, and tells when all of that is done. Who removes calls it once at the end, and
// waits only when the space matters. One goroutine at a time is at work; it ends by itself, and what a crash leaves of its work is swept.
func (s *Store) Free() (done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.freed; len(s.gone) > 0 {
		gone, freed := s.gone, make(chan struct{})
		s.gone, s.freed = nil, freed
		go func() {
			defer close(freed)
			<-before
			free(s, gone)
		}()
	}
	return s.freed
}

// free removes folders that have lost their names, when that is on the disk: none must come back that is not whole.
func free(s *Store, gone []string) {
	s.shared.settle()
	for _, d := range []string{shaDir, mergedDir} {
		if atomicfile.SyncDir(filepath.Join(s.dir, d)) != nil {
			return // the next Sweep removes them
		}
	}
	for _, p := range gone {
		RemoveTree(p)
	}
}

// Sweep removes what a crash left half made. It may run at any time.
func (s *Store) Sweep() error {
	<-s.Free()
	ents, err := os.ReadDir(filepath.Join(s.dir, tmpDir))
	if err != nil {
		return fmt.Errorf("sweep layers: %w", err)
	}
	var errs []error
	for _, e := range ents {
		s.mu.Lock()
		_, used := s.staged[e.Name()]
		s.mu.Unlock()
		if !used {
			errs = append(errs, RemoveTree(filepath.Join(s.dir, tmpDir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// writeSync writes a small file and syncs it; its folder is synced by publish.
func writeSync(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, func(f *os.File) error { _, err := f.Write(append(b, '\n')); return err })
}

func writeFile(path string, fill func(f *os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return f.Close()
}

// flights lets one goroutine at a time work on a key.
type flights struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

// enter returns a function to call at the end when the caller is the one; otherwise it waits for that one and returns nil.
func (f *flights) enter(ctx context.Context, key string) (leave func(), err error) {
	f.mu.Lock()
	if f.m == nil {
		f.m = map[string]chan struct{}{}
	}
	c, busy := f.m[key]
	if !busy {
		c = make(chan struct{})
		f.m[key] = c
		f.mu.Unlock()
		return func() {
			f.mu.Lock()
			delete(f.m, key)
			f.mu.Unlock()
			close(c)
		}, nil
	}
	f.mu.Unlock()
	select {
	case <-c:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
