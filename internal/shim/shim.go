// Package shim owns one container while it lives: it has the runtime create it, is the parent of its processes, moves their
// input and output, writes its log, and notes how it ended.
//
// It promises that the engine may die at any instant without the container noticing, that no byte of output read from the
// container is lost to the log, and that the exit is durable in StateDir/exit.json before anybody is told of it. It must
// never decide what to run or restart, keep state of the engine's, nor end before its container has ended.
//
// The order of an end: init has ended (pidfd) -> output is read to its end, or for Config.Grace when a descendant holds it open
// -> log closed -> exit.json -> waiters answered -> cgroup emptied, runtime state deleted -> socket removed -> attached
// clients get the rest of their output and the Exit -> the shim ends. When create or start fails there is no exit.json: the
// engine has the error.
package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/selfmem"
	"github.com/dhow-containers/dhow/internal/shim/logfile"
	"github.com/dhow-containers/dhow/internal/shim/stdio"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

const (
	defaultGrace = 2 * time.Second
	// newborn is how long a shim waits for its first request to create: an engine that died in between must not leave it behind.
	newborn = time.Minute
	// farewell is how long the end waits for replies that are being written.
	farewell = 2 * time.Second
	// settle is how long after the last request memory is given back.
	settle = 500 * time.Millisecond
)

// The states of wire.State.
const (
	statusNew     = "new"
	statusCreated = "created"
	statusRunning = "running"
	statusPaused  = "paused"
	statusStopped = "stopped"
)

// Options are what a shim is started with besides its Config.
type Options struct {
	Create CreateFunc // the runtime
	Ready  io.Writer  // gets one newline once the socket listens; closed if it is a Closer; may be nil
}

// Shim is one container's supervisor.
type Shim struct {
	cfg    wire.Config
	o      Options
	family *family
	out    *stdio.Output

	// life is held for writing while the container is created, started or deleted, for reading while it is entered or changed.
	life    sync.RWMutex
	idle    *time.Timer
	execing sync.Mutex // the runtime runs one exec at a time
	log     *logfile.Writer
	pumps   []*stdio.Pump

	mu     sync.Mutex // guards what follows; never held across a call into the runtime
	state  wire.State
	ctr    Container
	init   *child
	in     *stdio.Input
	master *os.File
	slave  *os.File  // see plumbing
	size   [2]uint16 // height, width
	execs  execs

	born chan *child   // init, once created
	made chan struct{} // closed then
	quit chan error    // why there will be no container
	over chan struct{} // closed when last says how it all ended
	last wire.Reply
	left chan struct{} // closed when the container is deleted and the socket removed
}

// ReadConfig reads RunDir/shim.json.
func ReadConfig(runDir string) (wire.Config, error) {
	var cfg wire.Config
	path := filepath.Join(runDir, wire.ConfigFile)
	f, err := os.Open(path)
	if err != nil {
		return cfg, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return cfg, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, &cfg); err != nil {
		return cfg, errdef.New(errdef.InvalidArgument, "parse %s: %w", path, err)
	}
	for _, c := range [][2]string{{"id", cfg.ID}, {"bundle", cfg.Bundle}, {"state_dir", cfg.StateDir}, {"oci_root", cfg.OCIRoot}} {
		if c[1] == "" {
			return cfg, errdef.New(errdef.InvalidArgument, "%s: %s is missing", path, c[0])
		}
	}
	cfg.RunDir = runDir
	return cfg, nil
}

// Run supervises one container from the first request to its end. It returns an error only if it could not begin to listen.
func Run(cfg wire.Config, o Options) error {
	if cfg.Grace <= 0 {
		cfg.Grace = defaultGrace
	}
	s := &Shim{
		cfg: cfg, o: o, family: newFamily(), out: stdio.NewOutput(0),
		state: wire.State{Status: statusNew}, size: [2]uint16{cfg.Height, cfg.Width},
		born: make(chan *child, 1), made: make(chan struct{}), quit: make(chan error, 1), over: make(chan struct{}), left: make(chan struct{}),
	}
	s.idle = time.AfterFunc(settle, s.trim)
	defer s.idle.Stop()
	chld := make(chan os.Signal, 1)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
	}
	signal.Notify(chld, unix.SIGCHLD)
	// An orderly shutdown of the machine ends the container first; the shim has its exit to note. Caught, not ignored: an
	// ignored signal would be ignored by the container's processes, too.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	l, err := wire.Listen(wire.SocketPath(cfg.RunDir))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	served := make(chan struct{})
	go func() {
		wire.Serve(l, (server{s}).serve)
		close(served)
	}()
	if o.Ready != nil {
		io.WriteString(o.Ready, "\n")
		if c, ok := o.Ready.(io.Closer); ok {
			c.Close()
		}
	}
	s.supervise(chld)
	s.bury(l)
	select {
	case <-served:
	case <-time.After(farewell):
	}
	return nil
}

// supervise returns when the container has ended and everybody who waits has been told, or when there will be none.
func (s *Shim) supervise(chld <-chan os.Signal) {
	var ended <-chan struct{}
	unborn := time.NewTimer(newborn)
	defer unborn.Stop()
	for {
		select {
		case <-chld:
			s.family.orphans()
		case c := <-s.born:
			unborn.Stop()
			ended = c.ended
		case <-ended:
			// A start or exec in progress comes to its end first, in error. An exec that somebody in a shared PID namespace stopped
			// (SIGSTOP before its execve) would never: it is killed.
			stuck := time.AfterFunc(s.cfg.Grace, func() { s.ctr.Signal(syscall.SIGKILL, true) })
			s.life.Lock()
			stuck.Stop()
			defer s.life.Unlock()
			select {
			case err := <-s.quit: // a failed start: init ended because of it
				s.giveUp(err)
			default:
				s.conclude()
			}
			return
		case err := <-s.quit:
			s.life.Lock()
			defer s.life.Unlock()
			s.giveUp(err)
			return
		case <-unborn.C:
			s.life.Lock()
			if s.status() == statusNew {
				defer s.life.Unlock()
				s.giveUp(errdef.New(errdef.Unavailable, "no container was asked for within %s", newborn))
				return
			}
			s.life.Unlock()
		}
	}
}

// conclude notes the exit of init and tells it. The caller holds life.
func (s *Shim) conclude() {
	exit := s.init.exit
	exit.OOMKilled = s.ctr.OOMKilled()
	if s.status() == statusCreated {
		exit.Error = "the container's first process ended before it was started"
	}
	s.closeLog()
	if err := s.noteExit(exit); err != nil {
		complain("note exit of %s: %v", s.cfg.ID, err)
	}
	s.mu.Lock()
	s.state.Status = statusStopped
	s.state.Exit = &exit
	s.mu.Unlock()
	s.last = wire.Reply{Exit: &exit}
	close(s.over)
}

// giveUp ends a shim whose container failed to come to be. The caller holds life.
func (s *Shim) giveUp(err error) {
	s.remove() // first: a parked init holds the pipes
	s.closeLog()
	s.mu.Lock()
	s.state.Status = statusStopped
	s.mu.Unlock()
	s.last = wire.ErrorReply(err)
	close(s.over)
}

// closeLog waits for the end of output, at most for the grace, and closes the log.
func (s *Shim) closeLog() {
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	s.slave.Close() // nil is an error that says so
	for _, p := range s.pumps {
		select {
		case <-p.Logged():
		case <-grace.C:
			for _, p := range s.pumps {
				p.Cut()
			}
			<-p.Logged()
		}
	}
	if s.in != nil {
		s.in.Close()
	}
	if s.log == nil {
		return
	}
	if err := s.log.Close(); err != nil {
		complain("%v", err)
	}
}

// bury deletes what is left of the container, removes the socket, and gives attached clients the rest.
func (s *Shim) bury(l *wire.Listener) {
	told := make(chan struct{})
	go func() { // ends when every client has read its last frame, or has been dropped for not reading
		for _, p := range s.pumps {
			<-p.Done()
		}
		s.out.Finish(lastFrame(s.last))
		close(told)
	}()
	s.remove()
	s.execs.wait(farewell)
	l.Close()
	close(s.left)
	<-told
}

// remove kills what is left of the container and deletes it, where there is one.
func (s *Shim) remove() {
	s.mu.Lock()
	ctr := s.ctr
	s.mu.Unlock()
	if ctr == nil {
		return
	}
	s.family.begin()
	if err := ctr.Delete(true); err != nil {
		complain("delete %s: %v", s.cfg.ID, err) // the engine's reconciliation finds it
	}
	s.family.end()
}

func (s *Shim) status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Status
}

// lastFrame makes the frame that ends a stream.
func lastFrame(r wire.Reply) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		b = []byte(`{"error":"encode reply"}`)
	}
	frame := make([]byte, wire.HeaderLen, wire.HeaderLen+len(b))
	wire.PutHeader(frame, wire.FrameReply, len(b))
	return append(frame, b...)
}

// complain writes a line to the shim's own log (stderr): what nobody waits to hear.
func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().UTC().Format(time.RFC3339)+" "+format+"\n", args...)
}

// busy puts off the giving back of memory until nothing has happened for a while: a container that ends at once does not
// pay for it, one that stays has a light shim.
func (s *Shim) busy() { s.idle.Reset(settle) }

// trim gives memory back.
func (s *Shim) trim() {
	s.life.RLock()
	if s.log != nil {
		s.log.Trim()
	}
	s.life.RUnlock()
	debug.FreeOSMemory()
	if err := selfmem.DropText(); err != nil {
		complain("give memory back: %v", err)
	}
}

// startTime returns field 22 of /proc/PID/stat, or 0.
func startTime(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return parseStartTime(b)
}

// signalOf makes a Signal of a number, checked.
func signalOf(n int) (syscall.Signal, error) {
	if n < 0 || n > 64 {
		return 0, errdef.New(errdef.InvalidArgument, "signal %d: there is no such signal", n)
	}
	return syscall.Signal(n), nil
}
