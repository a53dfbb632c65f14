package stdio

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// chunk is how much is read at once: what a pipe holds by default.
const chunk = 64 << 10

// leftover bounds what Cut still takes from a pipe: the most a pipe of an ordinary user can hold, so a process that writes
// for ever cannot make it endless.
const leftover = 1 << 20

// Log takes a stream's bytes; it does not fail and does not wait (logfile.Stream).
type Log interface {
	Write([]byte)
	Close()
}

// Pump moves one stream of a process to its log and its clients.
type Pump struct {
	f      *os.File
	typ    byte
	out    *Output
	logged chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	log     Log // nil: none, or closed
	sending bool
	cut     bool
	rest    []byte // read by Cut while clients were still busy with what came before
}

// NewPump starts a goroutine that reads f (non-blocking) until its end, then closes it. log may be nil.
func NewPump(f *os.File, typ byte, out *Output, log Log) *Pump {
	p := &Pump{f: f, typ: typ, out: out, log: log, logged: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

// Logged is closed when everything the process wrote has been given to the log.
func (p *Pump) Logged() <-chan struct{} { return p.logged }

// Done is closed when the clients, too, have had everything.
func (p *Pump) Done() <-chan struct{} { return p.done }

func (p *Pump) run() {
	defer close(p.done)
	defer p.f.Close()
	buf := make([]byte, wire.HeaderLen+chunk)
	for {
		n, err := p.f.Read(buf[wire.HeaderLen:])
		if n > 0 && p.take(buf[:wire.HeaderLen+n]) {
			continue
		}
		p.mu.Lock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.drain()
		}
		rest := p.rest
		p.rest = nil
		p.endLog()
		p.mu.Unlock()
		p.spread(rest, buf)
		return // end of file; EIO is a terminal's
	}
}

// take logs and sends one chunk and reports whether to go on.
func (p *Pump) take(frame []byte) bool {
	p.mu.Lock()
	if p.log != nil {
		p.log.Write(frame[wire.HeaderLen:])
	}
	p.sending = true
	p.mu.Unlock()
	wire.PutHeader(frame, p.typ, len(frame)-wire.HeaderLen)
	p.out.send(p.typ, frame)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sending = false
	return !p.cut
}

// spread sends b in frames made in buf.
func (p *Pump) spread(b, buf []byte) {
	for len(b) > 0 {
		n := copy(buf[wire.HeaderLen:], b)
		wire.PutHeader(buf, p.typ, n)
		p.out.send(p.typ, buf[:wire.HeaderLen+n])
		b = b[n:]
	}
}

// Cut ends reading: what is in the pipe now is still taken and logged before Cut returns or soon after (see Logged), what
// is written later is not. It is for the time after a process's end, when a descendant keeps the pipe open.
func (p *Pump) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return
	}
	p.cut = true
	if p.sending {
		p.drain()
		p.endLog()
		return
	}
	p.f.SetReadDeadline(time.Unix(1, 0))
}

// drain reads without waiting what is in the pipe, logs it and keeps it for the clients. The caller holds p.mu.
func (p *Pump) drain() {
	rc, err := p.f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, chunk)
	rc.Control(func(fd uintptr) {
		for len(p.rest) < leftover {
			n, err := unix.Read(int(fd), buf)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 || err != nil {
				return
			}
			if p.log != nil {
				p.log.Write(buf[:n])
			}
			p.rest = append(p.rest, buf[:n]...)
		}
	})
}

// endLog closes the log's stream, once. The caller holds p.mu.
func (p *Pump) endLog() {
	select {
	case <-p.logged:
		return
	default:
	}
	if p.log != nil {
		p.log.Close()
		p.log = nil
	}
	close(p.logged)
}
