package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// SocketPath returns where the shim of a run folder listens.
func SocketPath(runDir string) string { return filepath.Join(runDir, SocketFile) }

// Call sends one request and returns its reply. Errors of the shim keep their kind; a shim that is not there, or went away
// before it answered, is errdef.Unavailable (StateDir/exit.json then tells whether the container ended).
func Call(ctx context.Context, socket string, req Request) (Reply, error) {
	c, err := open(ctx, socket, req)
	if err != nil {
		return Reply{}, err
	}
	defer c.Close()
	defer watch(ctx, c)()
	var r Reply
	if err := c.readLine(&r); err != nil {
		return Reply{}, lost(ctx, string(req.Op), err)
	}
	return r, r.Err()
}

// Wait returns how the container ended: from its shim, or from exit.json if the shim has gone (or goes meanwhile) after a
// container that ended. errdef.Unavailable means that neither is there: the shim was killed, or there was no container.
func Wait(ctx context.Context, socket, stateDir string) (Exit, error) {
	r, err := Call(ctx, socket, Request{Op: OpWait})
	if err == nil && r.Exit != nil {
		return *r.Exit, nil
	}
	if err != nil && !errdef.Is(err, errdef.Unavailable) {
		return Exit{}, err
	}
	e, rerr := ReadExit(stateDir)
	if errors.Is(rerr, os.ErrNotExist) && err != nil {
		return Exit{}, err
	}
	return e, rerr
}

// ReadExit reads StateDir/exit.json; without one the error is fs.ErrNotExist.
func ReadExit(stateDir string) (e Exit, err error) {
	path := filepath.Join(stateDir, ExitFile)
	f, err := os.Open(path)
	if err != nil {
		return e, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return e, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, errdef.New(errdef.DataLoss, "parse %s: %w", path, err)
	}
	return e, nil
}

// Alive reports whether a shim listens on the socket.
func Alive(ctx context.Context, socket string) bool {
	c, err := dial(ctx, socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Gone returns nil once the shim is no more: it has deleted its container and left. The engine waits for it before it uses
// the same run folder or removes the container's.
func Gone(ctx context.Context, socket string) error {
	for pause := time.Duration(0); ; pause = min(2*pause+time.Millisecond, 50*time.Millisecond) {
		c, err := dial(ctx, socket)
		if errdef.Is(err, errdef.Unavailable) {
			return nil
		}
		if err != nil {
			return err
		}
		// OpGone is answered by nothing but the end of the connection.
		if err := c.writeLine(Request{Op: OpGone}); err == nil {
			stop := watch(ctx, c)
			io.Copy(io.Discard, c)
			stop()
		}
		c.Close()
		select { // one that has no place for us ends the connection at once
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the shim at %s: %w", socket, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func open(ctx context.Context, socket string, req Request) (*Conn, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.Op, err)
	}
	defer watch(ctx, c)()
	if err := c.writeLine(req); err != nil {
		c.Close()
		return nil, lost(ctx, string(req.Op), err)
	}
	return c, nil
}

// watch interrupts c's reads and writes when ctx ends; the returned function stops watching.
func watch(ctx context.Context, c *Conn) func() bool {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

// lost words an error of the connection itself.
func lost(ctx context.Context, what string, err error) error {
	if cerr := ctx.Err(); cerr != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, cerr)
	}
	if errdef.KindOf(err) != errdef.System {
		return fmt.Errorf("%s: %w", what, err)
	}
	return errdef.New(errdef.Unavailable, "%s: the shim went away: %w", what, err)
}

// Stream is an attach or exec connection. Next belongs to one goroutine; stdin may be written by another.
type Stream struct {
	First Reply // the answer that opened the stream; Pid of an exec
	c     *Conn
	fr    *Frames
	ctx   context.Context
	stop  func() bool

	mu  sync.Mutex // one frame at a time
	buf []byte
}

// OpenStream sends an attach or exec request and returns its stream. ctx governs the stream's whole life.
func OpenStream(ctx context.Context, socket string, req Request) (*Stream, error) {
	c, err := open(ctx, socket, req)
	if err != nil {
		return nil, err
	}
	s := &Stream{c: c, ctx: ctx, stop: watch(ctx, c)}
	if err := c.readLine(&s.First); err != nil {
		s.Close()
		return nil, lost(ctx, string(req.Op), err)
	}
	if err := s.First.Err(); err != nil {
		s.Close()
		return nil, err
	}
	s.fr = NewFrames(c.br)
	return s, nil
}

// Next returns the next piece of output (FrameStdout or FrameStderr), valid until the next call. At the end it returns the
// shim's last word with io.EOF, or with the error it carries. A stream cut off before that is errdef.Unavailable.
func (s *Stream) Next() (typ byte, payload []byte, last *Reply, err error) {
	typ, payload, err = s.fr.Next()
	if err != nil {
		return 0, nil, nil, lost(s.ctx, "read stream", err)
	}
	if typ != FrameReply {
		return typ, payload, nil, nil
	}
	last = new(Reply)
	if err := json.Unmarshal(payload, last); err != nil {
		return 0, nil, nil, errdef.New(errdef.DataLoss, "read stream: parse last frame: %w", err)
	}
	if err := last.Err(); err != nil {
		return 0, nil, last, err
	}
	return 0, nil, last, io.EOF
}

// Copy passes output on until the stream ends and returns the shim's last word.
func (s *Stream) Copy(stdout, stderr io.Writer) (*Reply, error) {
	for {
		typ, p, last, err := s.Next()
		if errors.Is(err, io.EOF) && last != nil {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		w := stdout
		if typ == FrameStderr {
			w = stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(p); err != nil {
			return nil, fmt.Errorf("copy stream: %w", err)
		}
	}
}

// WriteStdin sends input, split into frames; it blocks while the process does not read.
func (s *Stream) WriteStdin(p []byte) (int, error) {
	const piece = 32 << 10
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for len(p) > 0 {
		n := min(len(p), piece)
		s.buf = append(s.buf[:0], make([]byte, HeaderLen)...)
		PutHeader(s.buf, FrameStdin, n)
		s.buf = append(s.buf, p[:n]...)
		if _, err := s.c.Write(s.buf); err != nil {
			return done, lost(s.ctx, "write stdin", err)
		}
		done, p = done+n, p[n:]
	}
	return done, nil
}

// CloseStdin says that no more input follows; output goes on.
func (s *Stream) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var h [HeaderLen]byte
	PutHeader(h[:], FrameStdin, 0)
	if _, err := s.c.Write(h[:]); err != nil {
		return lost(s.ctx, "close stdin", err)
	}
	return nil
}

// Close detaches.
func (s *Stream) Close() error {
	s.stop()
	return s.c.Close()
}
