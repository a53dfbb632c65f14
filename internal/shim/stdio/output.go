// Package stdio owns the bytes that flow in and out of a container's processes: pumps from pipe or terminal into log and
// attached clients, and input from clients to the process.
//
// It promises that a client gets every byte written after it attached, in order, and that the log gets every byte whoever is
// attached. The price is back-pressure, decided as follows. Output is logged first, then written to each attached client in
// turn; the buffer between is the client's socket (net.core.wmem_default, ~200 KiB) and while it is full the process waits in
// its write(2), as it would behind any pipe: so `dhow run IMG cmd | slow` loses nothing. Only this container waits, its other
// clients and its log with it. A client that takes not a byte for 60 s is dropped: its connection is cut, which it
// sees as a stream without last frame (no error frame can be sent to one that does not read). A dead client is dropped at once.
// Input of several clients is interleaved frame by frame; a process that does not read makes its writers wait.
//
// It must never hold up the noting of an exit: Cut ends logging at once, whatever the clients do.
package stdio

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// Patience is how long a client may take nothing before it is dropped.
const Patience = 60 * time.Second

// Conn is what a client is reached by.
type Conn interface {
	Write([]byte) (int, error)
	SetWriteDeadline(time.Time) error
	Close() error
}

// Output spreads the output of one process to its clients.
type Output struct {
	patience time.Duration

	mu      sync.Mutex
	clients []*Client
	last    []byte // the last frame, once the output has ended
}

// NewOutput returns an Output without clients; patience 0 means Patience.
func NewOutput(patience time.Duration) *Output {
	if patience == 0 {
		patience = Patience
	}
	return &Output{patience: patience}
}

// Client is one attached connection.
type Client struct {
	conn           Conn
	stdout, stderr bool
	patience       time.Duration
	gone           chan struct{} // closed when it has been dropped or has had its last frame

	mu   sync.Mutex // one frame at a time
	dead bool
}

// Attach adds a client. hello is sent to it before anything else, and the client is in place before hello is sent: who has
// read it misses nothing. After the end of output the client gets hello and the last frame.
func (o *Output) Attach(conn Conn, stdout, stderr bool, hello []byte) *Client {
	c := &Client{conn: conn, stdout: stdout, stderr: stderr, patience: o.patience, gone: make(chan struct{})}
	c.mu.Lock()
	o.mu.Lock()
	last := o.last
	if last == nil {
		o.clients = append(o.clients, c)
	}
	o.mu.Unlock()
	c.send(hello)
	if last != nil {
		c.send(last)
		c.drop()
	}
	c.mu.Unlock()
	return c
}

// Gone is closed when the client gets nothing any more.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Detach removes a client; its connection is closed.
func (o *Output) Detach(c *Client) {
	c.conn.Close() // first: it wakes whoever writes to it
	c.mu.Lock()
	c.drop()
	c.mu.Unlock()
	o.sweep()
}

// Finish sends the last frame to all clients and to those to come.
func (o *Output) Finish(last []byte) {
	o.mu.Lock()
	if o.last != nil {
		o.mu.Unlock()
		return
	}
	o.last = last
	all := o.clients
	o.clients = nil
	o.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.send(last)
			c.drop()
		})
	}
	wg.Wait()
}

// send gives one frame, header included, to the clients that asked for its stream.
func (o *Output) send(typ byte, frame []byte) {
	o.mu.Lock()
	all := o.clients // never changed in place
	o.mu.Unlock()
	died := false
	for _, c := range all {
		if typ == wire.FrameStdout && !c.stdout || typ == wire.FrameStderr && !c.stderr {
			continue
		}
		c.mu.Lock()
		c.send(frame)
		died = died || c.dead
		c.mu.Unlock()
	}
	if died {
		o.sweep()
	}
}

// sweep forgets dead clients.
func (o *Output) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clients = slices.DeleteFunc(slices.Clone(o.clients), func(c *Client) bool {
		select {
		case <-c.gone:
			return true
		default:
			return false
		}
	})
}

// send writes b, waiting as long as the client takes anything at all. The caller holds c.mu.
func (c *Client) send(b []byte) {
	for len(b) > 0 && !c.dead {
		c.conn.SetWriteDeadline(time.Now().Add(c.patience))
		n, err := c.conn.Write(b)
		b = b[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			c.conn.Close()
			c.drop()
		}
	}
}

// drop marks the client as gone. The caller holds c.mu.
func (c *Client) drop() {
	if !c.dead {
		c.dead = true
		close(c.gone)
	}
}
