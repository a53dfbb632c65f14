package shim

import (
	"os"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/shim/stdio"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// keepExecs is how many ended execs are remembered, the oldest forgotten first.
const keepExecs = 64

// execution is one exec.
type execution struct {
	id     string
	child  *child
	master *os.File
	slave  *os.File // see plumbing
	out    *stdio.Output
	pumps  []*stdio.Pump
	in     *stdio.Input
	exit   *wire.Exit // guarded by execs.mu
}

// execs are the execs of a container, running and lately ended.
type execs struct {
	mu      sync.Mutex
	byID    map[string]*execution // nil value: being started
	ended   []string
	running sync.WaitGroup
}

// reserve takes an ID.
func (e *execs) reserve(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id == "" {
		return errdef.New(errdef.InvalidArgument, "exec: the ID is missing")
	}
	if _, ok := e.byID[id]; ok {
		return errdef.New(errdef.Conflict, "exec %s: it has been started already", id)
	}
	if e.byID == nil {
		e.byID = map[string]*execution{}
	}
	e.byID[id] = nil
	e.running.Add(1)
	return nil
}

// settle puts x, or nothing if it failed to start, in the reserved place.
func (e *execs) settle(id string, x *execution) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x == nil {
		delete(e.byID, id)
		e.running.Done()
		return
	}
	e.byID[id] = x
}

// close notes the end of x.
func (e *execs) close(x *execution) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x.exit = &x.child.exit
	e.ended = append(e.ended, x.id)
	if len(e.ended) > keepExecs {
		delete(e.byID, e.ended[0])
		e.ended = append([]string(nil), e.ended[1:]...)
	}
}

func (e *execs) find(id string) (*execution, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byID[id]
	if x == nil {
		return nil, errdef.New(errdef.NotFound, "exec %s: no such exec", id)
	}
	return x, nil
}

func (e *execs) state(id string) (*wire.ExecState, error) {
	x, err := e.find(id)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return &wire.ExecState{ID: id, Pid: x.child.pid, Exit: x.exit}, nil
}

// wait waits until no exec runs, at most d.
func (e *execs) wait(d time.Duration) {
	done := make(chan struct{})
	go func() {
		e.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}

// exec runs a process in the container and makes the connection its stream.
func (s *Shim) exec(c *wire.Conn, r *wire.Request) {
	x, plumb, err := s.enter(r)
	if err != nil {
		c.SetWriteDeadline(time.Now().Add(replyTimeout))
		c.Fail(err)
		return
	}
	// The client is in place before the first byte is read.
	var cl *stdio.Client
	attached := r.Stdin || r.Stdout || r.Stderr
	hello := replyLine(wire.Reply{Pid: x.child.pid})
	if attached {
		cl = x.out.Attach(c, r.Stdout, r.Stderr, hello)
	}
	x.pumps = plumb.pump(x.out, func(byte) stdio.Log { return nil })
	go s.follow(x)
	if !attached {
		c.SetWriteDeadline(time.Now().Add(replyTimeout))
		c.Write(hello)
		return
	}
	// The input of an exec is its one client's: it ends with it, except for a terminal's.
	f := feed{c: c, cl: cl, out: x.out, once: true}
	if r.Stdin {
		f.in = func() *stdio.Input { return x.in }
	}
	f.run()
}

// enter starts the process.
func (s *Shim) enter(r *wire.Request) (x *execution, p *plumbing, err error) {
	if r.Process == nil {
		return nil, nil, errdef.New(errdef.InvalidArgument, "exec: the process is missing")
	}
	if err := s.execs.reserve(r.Exec); err != nil {
		return nil, nil, err
	}
	defer func() { s.execs.settle(r.Exec, x) }()
	s.life.RLock()
	defer s.life.RUnlock()
	ctr, err := s.alive("exec")
	if err != nil {
		return nil, nil, err
	}
	if st := s.status(); st != statusRunning {
		return nil, nil, errdef.New(errdef.Conflict, "exec: the container is %s", st)
	}
	if p, err = newPlumbing(r.Process.Terminal, r.Stdin, r.Stdout, r.Stderr); err != nil {
		return nil, nil, err
	}
	defer p.closeTheirs()
	size := func() [2]uint16 { return [2]uint16{r.Height, r.Width} }
	s.execing.Lock()
	s.family.begin()
	proc, err := ctr.Exec(oci.ExecOptions{Process: r.Process, Stdio: p.theirs, Console: p.console(size)})
	var kid *child
	if err == nil {
		kid = s.family.adopt(proc.Pid)
	}
	s.family.end()
	s.execing.Unlock()
	if err != nil {
		p.closeOurs()
		return nil, nil, err
	}
	if proc.Pidfd != nil {
		proc.Pidfd.Close() // family has its own
	}
	return &execution{id: r.Exec, child: kid, master: p.master, slave: p.slave, out: stdio.NewOutput(0), in: p.in}, p, nil
}

// follow waits for the end of an exec and tells it.
func (s *Shim) follow(x *execution) {
	defer s.execs.running.Done()
	<-x.child.ended
	x.slave.Close()
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	for _, p := range x.pumps {
		select {
		case <-p.Logged():
		case <-grace.C:
			for _, p := range x.pumps {
				p.Cut()
			}
			<-p.Logged()
		}
	}
	x.in.Close()
	s.execs.close(x)
	exit := x.child.exit
	if x.child.pidfd != nil {
		x.child.pidfd.Close()
	}
	go func() { // a slow client must not keep the container from ending
		for _, p := range x.pumps {
			<-p.Done()
		}
		x.out.Finish(lastFrame(wire.Reply{Exit: &exit}))
		s.busy()
	}()
}
