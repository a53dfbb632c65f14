// Package partial owns the beginnings of blobs that were not fetched whole: what a pull that broke off, or an engine that died, had of a layer.
//
// It promises that a blob's beginning has one owner at a time, that one that cannot be written ends itself and never the pull, and that what
// nobody continues goes after a day, or when there is too much of it. Nothing is synced: a beginning is a hint, and the digest of the whole
// decides. It must never be taken for a blob.
package partial

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

const (
	// Least is what a blob must have for its beginning to be kept. A smaller one comes in about the time that asking for it takes.
	Least = 1 << 20
	// keep is how long a beginning waits for the next try, most is what all that wait may take, where there is room times that.
	keep = 24 * time.Hour
	most = 16 << 30
	// room is how many times a blob's size must be free: it lies there beside the layer that is made of it, which needs the room more.
	room = 4
)

// Store is a folder of beginnings, files that blobs' digests name. It is safe for concurrent use; one process at a time may have it open.
type Store struct {
	dir string

	mu   sync.Mutex // held while files get or lose their names
	busy map[digest.Digest]bool
}

// Open opens the folder, which is created if need be.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open partial blobs: %w", err)
	}
	return &Store{dir: dir, busy: map[digest.Digest]bool{}}, nil
}

// Dir is the folder.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(d digest.Digest) string { return filepath.Join(s.dir, d.Encoded()) }

// Take makes the caller the owner of what is here of a blob, and of what he appends, until he calls Keep or Drop. It is nil, which is as good
// as an empty one that forgets, for a blob that is not worth it, one that has an owner, and where there is no room or no file can be made.
func (s *Store) Take(d digest.Digest, size int64) *Blob {
	if _, err := ref.ParseDigest(d.String()); err != nil || size < Least {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[d] {
		return nil
	}
	s.sweep(keep, most)
	f, err := os.OpenFile(s.path(d), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil
	}
	b := &Blob{s: s, d: d, f: f}
	st, err := f.Stat()
	if err == nil {
		if b.end = st.Size(); b.end > size { // of something else, and nobody knows what
			b.end, err = 0, f.Truncate(0)
		}
	}
	if err != nil || !st.Mode().IsRegular() || (free(s.dir)+b.end)/room < size {
		b.stop()
		return nil
	}
	b.had = b.end
	s.busy[d] = true
	return b
}

// free is how many bytes a file system has left.
func free(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(min(st.Bavail*uint64(st.Bsize), math.MaxInt64/2))
}

// entry is a beginning that nobody owns.
type entry struct {
	d    digest.Digest
	size int64 // on disk
	used time.Time
}

// idle lists them, the youngest first. Files that are not the store's are not among them. Call it with mu held.
func (s *Store) idle() (all []entry, err error) {
	es, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list partial blobs: %w", err)
	}
	for _, e := range es {
		d, err := ref.ParseDigest("sha256:" + e.Name())
		if err != nil || s.busy[d] || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil {
			all = append(all, entry{d, du.Of(s.path(d)), st.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.d, b.d)) })
	return all, nil
}

// sweep removes what nobody owns and is older than age, or more than most, or than its share of the file system. Call it with mu held.
func (s *Store) sweep(age time.Duration, most int64) (removed int, freed int64, err error) {
	all, err := s.idle()
	var total, sum int64
	for _, e := range all {
		total += e.size
	}
	most = min(most, (free(s.dir)+total)/room)
	for _, e := range all {
		if since := time.Since(e.used).Abs(); since < age && sum+e.size <= most {
			sum += e.size
			continue
		}
		if rerr := os.Remove(s.path(e.d)); rerr != nil {
			err = cmp.Or(err, fmt.Errorf("remove partial blob: %w", rerr))
			continue
		}
		removed, freed = removed+1, freed+e.size
	}
	return removed, freed, err
}

// Sweep removes what has waited too long, and what is too much.
func (s *Store) Sweep() (removed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	removed, _, err = s.sweep(keep, most)
	return removed, err
}

// Clear removes all that nobody owns, and tells how much room that gave.
func (s *Store) Clear() (freed int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, freed, err = s.sweep(0, 0)
	return freed, err
}

// Idle is what Clear would give.
func (s *Store) Idle() (size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, _ := s.idle() // what could be read counts
	for _, e := range all {
		size += e.size
	}
	return size
}

// Remove removes the beginnings of these blobs that nobody owns; one that is absent is no error.
func (s *Store) Remove(ds ...digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		if !s.busy[d] {
			os.Remove(s.path(d))
		}
	}
}
