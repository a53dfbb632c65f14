// Package snapshot owns the writable side of containers: an upper and a work folder over a chain of layers.
//
// It promises that Prepare leaves a whole snapshot or none, also when the power fails, that Remove makes one vanish at once, and that nothing is ever
// attached to the host's mount tree: mounts are given out as data (bundle.Rootfs) or as a detached descriptor. It must never
// know what a container is, nor change a layer.
//
// On disk: ID/{snapshot.json,upper,work}, an empty .scratch, and names that begin with a dot while they come or go.
package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Store is a folder of snapshots. Its methods may be called concurrently, for one ID by one goroutine at a time.
type Store struct {
	dir    string
	layers *layer.Store
}

// record is snapshot.json.
type record struct {
	Chain []digest.Digest `json:"chain"`
	Flat  bool            `json:"flat,omitempty"` // a copy of the layers, not something over them
}

// written is the folder that a container writes to.
func (r record) written() string {
	if r.Flat {
		return flatDir
	}
	return upperDir
}

const (
	recordFile = "snapshot.json"
	upperDir   = "upper"
	workDir    = "work"
	flatDir    = "fs"
	scratchDir = ".scratch" // one for all: everybody attaches there in a mount namespace of its own
	coming     = ".new-"
	going      = ".rm-"
)

// Open opens the store in dir, which is created if need be.
func Open(dir string, layers *layer.Store) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, scratchDir), 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	return &Store{dir: dir, layers: layers}, nil
}

func (s *Store) path(id string, name ...string) string {
	return filepath.Join(append([]string{s.dir, id}, name...)...)
}

// Dir is the folder of a snapshot.
func (s *Store) Dir(id string) string { return s.path(id) }

func check(id string) error {
	if id == "" || len(id) > 128 || strings.HasPrefix(id, ".") || strings.ContainsAny(id, "/\x00") {
		return errdef.New(errdef.InvalidArgument, "snapshot %.150q: no valid ID", id)
	}
	return nil
}

// Prepare makes a writable snapshot over a chain of layers (diff IDs, lowest first; it may be empty) and returns its mounts.
func (s *Store) Prepare(ctx context.Context, id string, chain []digest.Digest) (bundle.Rootfs, error) {
	if err := check(id); err != nil {
		return bundle.Rootfs{}, err
	}
	if _, err := os.Lstat(s.path(id)); err == nil {
		return bundle.Rootfs{}, errdef.New(errdef.Conflict, "snapshot %s: exists already", id)
	}
	m, err := s.layers.Merge(ctx, chain)
	if err != nil {
		return bundle.Rootfs{}, fmt.Errorf("prepare snapshot %s: %w", id, err)
	}
	rec := record{Chain: chain, Flat: m.Folder != ""}
	if err := s.make(ctx, id, rec, m); err != nil {
		return bundle.Rootfs{}, fmt.Errorf("prepare snapshot %s: %w", id, err)
	}
	return s.rootfs(id, rec, m), nil
}

func (s *Store) make(ctx context.Context, id string, rec record, m layer.Merged) (err error) {
	dir, err := os.MkdirTemp(s.dir, coming)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			layer.RemoveTree(dir)
		}
	}()
	if rec.Flat {
		err = m.Copy(ctx, filepath.Join(dir, flatDir))
	} else {
		err = errors.Join(os.Mkdir(filepath.Join(dir, upperDir), 0o700), os.Mkdir(filepath.Join(dir, workDir), 0o700))
	}
	if err != nil {
		return err
	}
	if err = dress(filepath.Join(dir, rec.written()), m.Root); err != nil {
		return err
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err = writeSync(filepath.Join(dir, recordFile), append(b, '\n')); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.path(id), unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		return errdef.New(errdef.Conflict, "exists already")
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: dir, New: s.path(id), Err: err}
	}
	// The folder is not synced: a flush costs more than all of the above, and every later sync, be it of the container's record or
	// of a file in the snapshot, carries the rename along, since file systems keep the order of their metadata.
	return nil
}

// writeSync writes a new file whose folder nobody knows yet, so there is no need for a temporary name.
func writeSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return f.Close()
}

// dress gives the folder that a container writes to the attributes of the merged root, because overlayfs shows the topmost root's.
func dress(dir string, root layer.Root) error {
	r, err := safepath.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	h := r.File()
	if err := safepath.Chown(h, root.UID, root.GID); err != nil {
		return err
	}
	if err := safepath.Chmod(h, root.Mode); err != nil {
		return err
	}
	for name, v := range root.Xattrs {
		if err := safepath.Setxattr(h, name, v); err != nil {
			return err
		}
	}
	return safepath.Chtimes(h, root.Sec, int64(root.Nsec))
}

func (s *Store) rootfs(id string, rec record, m layer.Merged) bundle.Rootfs {
	if rec.Flat {
		return bundle.Rootfs{Folder: s.path(id, flatDir), Scratch: s.path(scratchDir)}
	}
	if m.Folder != "" { // made while layers had another form: an overlay over the whole
		m.Lower = []bundle.Layer{{Type: layer.FormDir, Source: m.Folder}}
	}
	return bundle.Rootfs{
		Lower:   m.Lower,
		Upper:   s.path(id, upperDir),
		Work:    s.path(id, workDir),
		Scratch: s.path(scratchDir),
	}
}

// Chain returns the layers that a snapshot was made of, lowest first.
func (s *Store) Chain(id string) ([]digest.Digest, error) {
	r, err := s.record(id)
	return r.Chain, err
}

// maxRecord is more than a snapshot.json can have.
const maxRecord = 1 << 20

func (s *Store) record(id string) (r record, err error) {
	if err := check(id); err != nil {
		return r, err
	}
	f, err := atomicfile.Open(s.path(id, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, errdef.New(errdef.NotFound, "snapshot %s: does not exist", id)
	}
	if err != nil {
		return r, fmt.Errorf("read snapshot: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return r, fmt.Errorf("read snapshot: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, errdef.New(errdef.DataLoss, "snapshot %s: parse %s: %w", id, recordFile, err)
	}
	return r, nil
}

// Rootfs returns the mounts of a snapshot again; a merged index that is gone is made anew.
func (s *Store) Rootfs(ctx context.Context, id string) (bundle.Rootfs, error) {
	rec, err := s.record(id)
	if err != nil || rec.Flat { // which needs its layers no more
		return s.rootfs(id, rec, layer.Merged{}), err
	}
	m, err := s.layers.Merge(ctx, rec.Chain)
	if err != nil {
		return bundle.Rootfs{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return s.rootfs(id, rec, m), nil
}

// Open returns the mounts of a snapshot over a mount of its layers that all snapshots of the chain have in common, where there may be one. They are
// good until the file, which may be nil, is closed.
func (s *Store) Open(ctx context.Context, id string) (bundle.Rootfs, *os.File, error) {
	rec, err := s.record(id)
	if err != nil || rec.Flat {
		return s.rootfs(id, rec, layer.Merged{}), nil, err
	}
	m, err := s.layers.Merge(ctx, rec.Chain)
	if err != nil {
		return bundle.Rootfs{}, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	f, err := m.Share()
	if err != nil {
		return bundle.Rootfs{}, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return s.rootfs(id, rec, m), f, nil
}

// Remove removes a snapshot. Its name is free at once, its space when Remove returns. An absent one is NotFound.
func (s *Store) Remove(ctx context.Context, id string) error {
	if err := check(id); err != nil {
		return err
	}
	grave := s.path(going + id + "-" + strconv.FormatUint(rand.Uint64(), 36))
	err := os.Rename(s.path(id), grave)
	if err == nil {
		err = layer.RemoveTree(grave)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.New(errdef.NotFound, "snapshot %s: does not exist", id)
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

// Sweep removes what a crash left half made or half removed. It must not run beside Prepare or Remove.
func (s *Store) Sweep() error {
	ents, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("sweep snapshots: %w", err)
	}
	var errs []error
	for _, e := range ents {
		if strings.HasPrefix(e.Name(), coming) || strings.HasPrefix(e.Name(), going) {
			errs = append(errs, layer.RemoveTree(s.path(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// List returns the IDs of all snapshots, sorted.
func (s *Store) List() ([]string, error) {
	ents, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, e := range ents {
		if check(e.Name()) == nil && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Usage counts what a container has written: allocated bytes and inodes, hard links once. Files that vanish meanwhile are not counted.
func (s *Store) Usage(id string) (bytes int64, inodes int64, err error) {
	rec, err := s.record(id)
	if err != nil {
		return 0, 0, err
	}
	var c du.Counter
	if rec.Flat {
		err = s.Changes(context.Background(), id, func(ch upper.Change) error {
			if ch.File != nil {
				c.Count(ch.Stat)
			}
			return nil
		})
	} else {
		err = c.Add(s.path(id, upperDir))
	}
	if errors.Is(err, fs.ErrNotExist) && !errdef.Is(err, errdef.NotFound) {
		return 0, 0, errdef.New(errdef.NotFound, "snapshot %s: does not exist", id)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("measure snapshot %s: %w", id, err)
	}
	return c.Bytes, c.Inodes, nil
}
