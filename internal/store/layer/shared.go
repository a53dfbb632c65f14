package layer

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/probe"
)

// shared are the EROFS mounts that all containers of an image have in common: what one of them has read, the next finds in memory, and
// programs and libraries that many run are there once. A mount goes with what Merge made of its chain, with the store, and with the process;
// containers that use it keep it.
type shared struct {
	once    sync.Once
	works   bool // overlayfs takes a mount that is attached nowhere, and takes it again
	mu      sync.Mutex
	held    map[digest.Digest]*held   // by chain ID
	lent    map[digest.Digest][]*lent // by chain ID; Lend's
	closing []chan struct{}           // one is closed with each mount that was let go
}

// held is one of the mounts.
type held struct {
	root *os.File
	of   []inode // the files below it
}

type inode struct{ dev, ino uint64 }

// Share returns the root of the mount that all users of m have in common, made if need be, and closed by the caller; nil where there is none:
// for folders, for loop devices, over which all mounts are one file system anyway, and before Linux 6.15. Lower then names this descriptor, and is good for as long as it is open.
func (m *Merged) Share() (*os.File, error) {
	if m.lent {
		return shareLent(m)
	}
	if m.Index == "" {
		return nil, nil
	}
	readAhead(m.Index)
	if m.Lower[0].Loop {
		return nil, nil
	}
	s := &m.store.shared
	if s.once.Do(func() { s.works = probe.Has(probe.OverlayDetached) }); !s.works {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of, err := inodes(append(m.Devices[:len(m.Devices):len(m.Devices)], m.Index))
	if err != nil {
		return nil, fmt.Errorf("merged layers %s: %w", m.ChainID, err)
	}
	h := s.held[m.ChainID]
	if h == nil || !slices.Equal(h.of, of) { // a repair puts other files in their places
		s.dropLocked(m.ChainID)
		root, err := MountErofs(m.Index, m.Devices, false)
		if err != nil {
			return nil, err
		}
		if s.held == nil {
			s.held = map[digest.Digest]*held{}
		}
		h = &held{root, of}
		s.held[m.ChainID] = h
	}
	return m.give(h.root)
}

// give returns a descriptor of a mount of m's layers, and has Lower name it.
func (m *Merged) give(root *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("merged layers %s: F_DUPFD_CLOEXEC: %w", m.ChainID, err)
	}
	m.Lower[0].Mounted = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	return os.NewFile(uintptr(fd), m.Index), nil
}

// readAhead has the kernel begin to read an index, its first 32 MiB at most. EROFS asks for a page at a time and waits for each: with nothing
// cached, looking at 110,000 files would wait 3,400 times. Where it is cached it costs a few microseconds for each MiB. What fails here fails
// again, and is told, when the index is used.
func readAhead(index string) {
	f, err := os.Open(index)
	if err != nil {
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return
	}
	const step = 128 << 10 // the kernel cuts a wish to what the disk reads ahead: 128 KiB unless somebody has set it (read_ahead_kb)
	for at := int64(0); at < min(st.Size(), 32<<20); at += step {
		if unix.Fadvise(int(f.Fd()), at, step, unix.FADV_WILLNEED) != nil {
			return
		}
	}
}

func inodes(paths []string) ([]inode, error) {
	of := make([]inode, len(paths))
	for i, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: p, Err: err}
		}
		of[i] = inode{st.Dev, st.Ino}
	}
	return of, nil
}

// drop lets a mount go. Nobody waits for it: where it was the last, the kernel forgets all that has been read by it.
func (s *shared) drop(chain digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(chain)
}

func (s *shared) dropLocked(chain digest.Digest) {
	if h := s.held[chain]; h != nil {
		delete(s.held, chain)
		done := make(chan struct{})
		s.closing = append(s.closing, done)
		go func() {
			defer close(done)
			h.root.Close()
		}()
	}
}

// settle waits until what was let go holds no file any more.
func (s *shared) settle() {
	s.mu.Lock()
	all := s.closing
	s.closing = nil
	s.mu.Unlock()
	for _, done := range all {
		<-done
	}
}

// Close lets the shared mounts go; containers that use them keep them. It waits for what is being freed: the next start would have to.
func (s *Store) Close() {
	s.shared.mu.Lock()
	for chain := range s.shared.held {
		s.shared.dropLocked(chain)
	}
	s.shared.mu.Unlock()
	<-s.Free()
	s.shared.settle()
}
