package docker

import (
	"encoding/binary"
	"io"
	"sync"
)

// The streams of Docker's multiplexed format.
const (
	streamStdout = 1
	streamStderr = 2
)

// maxFrame bounds one frame's payload, so that a frame is copied once and no client must buffer more.
const maxFrame = 64 << 10

// muxer writes frames of several streams to one writer: {stream,0,0,0,size big endian} and the payload, in one Write.
type muxer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// to returns the writer of one stream.
func (m *muxer) to(stream byte) io.Writer { return muxWriter{m, stream} }

type muxWriter struct {
	m      *muxer
	stream byte
}

func (w muxWriter) Write(p []byte) (n int, err error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for len(p) > 0 {
		chunk := p[:min(len(p), maxFrame)]
		w.m.buf = append(w.m.buf[:0], w.stream, 0, 0, 0)
		w.m.buf = binary.BigEndian.AppendUint32(w.m.buf, uint32(len(chunk)))
		w.m.buf = append(w.m.buf, chunk...)
		if _, err := w.m.w.Write(w.m.buf); err != nil {
			return n, err
		}
		n += len(chunk)
		p = p[len(chunk):]
	}
	return n, nil
}

// outputs returns the writers for stdout and stderr on w: framed, or with a TTY both raw.
func outputs(w io.Writer, tty bool) (stdout, stderr io.Writer) {
	if tty {
		return w, w
	}
	m := &muxer{w: w}
	return m.to(streamStdout), m.to(streamStderr)
}

// streamType is the Content-Type of a session's output.
func (c *call) streamType(tty bool) string {
	if !tty && c.minor >= 42 {
		return "application/vnd.docker.multiplexed-stream"
	}
	return "application/vnd.docker.raw-stream"
}

// flusher flushes after every write, so that a line is seen when it is written.
type flusher struct{ w *reply }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.w.flush()
	}
	return n, err
}
