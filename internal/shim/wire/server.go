package wire

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// MaxConns bounds the connections that one shim serves at a time.
const MaxConns = 2048

// Handler serves one request. The connection stays its own until it returns; then it is closed.
type Handler func(*Conn, *Request)

// Serve accepts until the listener is closed, one goroutine per connection, and returns when the last handler has returned.
func Serve(l *Listener, h Handler) error {
	slots := make(chan struct{}, MaxConns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			// EMFILE, ENOMEM: give what holds them time to end.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.SetWriteDeadline(time.Now().Add(time.Second))
			c.Fail(errdef.New(errdef.Unavailable, "serve: %d connections are open, the limit", MaxConns))
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { c.Close(); <-slots }()
			serveConn(c, h)
		})
	}
}

func serveConn(c *Conn, h Handler) {
	var req Request
	c.SetReadDeadline(time.Now().Add(requestTimeout))
	if err := c.readLine(&req); err != nil {
		if err != io.EOF { // a bare connect is how others ask whether we live
			c.SetWriteDeadline(time.Now().Add(time.Second))
			c.Fail(errdef.New(errdef.InvalidArgument, "read request: %w", err))
		}
		return
	}
	c.SetReadDeadline(time.Time{})
	h(c, &req)
}
