package shim

import (
	"encoding/json"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/shim/stdio"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// replyTimeout bounds the writing of a reply to a client that does not read.
const replyTimeout = 10 * time.Second

// server is the shim towards its clients.
type server struct{ *Shim }

// serve answers one request.
func (s server) serve(c *wire.Conn, r *wire.Request) {
	s.busy()
	defer s.busy()
	switch r.Op {
	case wire.OpAttach:
		s.attach(c, r)
	case wire.OpExec:
		s.exec(c, r)
	case wire.OpWait:
		s.wait(c)
	case wire.OpGone:
		select {
		case <-s.left:
		case <-hangup(c):
		}
	default:
		reply, err := s.call(r)
		if err != nil {
			reply = wire.ErrorReply(err)
		}
		c.SetWriteDeadline(time.Now().Add(replyTimeout))
		c.Reply(reply)
	}
}

// call does what needs one answer.
func (s server) call(r *wire.Request) (reply wire.Reply, err error) {
	switch r.Op {
	case wire.OpCreate:
		reply.Pid, err = s.create()
	case wire.OpStart:
		if s.status() == statusNew { // who has nothing to do in between saves himself a request
			if _, err = s.create(); err != nil {
				return reply, err
			}
		}
		reply.Pid, err = s.start()
	case wire.OpState:
		s.mu.Lock()
		st := s.state
		s.mu.Unlock()
		reply.State = &st
	case wire.OpExecState:
		reply.Exec, err = s.execs.state(r.Exec)
	case wire.OpSignal:
		err = s.signal(r)
	case wire.OpResize:
		err = s.resize(r)
	case wire.OpPause:
		err = s.change(statusRunning, statusPaused, Container.Pause)
	case wire.OpResume:
		err = s.change(statusPaused, statusRunning, Container.Resume)
	case wire.OpUpdate:
		if r.Resources == nil {
			return reply, errdef.New(errdef.InvalidArgument, "update: resources are missing")
		}
		err = s.change("", "", func(c Container) error { return c.Update(r.Resources) })
	case wire.OpShutdown:
		err = s.shutdown(r.All)
	default:
		err = errdef.New(errdef.NotImplemented, "operation %q: this shim does not know it", r.Op)
	}
	return reply, err
}

// hangup returns a channel that is closed when the client has gone. Its goroutine ends with the connection.
func hangup(c *wire.Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, c)
		close(gone)
	}()
	return gone
}

// wait answers when init has ended and exit.json is written.
func (s server) wait(c *wire.Conn) {
	select {
	case <-s.over:
		c.SetWriteDeadline(time.Now().Add(replyTimeout))
		c.Reply(s.last)
	case <-hangup(c):
	}
}

// alive returns the container unless it is not yet or no more.
func (s *Shim) alive(what string) (Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctr == nil || s.state.Status == statusStopped {
		return nil, errdef.New(errdef.Conflict, "%s: the container is %s", what, s.state.Status)
	}
	return s.ctr, nil
}

func (s server) signal(r *wire.Request) error {
	sig, err := signalOf(r.Signal)
	if err != nil {
		return err
	}
	if r.Exec != "" {
		x, err := s.execs.find(r.Exec)
		if err != nil {
			return err
		}
		return s.family.signal(x.child, sig)
	}
	ctr, err := s.alive("signal")
	if err != nil {
		return err
	}
	if err := ctr.Signal(sig, r.All); err != nil {
		return err
	}
	if sig == unix.SIGKILL && s.status() == statusPaused {
		return ctr.Resume() // a frozen process of cgroup v1 does not even die
	}
	return nil
}

// change pauses, resumes or updates: from, unless empty, is the status it needs, to the one it makes.
func (s server) change(from, to string, do func(Container) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	ctr, err := s.alive("change")
	if err != nil {
		return err
	}
	if st := s.status(); from != "" && st != from {
		return errdef.New(errdef.Conflict, "the container is %s, not %s", st, from)
	}
	if err := do(ctr); err != nil {
		return err
	}
	s.mu.Lock()
	if from != "" && s.state.Status == from {
		s.state.Status = to
	}
	s.mu.Unlock()
	return nil
}

func (s server) resize(r *wire.Request) error {
	if r.Exec != "" {
		x, err := s.execs.find(r.Exec)
		if err != nil {
			return err
		}
		if x.master == nil {
			return errdef.New(errdef.Conflict, "resize: exec %s has no terminal", r.Exec)
		}
		return stdio.Resize(x.master, r.Height, r.Width)
	}
	if !s.cfg.Terminal {
		return errdef.New(errdef.Conflict, "resize: the container has no terminal")
	}
	s.mu.Lock()
	s.size = [2]uint16{r.Height, r.Width}
	m := s.master
	s.mu.Unlock()
	if m == nil {
		return nil // create will use it
	}
	return stdio.Resize(m, r.Height, r.Width)
}

// shutdown ends the shim; a container that runs is killed if all is set, else that is a conflict.
func (s server) shutdown(all bool) error {
	switch st := s.status(); st {
	case statusRunning, statusPaused:
		if !all {
			return errdef.New(errdef.Conflict, "shutdown: the container is %s", st)
		}
		ctr, err := s.alive("shutdown")
		if err != nil {
			return err
		}
		if err := ctr.Signal(unix.SIGKILL, true); err != nil {
			return err
		}
		if st == statusPaused { // a frozen process of cgroup v1 takes no signal
			return ctr.Resume()
		}
		return nil
	case statusStopped:
		return nil
	}
	select {
	case s.quit <- errdef.New(errdef.Cancelled, "the shim was told to end before the container was started"):
	default:
	}
	return nil
}

// attach makes the connection a stream of init's output and input.
func (s server) attach(c *wire.Conn, r *wire.Request) {
	cl := s.out.Attach(c, r.Stdout, r.Stderr, replyLine(wire.Reply{}))
	f := feed{c: c, cl: cl, out: s.out, once: s.cfg.StdinOne}
	if r.Stdin && s.cfg.Stdin {
		f.in = s.input
	}
	f.run()
}

// input waits until the container is created: who attached before may send already.
func (s *Shim) input() *stdio.Input {
	select {
	case <-s.made:
	case <-s.over:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

// feed passes one client's input on.
type feed struct {
	c    *wire.Conn
	cl   *stdio.Client
	out  *stdio.Output
	in   func() *stdio.Input // nil: input is ignored
	once bool                // the input ends with this client's
}

// run returns when the client has gone or has had everything.
func (f feed) run() {
	go func() { // the reader below must end when the client is dropped
		<-f.cl.Gone()
		f.c.SetReadDeadline(time.Unix(1, 0))
	}()
	frames := wire.NewFrames(f.c)
	for {
		typ, p, err := frames.Next()
		if err != nil {
			break
		}
		if typ != wire.FrameStdin || f.in == nil {
			continue
		}
		if len(p) == 0 {
			f.end()
			f.in = nil
			continue
		}
		if _, err := f.in().Write(p); err != nil {
			f.in = nil // the process reads no more; the client may go on listening
		}
	}
	f.end()
	f.out.Detach(f.cl)
}

func (f feed) end() {
	if f.once && f.in != nil {
		f.in().Close()
	}
}

func replyLine(r wire.Reply) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		b = []byte(`{"error":"encode reply"}`)
	}
	return append(b, '\n')
}
