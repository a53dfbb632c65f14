package layer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Ingest takes a layer's uncompressed tar from r and keeps it when its digest is want (DataLoss otherwise). It is there whole once
// Ingest returns nil, and nothing of it is left after an error. A layer that is there already, or comes in by another goroutine
// meanwhile, is not read again: r may be left unread. Cancelling ctx takes effect between reads of r.
func (s *Store) Ingest(ctx context.Context, want digest.Digest, r io.Reader) (Info, error) {
	for {
		info, err := s.Info(want)
		if err == nil || !errdef.Is(err, errdef.NotFound) {
			return info, err
		}
		leave, err := s.flights.enter(ctx, want.String())
		if err != nil {
			return Info{}, fmt.Errorf("ingest layer %s: %w", want, err)
		}
		if leave == nil {
			continue
		}
		if info, err = s.Info(want); errdef.Is(err, errdef.NotFound) { // it may have come just before we entered
			info, err = s.ingest(ctx, want, r)
		}
		leave()
		if err != nil {
			return Info{}, fmt.Errorf("ingest layer %s: %w", want, err)
		}
		return info, nil
	}
}

func (s *Store) ingest(ctx context.Context, want digest.Digest, r io.Reader) (Info, error) {
	dir, drop, err := s.stage("layer")
	if err != nil {
		return Info{}, err
	}
	defer drop()
	f, err := os.OpenFile(filepath.Join(dir, tarFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	p := tarindex.New(s.limits)
	size, sum, err := pump(ctx, r, f, p)
	if err != nil {
		return Info{}, err
	}
	if got := digest.NewDigestFromBytes(digest.SHA256, sum); got != want {
		return Info{}, errdef.New(errdef.DataLoss, "content has the digest %s", got)
	}
	root, err := p.Finish()
	if err != nil {
		return Info{}, err
	}
	info := Info{DiffID: want, Size: size, Entries: p.Entries(), Foreign: p.Foreign(), Implicit: implicit(root)}
	if err := writeFile(filepath.Join(dir, treeFile), func(f *os.File) error { return tree.Encode(f, root) }); err != nil {
		return Info{}, err
	}
	if err := s.shape(dir, root, f, want, size); err != nil {
		return Info{}, err
	}
	if err := writeSync(filepath.Join(dir, infoFile), info); err != nil {
		return Info{}, err
	}
	if err := f.Sync(); err != nil {
		return Info{}, err
	}
	return info, publish(dir, s.path(want))
}

// implicit reports whether a directory besides the root has no entry of its own.
func implicit(root *tree.Inode) bool {
	found := errors.New("found")
	return tree.Walk(root, func(_ string, _, i *tree.Inode) error {
		if i.IsDir() && i.Dir.Implicit {
			return found
		}
		return nil
	}) != nil
}

const (
	pieceSize = 512 << 10
	pieces    = 4
	// writeback is how many bytes are written before the kernel is told to begin with the disk, so that the final sync is short.
	writeback = 8 << 20
)

// pump copies r into f, the parser and SHA-256; hashing runs beside reading, writing and parsing.
func pump(ctx context.Context, r io.Reader, f *os.File, p *tarindex.Parser) (size int64, sum []byte, err error) {
	free, full := make(chan []byte, pieces), make(chan []byte, pieces)
	for range pieces {
		free <- make([]byte, pieceSize)
	}
	h := sha256.New()
	done := make(chan struct{})
	go func() { hashPieces(h, free, full); close(done) }() // ends when full is closed
	defer func() {
		close(full)
		<-done
		sum = h.Sum(nil)
	}()
	var flushed int64
	for {
		if err := ctx.Err(); err != nil {
			return size, nil, err
		}
		buf := <-free
		n, rerr := fill(r, buf[:pieceSize])
		if n > 0 {
			full <- buf[:n]
			if _, err := f.Write(buf[:n]); err != nil {
				return size, nil, err
			}
			if _, err := p.Write(buf[:n]); err != nil {
				return size, nil, err
			}
			size += int64(n)
		}
		if size-flushed >= writeback {
			_ = unix.SyncFileRange(int(f.Fd()), flushed, size-flushed, unix.SYNC_FILE_RANGE_WRITE) // a hint only
			flushed = size
		}
		if rerr == io.EOF {
			return size, nil, nil
		}
		if rerr != nil {
			return size, nil, rerr
		}
	}
}

// hashPieces hashes and hands back. The buffers' readers in pump may still be at work on a piece when it is handed back, but
// pump overwrites only what it takes from free itself, after it is done with the piece before.
func hashPieces(h hash.Hash, free chan<- []byte, full <-chan []byte) {
	for b := range full {
		h.Write(b)
		free <- b[:cap(b)]
	}
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
