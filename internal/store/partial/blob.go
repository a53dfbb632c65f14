package partial

import (
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Blob is the beginning of a blob, in the hands of its owner. It is for one goroutine at a time. A nil one has nothing and keeps nothing.
type Blob struct {
	s        *Store
	d        digest.Digest
	f        *os.File // nil once it has ended
	had, end int64
}

// Len is how many bytes there were when it was taken.
func (b *Blob) Len() int64 {
	if b == nil {
		return 0
	}
	return b.had
}

// ReadAt reads what was there. A file that cannot be read is ended.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if b == nil || b.f == nil {
		return 0, io.EOF
	}
	n, err := b.f.ReadAt(p, off)
	if err != nil {
		b.stop()
	}
	return n, err
}

// Append keeps what follows. A file that cannot be written is ended, which frees its room.
func (b *Blob) Append(p []byte) {
	if b == nil || b.f == nil {
		return
	}
	n, err := b.f.WriteAt(p, b.end)
	if b.end += int64(n); err != nil {
		b.stop()
	}
}

// stop removes the file.
func (b *Blob) stop() {
	os.Remove(b.s.path(b.d))
	b.f.Close()
	b.f = nil
}

// Keep leaves the file for the next try, if there is anything in it.
func (b *Blob) Keep() { b.leave(false) }

// Drop removes the file.
func (b *Blob) Drop() { b.leave(true) }

func (b *Blob) leave(drop bool) {
	if b == nil {
		return
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	delete(b.s.busy, b.d)
	switch {
	case b.f == nil:
	case drop || b.end == 0:
		b.stop()
	default:
		b.f.Close()
		b.f = nil
	}
}
