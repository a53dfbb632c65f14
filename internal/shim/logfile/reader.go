package logfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// maxEntry bounds one entry in the file, in bytes: a whole MaxLine of escapes, and attributes. What is longer is skipped.
const maxEntry = 1 << 20

// Options choose entries.
type Options struct {
	Since, Until time.Time // zero: no bound; both inclusive
	Tail         int       // the last so many entries (counted before Since and Until apply); negative: all
	Follow       bool      // wait for more at the end, until Done is closed
	Done         <-chan struct{}
}

// Reader reads a log. It belongs to one goroutine.
type Reader struct {
	path  string
	o     Options
	files []*os.File // what is still to be read, oldest first; files[0] is being read
	skip  []int64    // where to begin in each
	gap   bool

	buf     []byte
	r, w    int   // unread bytes of buf
	off     int64 // in files[0], of the byte after buf[:w]
	long    bool  // inside a line longer than maxEntry
	dec     decoder
	entry   Entry
	corrupt int64
	watch   *watcher
}

// Open opens a log for reading. A log that does not exist yet is an empty one.
func Open(path string, o Options) (*Reader, error) {
	r := &Reader{path: path, o: o}
	if o.Follow {
		w, err := newWatcher(path, o.Done)
		if err != nil {
			return nil, fmt.Errorf("follow log %s: %w", path, err)
		}
		r.watch = w // before the files are opened, so that no change goes unseen
	}
	files, err := chain(path)
	if err == nil {
		err = r.begin(files)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return r, nil
}

// begin drops what Tail and Since leave out.
func (r *Reader) begin(files []*os.File) error {
	r.files, r.skip = files, make([]int64, len(files))
	if r.o.Tail >= 0 {
		left := r.o.Tail
		for i := len(files) - 1; i >= 0; i-- {
			off, n, err := tailOffset(files[i], left)
			if err != nil {
				return err
			}
			r.skip[i] = off
			if left -= n; left == 0 {
				closeAll(files[:i])
				r.files, r.skip = files[i:], r.skip[i:]
				break
			}
		}
	}
	for !r.o.Since.IsZero() && len(r.files) > 1 {
		st, err := r.files[0].Stat()
		if err != nil {
			return err
		}
		if !st.ModTime().Before(r.o.Since) {
			break
		}
		r.drop()
	}
	if len(r.files) > 0 {
		r.off = r.skip[0]
	}
	return nil
}

// drop goes on to the next file.
func (r *Reader) drop() {
	r.files[0].Close()
	r.files, r.skip = r.files[1:], r.skip[1:]
	r.r, r.w, r.off, r.long = 0, 0, 0, false
	if len(r.files) > 0 {
		r.off = r.skip[0]
	}
}

// Next returns the next entry, valid until the call after; io.EOF at the end. With Follow it waits, until ctx ends (its error is
// returned), Until has passed, or Done is closed and everything written by then has been returned.
func (r *Reader) Next(ctx context.Context) (*Entry, error) {
	for {
		if r.gap {
			r.gap = false
			return &Entry{Gap: true}, nil
		}
		line, err := r.line(ctx)
		if err != nil {
			return nil, err
		}
		if r.gap {
			continue
		}
		if !r.dec.decode(line, &r.entry) {
			r.corrupt++
			continue
		}
		e := &r.entry
		if !r.o.Since.IsZero() && e.Time.Before(r.o.Since) {
			continue
		}
		if !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
			return nil, io.EOF
		}
		return e, nil
	}
}

// Corrupt returns how many lines were skipped because they are no entries.
func (r *Reader) Corrupt() int64 { return r.corrupt }

// Close releases files and watch.
func (r *Reader) Close() error {
	closeAll(r.files)
	r.files = nil
	if r.watch != nil {
		r.watch.close()
	}
	return nil
}

// line returns the next whole line without its newline. It returns with an empty line when a gap was found.
func (r *Reader) line(ctx context.Context) ([]byte, error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(r.buf[r.r+scanned:r.w], '\n'); i >= 0 {
			i += scanned
			line := r.buf[r.r : r.r+i]
			r.r += i + 1
			scanned = 0
			if r.long {
				r.long = false
				r.corrupt++
				continue
			}
			return line, nil
		}
		scanned = r.w - r.r
		if scanned > maxEntry {
			r.r, r.long, scanned = r.w, true, 0
		}
		done := r.watch != nil && r.watch.done() // asked before reading: what was written before it is then read
		n, err := r.fill()
		if err != nil {
			return nil, fmt.Errorf("read log %s: %w", r.path, err)
		}
		if n > 0 {
			continue
		}
		if scanned, err = r.ended(ctx, done); err != nil {
			return nil, err
		}
		if r.gap {
			return nil, nil
		}
	}
}

// ended acts at the end of files[0]: on to the next file, or wait, or io.EOF.
func (r *Reader) ended(ctx context.Context, done bool) (scanned int, err error) {
	if len(r.files) > 1 {
		r.drop() // half a line at the end of an old file has no other half
		return 0, nil
	}
	if !r.o.Follow {
		return 0, io.EOF
	}
	more, err := r.extend()
	if err != nil {
		return 0, fmt.Errorf("follow log %s: %w", r.path, err)
	}
	if more {
		return r.w - r.r, nil // read files[0] to its end once more: it was written to until it was rotated
	}
	if done {
		return 0, io.EOF
	}
	// Half a line may be cut back by a writer whose disk is full: it is read again.
	r.off -= int64(r.w - r.r)
	r.r, r.w = 0, 0
	return 0, r.watch.wait(ctx, r.o.Until)
}

// extend opens the files that are younger than the last one known.
func (r *Reader) extend() (bool, error) {
	var next []*os.File
	var err error
	if n := len(r.files); n == 0 {
		next, err = chain(r.path)
	} else {
		next, r.gap, err = successors(r.path, r.files[n-1])
	}
	if err != nil || len(next) == 0 {
		return false, err
	}
	r.files = append(r.files, next...)
	r.skip = append(r.skip, make([]int64, len(next))...)
	return true, nil
}

// fill reads more of files[0] into the buffer.
func (r *Reader) fill() (int, error) {
	if len(r.files) == 0 {
		return 0, nil
	}
	if r.r > 0 && (r.r == r.w || r.w == len(r.buf)) {
		copy(r.buf, r.buf[r.r:r.w])
		r.r, r.w = 0, r.w-r.r
	}
	if r.w == len(r.buf) {
		r.buf = append(r.buf, make([]byte, max(64<<10, len(r.buf)))...)
	}
	n, err := r.files[0].ReadAt(r.buf[r.w:], r.off)
	r.w += n
	r.off += int64(n)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
