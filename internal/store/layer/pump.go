package layer

import (
	"context"
	"crypto/sha256"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
)

const (
	pieceSize = 512 << 10
	pieces    = 6
	// writeback is how many bytes are written before the kernel is told to begin with the disk, so that the final sync is short.
	writeback = 8 << 20
)

// pump copies r into the parser, the sink and SHA-256, each at work on another piece: reading and parsing here, writing and
// hashing in a goroutine each, which have ended when pump returns.
func pump(ctx context.Context, r io.Reader, p *tarindex.Parser, out *sink) (size int64, sum []byte, err error) {
	ring, err := unix.Mmap(-1, 0, pieces*pieceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, nil, os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(ring)
	free := make(chan []byte, pieces)
	for n := range pieces {
		free <- ring[n*pieceSize : (n+1)*pieceSize : (n+1)*pieceSize]
	}
	toWrite, toHash := make(chan []byte, pieces), make(chan []byte, pieces)
	failed, done := make(chan error, 1), make(chan struct{})
	go func() { // ends when toWrite is closed
		defer close(toHash)
		var err error
		for b := range toWrite {
			if err == nil {
				if err = out.write(b); err != nil {
					failed <- err
				}
			}
			toHash <- b
		}
	}()
	h := sha256.New()
	go func() { // ends when toHash is closed
		defer close(done)
		for b := range toHash {
			h.Write(b)
			free <- b[:pieceSize]
		}
	}()
	size, err = feed(ctx, r, p, free, toWrite, failed)
	close(toWrite)
	<-done
	select {
	case err = <-failed:
	default:
	}
	return size, h.Sum(nil), err
}

// feed reads and parses until r ends or a write has failed, whose error stays in failed.
func feed(ctx context.Context, r io.Reader, p *tarindex.Parser, free <-chan []byte, toWrite chan<- []byte, failed <-chan error) (size int64, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		if len(failed) > 0 {
			return size, nil
		}
		buf := <-free
		n, rerr := fill(r, buf)
		if n > 0 {
			if _, err := p.Write(buf[:n]); err != nil {
				return size, err
			}
			toWrite <- buf[:n]
			size += int64(n)
		}
		if rerr == io.EOF {
			return size, nil
		}
		if rerr != nil {
			return size, rerr
		}
	}
}

// sink is the tar being written, through the page cache: a direct write would keep its thread, and Go's scheduler notices late that others
// could run meanwhile.
type sink struct {
	f             *os.File
	size, flushed int64
}

func (s *sink) write(b []byte) error {
	if _, err := s.f.Write(b); err != nil {
		return err
	}
	s.size += int64(len(b))
	if s.size-s.flushed >= writeback {
		_ = unix.SyncFileRange(int(s.f.Fd()), s.flushed, s.size-s.flushed, unix.SYNC_FILE_RANGE_WRITE) // a hint only
		s.flushed = s.size
	}
	return nil
}

// fill reads until buf is full or r ends; a reader that gives nothing for ever is refused.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && err == nil; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
		if m > 0 {
			idle = 0
		} else if idle++; idle > 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}
