// Package spill owns memory that may lie on the disk: arrays that are too large for memory and are needed for a while only.
//
// It promises that what it gives is zeroed and stays where it is until Close, that the kernel can take all but the first bytes back
// when it has better use for them, and that a full disk costs memory, not the work. It must never leave anything on the disk.
package spill

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

const (
	// keep is what a Space takes of the heap before it begins to use the disk, in bytes: most never do.
	keep = 8 << 20
	// most bounds the file; what goes beyond is of the heap.
	most = 1 << 30
	// step is how much of the file is allocated at once, and how much of it comes into memory before Relax is due.
	step = 4 << 20
)

// Space is memory for arrays that go together. A nil Space is the heap. It belongs to one goroutine.
type Space struct {
	dir    string
	heap   int    // bytes of the heap that are given out
	file   []byte // the mapping of a nameless file in dir, most bytes; nil: none yet
	fd     int
	room   int // how much of it is allocated
	used   int
	failed bool
}

// New returns a Space that uses a nameless file in dir when it grows beyond 8 MiB.
func New(dir string) *Space { return &Space{dir: dir, fd: -1} }

// Close gives everything back; no array of the Space may be touched after it.
func (s *Space) Close() {
	if s == nil || s.file == nil {
		return
	}
	_ = unix.Munmap(s.file)
	_ = unix.Close(s.fd)
	s.file, s.failed = nil, true
}

// Relax takes what lies on the disk out of this process's memory, though not out of the page cache. It is for those who go through much.
func (s *Space) Relax() {
	if s != nil && s.file != nil {
		_ = unix.Madvise(s.file[:s.used], unix.MADV_DONTNEED) // a shared mapping: the pages stay in the file
	}
}

// take returns n zeroed bytes of the file, at a multiple of 64; nil: of the heap, please.
func (s *Space) take(n int) []byte {
	if s == nil || s.failed {
		return nil
	}
	if s.file == nil {
		if s.heap += n; s.heap <= keep {
			return nil
		}
		if s.failed = s.open() != nil; s.failed {
			return nil
		}
	}
	at := (s.used + 63) &^ 63
	if at+n > most {
		return nil
	}
	if at+n > s.room {
		more := (at + n - s.room + step - 1) / step * step
		if unix.Fallocate(s.fd, 0, int64(s.room), int64(more)) != nil { // a hole would be a fault on a full disk
			s.failed = true
			return nil
		}
		s.room += more
		s.Relax()
	}
	s.used = at + n
	return s.file[at:s.used:s.used]
}

func (s *Space) open() (err error) {
	s.fd, err = unix.Open(s.dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err != nil { // a file system without nameless files
		f, err := os.CreateTemp(s.dir, "spill-")
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		if s.fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
	}
	if s.file, err = unix.Mmap(s.fd, 0, most, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		_ = unix.Close(s.fd)
		return fmt.Errorf("map a file in %s: %w", filepath.Clean(s.dir), err)
	}
	return nil
}

// Guard runs f, which works with arrays of a Space. When the disk fails to give one of them back, that is f's error and not the end of the process.
func Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		fault := recover()
		if at, ok := fault.(interface {
			error
			Addr() uintptr
		}); ok {
			err = errdef.New(errdef.System, "a table that was put on the disk cannot be read back: %w", at)
		} else if fault != nil {
			panic(fault)
		}
	}()
	return f()
}
