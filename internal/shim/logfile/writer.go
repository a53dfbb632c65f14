// Package logfile owns a container's log on disk: Docker's json-file format, written by the shim and read by the engine.
//
// It promises the writer that no error of the disk ever blocks or ends the container's output (what could not be written is
// counted, and a line in the log says so once writing works again), and the reader whole entries only, in order, across
// rotations, in bounded memory whatever is in the files. It must never import the engine, nor read more of a file than asked.
//
// The current file is Path, older ones are Path.1 (youngest) to Path.N. An entry is one line:
//
//	{"log":"text\n","stream":"stdout","attrs":{...},"time":"2006-01-02T15:04:05.999999999Z"}
package logfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// flushAt is how much is gathered before a write(2), in bytes. A piece of output is always flushed at its end.
const flushAt = 128 << 10

// WriterOptions say how the log is kept.
type WriterOptions struct {
	MaxSize  int64             // bytes after which the file is rotated; 0: never
	MaxFiles int               // files kept, the current one included; below 1 means 1
	Attrs    map[string]string // written into every entry
	NoSync   bool              // Close does not fsync
	Now      func() time.Time  // nil: time.Now
}

// Writer writes one container's log. It is safe for several streams at once.
type Writer struct {
	path  string
	o     WriterOptions
	attrs []byte

	mu      sync.Mutex
	f       *os.File
	size    int64 // of the current file, up to its last whole entry
	wrote   bool
	buf     []byte // encoded entries that are not yet written
	lines   int64  // entries in buf
	tail    []byte // what appendTail made for the piece at hand
	dropped int64  // entries lost since the last good write
	cause   error
	limit   int64 // size at which to rotate; MaxSize, more after a rotation that did not work
	torn    bool  // the file ends in half an entry that could not be cut off
}

// Create opens or makes the log; what is there stays. A half entry that a power loss left at the end is closed by a newline.
func Create(path string, o WriterOptions) (*Writer, error) {
	if o.MaxFiles < 1 {
		o.MaxFiles = 1
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	if !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("open log: %s is not a regular file", path)
	}
	w := &Writer{path: path, o: o, attrs: encodeAttrs(o.Attrs), f: f, size: st.Size(), limit: o.MaxSize}
	if st.Size() > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], st.Size()-1); err == nil && last[0] != '\n' {
			w.torn = true
		}
	}
	return w, nil
}

// Stream cuts one output of the container into lines. Write and Close belong to one goroutine.
type Stream struct {
	w    *Writer
	name string
	rest []byte // an unfinished line, shorter than MaxLine
}

// Stream returns a new stream of the log; name is "stdout" or "stderr".
func (w *Writer) Stream(name string) *Stream { return &Stream{w: w, name: name} }

// Write logs the lines of p; an unfinished last line waits for its end. It never fails and never waits for anything but the disk.
func (s *Stream) Write(p []byte) {
	if len(p) == 0 {
		return
	}
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tail = appendTail(w.tail[:0], s.name, w.attrs, w.o.Now())
	for len(p) > 0 {
		n := nextLine(p)
		room := MaxLine - len(s.rest)
		switch {
		case n > 0 && n-1 < room, n == 1: // the line ends here
			w.entry(s.rest, p[:n])
			s.rest = s.rest[:0]
		case len(p) < room: // wait for its end
			s.rest = append(s.rest, p...)
			n = len(p)
		default: // too long: a partial entry
			n = cut(p, room)
			w.entry(s.rest, p[:n])
			s.rest = s.rest[:0]
		}
		p = p[n:]
	}
	w.flush()
}

// Close logs an unfinished line as it is, without newline, as Docker does.
func (s *Stream) Close() {
	if len(s.rest) == 0 {
		return
	}
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tail = appendTail(w.tail[:0], s.name, w.attrs, w.o.Now())
	w.entry(s.rest, nil)
	s.rest = nil
	w.flush()
}

// entry adds one entry, rotating before it when the file is full.
func (w *Writer) entry(head, line []byte) {
	if w.o.MaxSize > 0 && w.size+int64(len(w.buf)) >= w.limit {
		w.flush()
		if w.size >= w.limit {
			w.rotate()
		}
	}
	if len(w.buf) >= flushAt {
		w.flush()
	}
	w.buf = append(w.buf, `{"log":"`...)
	if len(head) > 0 {
		// A character may lie across the border of the two.
		w.buf = appendJoined(w.buf, head, line)
	} else {
		w.buf = appendString(w.buf, line)
	}
	w.buf = append(w.buf, w.tail...)
	w.lines++
}

// appendJoined is appendString(head+line) without the copy when no character lies across the border.
func appendJoined(b, head, line []byte) []byte {
	if len(line) == 0 || line[0] < 0x80 || head[len(head)-1] < 0x80 {
		return appendString(appendString(b, head), line)
	}
	return appendString(b, append(head, line...))
}

// flush writes the gathered entries with one write(2), or counts them as dropped.
func (w *Writer) flush() {
	if len(w.buf) == 0 {
		return
	}
	defer func() { w.buf, w.lines = w.buf[:0], 0 }()
	if w.torn || w.dropped > 0 {
		if !w.mend() {
			w.dropped += w.lines
			return
		}
	}
	if err := w.write(w.buf); err != nil {
		w.dropped += w.lines
		w.cause = err
	}
}

// mend ends a torn entry and says how much was lost.
func (w *Writer) mend() bool {
	var b []byte
	if w.torn {
		b = append(b, '\n')
	}
	if w.dropped > 0 {
		b = append(b, `{"log":"`...)
		text := fmt.Sprintf("dhow: %d log entries were lost here: %v\n", w.dropped, w.cause)
		b = appendString(b, []byte(text))
		b = appendTail(b, "stderr", w.attrs, w.o.Now())
	}
	if err := w.write(b); err != nil {
		w.cause = err
		return false
	}
	w.torn, w.dropped, w.cause = false, 0, nil
	return true
}

// write appends whole entries; after an error the file is cut back to where it was.
func (w *Writer) write(b []byte) error {
	if w.f == nil {
		return os.ErrClosed
	}
	n, err := w.f.Write(b)
	if err == nil {
		w.size += int64(n)
		w.wrote = true
		return nil
	}
	if n > 0 {
		if terr := w.f.Truncate(w.size); terr != nil {
			w.size += int64(n)
			w.torn = true
		}
	}
	return cause(err)
}

// cause drops the path from an error: it goes into the container's log, whose reader need not know our paths.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// rotate renames the files up by one and begins a new one. The new file is made first, so that an error (no inode left)
// leaves the log as it is, only longer than asked.
func (w *Writer) rotate() {
	w.limit = w.size + w.o.MaxSize/4 + 1 // the next try, should this one fail
	next := w.path + ".next"
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		return
	}
	for i := w.o.MaxFiles - 1; i > 1; i-- {
		os.Rename(w.path+"."+strconv.Itoa(i-1), w.path+"."+strconv.Itoa(i))
	}
	if w.o.MaxFiles > 1 {
		if err := os.Rename(w.path, w.path+".1"); err != nil && !os.IsNotExist(err) {
			f.Close()
			os.Remove(next)
			return
		}
	}
	// With one file the old one loses its name here; who follows it has it open and reads it to its end.
	if err := os.Rename(next, w.path); err != nil {
		f.Close()
		os.Remove(next)
		return
	}
	w.f.Close()
	w.f, w.size, w.torn, w.limit = f, 0, false, w.o.MaxSize
}

// Trim gives back the buffer that bursts of output have filled.
func (w *Writer) Trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = nil
}

// Dropped returns how many entries are lost and not yet reported in the log.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close makes the log durable. Streams must be closed first; what they write later is lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	var err error
	if w.dropped > 0 {
		w.mend()
	}
	if w.wrote && !w.o.NoSync {
		err = w.f.Sync()
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
