package registry

import (
	"context"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sending is the body of an upload: counted, digested, and under a clock while the peer is to take bytes. The time that the
// bytes take to be made does not count. The HTTP transport may read it after it gave an answer, hence the lock.
type sending struct {
	stall, finish time.Duration

	mu    sync.Mutex
	r     io.ReadCloser
	sum   hash.Hash
	n     int64
	eof   bool
	err   error
	timer *time.Timer
}

func newSending(r io.ReadCloser, stall, finish time.Duration) *sending {
	return &sending{r: r, sum: digest.SHA256.Hash(), stall: stall, finish: finish}
}

// guard cancels when the peer takes nothing for too long, from now on.
func (b *sending) guard(cancel context.CancelCauseFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(b.finish, func() { cancel(errSlow) })
}

func (b *sending) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *sending) Read(q []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	n, err := b.r.Read(q)
	b.sum.Write(q[:n])
	b.n += int64(n)
	wait := b.stall
	switch {
	case err == io.EOF:
		b.eof, wait = true, b.finish
	case err != nil:
		b.err = err
	}
	if b.timer != nil {
		b.timer.Reset(wait)
	}
	return n, err
}

// Close makes a reader that is at work return.
func (b *sending) Close() error { return b.r.Close() }

// failure is what the source itself failed with.
func (b *sending) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *sending) count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

func (b *sending) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eof
}

// descriptor is what was sent; it must be what was promised.
func (b *sending) descriptor(want Source) (ocispec.Descriptor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if want.Size >= 0 && want.Size == b.n {
		b.eof = true // a body of a known length is not read to its end
	}
	d := ocispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, b.sum), Size: b.n}
	switch {
	case !b.eof:
		return d, errdef.New(errdef.DataLoss, "push: the registry answered before it had the blob")
	case want.Digest != "" && want.Digest != d.Digest, want.Size >= 0 && want.Size != d.Size:
		return d, errdef.New(errdef.DataLoss, "push: the blob is no longer what it was: %s of %d bytes, promised %s of %d", d.Digest, d.Size, want.Digest, want.Size)
	}
	return d, nil
}
