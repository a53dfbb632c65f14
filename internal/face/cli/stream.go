package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// errDetached says that the user pressed the detach keys.
var errDetached = errors.New("detached")

// stream is one attached session: this terminal on one side, a hijacked connection on the other.
type stream struct {
	a              *app
	conn           *client.Conn
	tty            bool
	stdin          bool
	stdout, stderr bool
	keys           []byte // detach keys; used with a terminal only
	proxied        bool   // signals go to the container instead of ending this process
}

// run copies until the engine ends the output or the user detaches. The terminal is restored before it returns.
func (s *stream) run(ctx context.Context) error {
	defer s.conn.Close()
	if s.tty && s.stdin && tty.IsTerminal(int(s.a.Stdin.Fd())) {
		restore, err := tty.RawMode(int(s.a.Stdin.Fd()))
		if err != nil {
			return err
		}
		defer restore()
		if !s.proxied {
			defer restoreOnSignal(restore)()
		}
	}
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	ended := make(chan error, 1)
	detached := make(chan struct{})
	if s.stdin {
		go s.input(detached) // ends with stdin or the process
	}
	go func() { ended <- s.output() }()
	select {
	case err := <-ended:
		select {
		case <-detached:
			return errDetached
		default:
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	case <-detached:
		return errDetached
	}
}

func (s *stream) output() error {
	var err error
	stdout, stderr := io.Writer(s.a.Stdout), io.Writer(s.a.Stderr)
	if !s.stdout {
		stdout = io.Discard
	}
	if !s.stderr {
		stderr = io.Discard
	}
	framed, known := s.conn.Framed()
	if !known {
		framed = !s.tty
	}
	if framed {
		err = client.Demux(stdout, stderr, s.conn)
	} else {
		_, err = io.Copy(stdout, s.conn)
	}
	if errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

func (s *stream) input(detached chan<- struct{}) {
	var r io.Reader = s.a.Stdin
	if s.tty && len(s.keys) > 0 {
		r = &detachReader{r: r, keys: s.keys}
	}
	_, err := io.Copy(s.conn, r)
	if errors.Is(err, errDetached) {
		close(detached)
		return
	}
	s.conn.CloseWrite()
}

// restoreOnSignal restores the terminal when a signal is about to end the process, then lets it.
func restoreOnSignal(restore func() error) (stop func()) {
	ch := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(ch, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	go func() { // ends when stop is called
		select {
		case sig := <-ch:
			restore()
			signal.Reset(sig)
			unix.Kill(os.Getpid(), sig.(unix.Signal))
		case <-done:
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}

// detachReader passes bytes until the detach keys come in a row; then it returns errDetached. Keys of an unfinished
// sequence are held back until the next byte decides.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int
	rest []byte
	err  error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, 4096)
		n, err := d.r.Read(buf)
		d.err = err
		d.feed(buf[:n])
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *detachReader) feed(in []byte) {
	for _, c := range in {
		if c == d.keys[d.held] {
			if d.held++; d.held == len(d.keys) {
				d.held, d.err = 0, errDetached
				return
			}
			continue
		}
		d.rest = append(d.rest, d.keys[:d.held]...)
		d.held = 0
		if c == d.keys[0] && len(d.keys) > 1 {
			d.held = 1
			continue
		}
		d.rest = append(d.rest, c)
	}
	if d.err != nil { // the input ends: what was held back was no sequence
		d.rest = append(d.rest, d.keys[:d.held]...)
		d.held = 0
	}
}

// detachKeys reads Docker's notation: comma-separated characters and ctrl-X.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		s = "ctrl-p,ctrl-q"
	}
	var out []byte
	for _, k := range strings.Split(s, ",") {
		if len(k) == 1 {
			out = append(out, k[0])
			continue
		}
		c, ok := strings.CutPrefix(k, "ctrl-")
		if !ok || len(c) != 1 {
			return nil, fmt.Errorf("--detach-keys %q: %q is neither one character nor ctrl-X", s, k)
		}
		switch x := c[0]; {
		case x >= 'a' && x <= 'z':
			out = append(out, x-'a'+1)
		case x == '@' || x >= '[' && x <= '_':
			out = append(out, x-'@')
		default:
			return nil, fmt.Errorf("--detach-keys %q: there is no %q", s, k)
		}
	}
	return out, nil
}

// followSize tells the engine the terminal's size now and whenever it changes, until ctx ends.
func (a *app) followSize(ctx context.Context, path string) {
	fd := int(a.Stdout.Fd())
	if !tty.IsTerminal(fd) {
		return
	}
	send := func() error {
		rows, cols, err := tty.Size(fd)
		if err != nil || rows == 0 && cols == 0 {
			return nil
		}
		return a.api.Post(ctx, path+"/resize", url.Values{"h": {strconv.Itoa(int(rows))}, "w": {strconv.Itoa(int(cols))}}, nil, nil)
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	go func() { // ends with ctx
		defer signal.Stop(ch)
		for try := 0; send() != nil && try < 5 && ctx.Err() == nil; try++ {
			time.Sleep(time.Duration(10<<try) * time.Millisecond) // the process may not be there yet
		}
		for {
			select {
			case <-ch:
				send()
			case <-ctx.Done():
				return
			}
		}
	}()
}
