package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// MaxLine bounds a Request or Reply line, in bytes (an exec's environment is in there).
const MaxLine = 4 << 20

// requestTimeout is how long a client may take to send its one line.
const requestTimeout = 10 * time.Second

// Conn is one connection: a non-blocking unix stream socket under the runtime's poller. The net package is not used because it
// would double the memory of a shim. Reads and writes each belong to one goroutine at a time; Close may come from any.
type Conn struct {
	f  *os.File
	br *bufio.Reader
}

func newConn(fd int) *Conn {
	f := os.NewFile(uintptr(fd), "unix socket")
	return &Conn{f: f, br: bufio.NewReaderSize(f, 4096)}
}

// Read reads what the other side sent, buffered bytes first.
func (c *Conn) Read(p []byte) (int, error) { return c.br.Read(p) }

// Write writes all of p or returns an error.
func (c *Conn) Write(p []byte) (int, error) { return c.f.Write(p) }

// Close ends the connection; goroutines that read or write return.
func (c *Conn) Close() error { return c.f.Close() }

// SetDeadline bounds reads and writes; the zero time lifts the bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.f.SetDeadline(t) }

// SetReadDeadline bounds reads only.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.f.SetReadDeadline(t) }

// SetWriteDeadline bounds writes only.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }

// readLine reads one line of JSON into v. A line without its end is an error: half a request must never be obeyed.
func (c *Conn) readLine(v any) error {
	var line []byte
	for {
		part, err := c.br.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return errdef.New(errdef.InvalidArgument, "line longer than %d bytes", MaxLine)
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == io.EOF && len(line) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return errdef.New(errdef.InvalidArgument, "parse line: %w", err)
	}
	return nil
}

func (c *Conn) writeLine(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	if len(b) >= MaxLine {
		return errdef.New(errdef.InvalidArgument, "line longer than %d bytes", MaxLine)
	}
	_, err = c.f.Write(append(b, '\n'))
	return err
}

// Reply answers a request. With SetWriteDeadline unset it waits for the client to read.
func (c *Conn) Reply(r Reply) error { return c.writeLine(r) }

// Fail answers a request with an error and its kind.
func (c *Conn) Fail(err error) error { return c.writeLine(ErrorReply(err)) }

// ErrorReply puts an error into a Reply.
func ErrorReply(err error) Reply { return Reply{Error: err.Error(), Kind: int(errdef.KindOf(err))} }

// Err returns the error that a Reply carries, with its kind, or nil.
func (r Reply) Err() error {
	if r.Error == "" {
		return nil
	}
	return errdef.As(errdef.Kind(r.Kind), errors.New(r.Error))
}

// Listener is the shim's socket.
type Listener struct {
	f      *os.File
	path   string
	closed atomic.Bool
}

// through returns a path of SocketFile in dir that is short whatever dir is (sun_path holds 108 bytes): by way of an open
// descriptor of the folder, which the caller closes after use.
func through(dir string) (*os.File, string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), "/proc/self/fd/" + strconv.Itoa(fd) + "/", nil
}

// Listen makes the socket path (mode 0600). A dead socket of an earlier shim is replaced; a live one is errdef.Conflict.
func Listen(path string) (*Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := dial(ctx, path)
	if err == nil {
		c.Close()
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) { // it does not accept: it may be stopped, and many wait for it
		return nil, errdef.New(errdef.Conflict, "listen on %s: another shim answers there", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	dir, prefix, err := through(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// bind makes the file with mode 0777 & ~umask; the folder is 0700, and listen comes after chmod: nobody slips in between.
	name := filepath.Base(path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: prefix + name}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "bind", Path: path, Err: err}
	}
	if err = unix.Chmod(prefix+name, 0o600); err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		os.Remove(path)
		return nil, &os.PathError{Op: "listen", Path: path, Err: err}
	}
	return &Listener{f: os.NewFile(uintptr(fd), path), path: path}, nil
}

// Accept waits for the next client of our own user or root.
func (l *Listener) Accept() (*Conn, error) {
	rc, err := l.f.SyscallConn()
	if err != nil {
		return nil, os.ErrClosed
	}
	for {
		var fd int
		var aerr error
		if err := rc.Read(func(s uintptr) bool {
			fd, _, aerr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		}); err != nil {
			if l.closed.Load() { // os.File does not translate the error of a raw read
				err = os.ErrClosed
			}
			return nil, err
		}
		switch aerr {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return nil, os.NewSyscallError("accept4", aerr)
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
			unix.Close(fd)
			continue
		}
		return newConn(fd), nil
	}
}

// Close removes the socket first, then stops listening.
func (l *Listener) Close() error {
	os.Remove(l.path)
	l.closed.Store(true)
	return l.f.Close()
}

// dial connects to the socket path.
func dial(ctx context.Context, path string) (*Conn, error) {
	dir, prefix, err := through(filepath.Dir(path))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, errdef.As(errdef.Unavailable, err)
		}
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	addr := &unix.SockaddrUnix{Name: prefix + filepath.Base(path)}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Connect(fd, addr)
		if err == nil {
			return newConn(fd), nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			unix.Close(fd)
			err = &os.PathError{Op: "connect", Path: path, Err: err}
			return nil, errdef.As(errdef.Unavailable, err)
		}
		// The backlog is full: a unix socket cannot wait for room without blocking.
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			unix.Close(fd)
			return nil, fmt.Errorf("connect %s: %w", path, ctx.Err())
		case <-t.C:
		}
	}
}
