package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// Times of a hijacked connection.
const (
	goneCheck = time.Second     // how often a half-closed client is checked for being gone
	lingerMax = 2 * time.Second // how long unread input is drained at the end, so that the client sees EOF and not a reset
)

// hijack takes the connection over, answers the upgrade, and runs the session on it until it ends.
func (c *call) hijack(sess api.Session, stdin bool) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	abandon := func(err error) error {
		cancel()
		sess.Run(ctx, nil, io.Discard, io.Discard) // releases what Attach took
		return err
	}
	conn, rw, err := http.NewResponseController(c.w.ResponseWriter).Hijack()
	if err != nil {
		return abandon(errdef.New(errdef.System, "take over connection: %w", err))
	}
	c.w.wrote, c.w.hijacked = true, true
	defer conn.Close()
	conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, c.upgradeHead(sess.TTY())); err != nil {
		return abandon(nil)
	}
	// Only what net/http has buffered is taken from its reader: that one cancels the request's context at a half-close.
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	in := &input{conn: conn, r: io.MultiReader(bytes.NewReader(early), conn), gone: cancel}
	watched := make(chan struct{})
	go func() { defer close(watched); in.watch(ctx) }() // ends with ctx
	stdout, stderr := outputs(conn, sess.TTY())
	var sin io.Reader
	if stdin {
		sin = in
	}
	err = sess.Run(ctx, sin, stdout, stderr)
	gone := ctx.Err() != nil
	cancel()
	<-watched
	if err != nil && !gone && !errors.Is(err, unix.EPIPE) {
		fmt.Fprintf(stderr, "dhow: %s\r\n", err)
		c.log.Warn("session ended", "path", c.r.URL.Path, "err", err)
	}
	in.linger()
	return nil
}

// upgradeHead is the answer that begins the session: 101 for clients that asked to upgrade, 200 for old ones.
func (c *call) upgradeHead(tty bool) string {
	var b strings.Builder
	if proto := c.r.Header.Get("Upgrade"); proto != "" {
		b.WriteString("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
	} else {
		b.WriteString("HTTP/1.1 200 OK\r\n")
	}
	b.WriteString("Content-Type: " + c.streamType(tty) + "\r\n")
	h := c.w.Header()
	for _, k := range []string{"Server", "Api-Version", "Ostype", "Docker-Experimental"} {
		b.WriteString(k + ": " + h.Get(k) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// input is the client's side of a hijacked connection: stdin until it half-closes.
type input struct {
	conn net.Conn
	gone context.CancelFunc // called when the client is gone altogether
	mu   sync.Mutex         // one reader at a time
	r    io.Reader
	over bool
}

// Read gives stdin; EOF is the client's half-close, or the end of the session.
func (i *input) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over {
		return 0, io.EOF
	}
	n, err := i.r.Read(p)
	if err != nil {
		i.over = true
		if closed(i.conn) {
			i.gone()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = io.EOF
		}
	}
	return n, err
}

// watch looks every second whether the client closed both directions; a half-close alone is no reason to stop.
func (i *input) watch(ctx context.Context) {
	t := time.NewTicker(goneCheck)
	defer t.Stop()
	for {
		if closed(i.conn) {
			i.gone()
			return
		}
		select {
		case <-ctx.Done():
			i.conn.SetReadDeadline(time.Now()) // a blocked stdin copy ends too
			return
		case <-t.C:
		}
	}
}

// linger ends output, then reads what the client still sends for a moment: closing with unread input would reset the
// connection, and the client would report that instead of the end.
func (i *input) linger() {
	if cw, ok := i.conn.(interface{ CloseWrite() error }); !ok || cw.CloseWrite() != nil {
		return
	}
	i.conn.SetReadDeadline(time.Now())
	i.mu.Lock() // a blocked stdin copy lets go
	defer i.mu.Unlock()
	i.over = true
	i.conn.SetReadDeadline(time.Now().Add(lingerMax))
	io.Copy(io.Discard, i.conn)
}

// closed reports whether the peer closed both directions (poll(2): POLLHUP or POLLERR). For TCP a close looks like a
// half-close until something is written; the write then fails.
func closed(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		hup = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return hup || err != nil
}
