package registry

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
)

// Split says when and how a blob comes over several connections. It begins on one; when that connection, rather than who reads, turns out
// to be what takes the time, what follows is asked for in parts.
type Split struct {
	Dir   string // where parts wait for their turn, in a file without a name; "": blobs are not split
	From  int64  // bytes a blob must have, default 64 MiB
	Part  int64  // bytes of a part, default 8 MiB
	Conns int    // connections, default 4
	Rate  int64  // bytes per second on one connection beyond which more would not help, default 64 MiB
}

func (s *Split) defaults() {
	def(&s.From, 64<<20)
	def(&s.Part, 8<<20)
	def(&s.Conns, 4)
	def(&s.Rate, 64<<20)
}

// ahead is how many parts may wait: the file is a ring of so many.
const ahead = 8

// pace is how fast a connection has been, and whose fault it was.
type pace struct {
	began  time.Time
	waited time.Duration // for the connection
	got    int64
}

func (p *pace) read(r io.Reader, q []byte) (int, error) {
	start := time.Now()
	if p.began.IsZero() {
		p.began = start
	}
	n, err := r.Read(q)
	p.waited += time.Since(start)
	p.got += int64(n)
	return n, err
}

// slow tells whether several connections would be quicker than this one.
func (p *pace) slow(s Split) bool {
	if p.got < s.Part/2 {
		return false
	}
	took := time.Since(p.began)
	return p.waited > took*6/10 && float64(p.got) < took.Seconds()*float64(s.Rate)
}

// parts are what comes of a blob over several connections, from an offset on.
type parts struct {
	b      *blob
	from   int64
	f      *os.File
	cancel context.CancelFunc
	ended  sync.WaitGroup // of the goroutines, which end with the context, an error, or the last part

	mu    sync.Mutex
	moved *sync.Cond // next, turn, got or err changed
	next  int        // the first part that nobody fetches yet
	turn  int        // the part that is being read
	got   map[int]int64
	err   error
}

// split begins to fetch what lies a part and more behind b.off. What there is no file for stays on one connection.
func (b *blob) split() *parts {
	f, err := atomicfile.Nameless(b.p.k.c.Split.Dir, "parts")
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(b.ctx)
	p := &parts{b: b, from: b.off + b.p.k.c.Split.Part, f: f, cancel: cancel, got: map[int]int64{}}
	p.moved = sync.NewCond(&p.mu)
	context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })
	for range b.p.k.c.Split.Conns - 1 {
		p.more(ctx)
	}
	return p
}

func (p *parts) more(ctx context.Context) {
	p.ended.Go(func() {
		for {
			n, ok := p.take()
			if !ok {
				return
			}
			if err := p.fetch(ctx, n); err != nil {
				p.fail(err)
				return
			}
		}
	})
}

// take waits until the next part may be fetched; false: there is none, or an error.
func (p *parts) take() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && p.next >= p.turn+ahead {
		p.moved.Wait()
	}
	if from, _ := p.bounds(p.next); p.err != nil || from >= p.b.d.Size {
		return 0, false
	}
	p.next++
	return p.next - 1, true
}

func (p *parts) bounds(n int) (from, to int64) {
	size := p.b.p.k.c.Split.Part
	from = p.from + int64(n)*size
	return from, min(from+size, p.b.d.Size)
}

func (p *parts) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.moved.Broadcast()
}

// fetch brings one part into its place in the ring.
func (p *parts) fetch(ctx context.Context, n int) error {
	from, to := p.bounds(n)
	return p.b.p.Section(ctx, p.b.d.Digest, from, to, func(b []byte, at int64) error {
		if _, err := p.f.WriteAt(b, int64(n%ahead)*p.b.p.k.c.Split.Part+at-from); err != nil {
			return fmt.Errorf("keep a part of a blob: %w", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got[n] = at + int64(len(b)) - from
		p.moved.Broadcast()
		return nil
	})
}

// at says which part an offset is in, and where; the parts before it are not needed any more. Call it with mu held.
func (p *parts) at(off int64) (n int, in int64) {
	size := p.b.p.k.c.Split.Part
	if n = int((off - p.from) / size); n > p.turn {
		for ; p.turn < n; p.turn++ {
			delete(p.got, p.turn)
		}
		p.moved.Broadcast()
	}
	return n, (off - p.from) % size
}

// ready tells whether what is at off has come.
func (p *parts) ready(off int64) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, in := p.at(off)
	return p.got[n] > in, p.err
}

// read reads on at off, waiting for what has not come.
func (p *parts) read(q []byte, off int64) (int, error) {
	p.mu.Lock()
	n, in := p.at(off)
	for p.got[n] <= in && p.err == nil {
		p.moved.Wait()
	}
	have, err := p.got[n]-in, p.err
	p.mu.Unlock()
	if have <= 0 {
		return 0, err
	}
	return p.f.ReadAt(q[:min(int64(len(q)), have)], int64(n%ahead)*p.b.p.k.c.Split.Part+in)
}

// close ends all that goes on.
func (p *parts) close() {
	p.cancel()
	p.ended.Wait()
	p.f.Close()
}
