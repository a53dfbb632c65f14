package shim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/shim/logfile"
	"github.com/dhow-containers/dhow/internal/shim/stdio"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// create has the runtime make the container, up to the barrier before execve.
func (s *Shim) create() (pid int, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if st := s.status(); st != statusNew || len(s.quit) > 0 {
		return 0, errdef.New(errdef.Conflict, "create %s: it is %s already", s.cfg.ID, st)
	}
	defer func() {
		if err != nil {
			s.quit <- err
		}
	}()
	// An exit.json of an earlier run has been read by the engine before it started us; it must not be taken for ours.
	if err := os.Remove(filepath.Join(s.cfg.StateDir, wire.ExitFile)); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	spec, rootfs, err := bundle.Load(s.cfg.Bundle)
	if err != nil {
		return 0, err
	}
	if err := s.openLog(); err != nil {
		return 0, err
	}
	p, err := newPlumbing(s.cfg.Terminal, s.cfg.Stdin, true, true)
	if err != nil {
		return 0, err
	}
	defer p.closeTheirs()
	s.family.begin()
	ctr, err := s.o.Create(oci.CreateOptions{
		ID: s.cfg.ID, Root: s.cfg.OCIRoot, Bundle: s.cfg.Bundle, Spec: spec, Rootfs: rootfs,
		Stdio: p.theirs, Console: p.console(s.termSize),
	})
	if err != nil {
		s.family.end()
		p.closeOurs()
		return 0, err
	}
	init := s.family.adopt(ctr.Init().Pid)
	s.family.end()
	s.pumps = p.pump(s.out, s.stream)
	s.mu.Lock()
	s.ctr, s.init, s.in, s.master, s.slave = ctr, init, p.in, p.master, p.slave
	s.state = wire.State{Status: statusCreated, Pid: init.pid, StartTime: startTime(init.pid)}
	s.mu.Unlock()
	close(s.made)
	s.born <- init
	return init.pid, nil
}

// start releases the container.
func (s *Shim) start() (pid int, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if st := s.status(); st != statusCreated || len(s.quit) > 0 {
		return 0, errdef.New(errdef.Conflict, "start %s: it is %s", s.cfg.ID, st)
	}
	s.family.begin()
	err = s.ctr.Start()
	s.family.end()
	if err != nil {
		s.quit <- err
		return 0, err
	}
	s.mu.Lock()
	s.state.Status = statusRunning
	s.state.StartedAt = time.Now().UTC()
	s.mu.Unlock()
	return s.init.pid, nil
}

func (s *Shim) openLog() (err error) {
	switch c := s.cfg.Log; c.Driver {
	case "none", "":
		return nil
	case "json-file":
		s.log, err = logfile.Create(c.Path, logfile.WriterOptions{
			MaxSize: c.MaxSize, MaxFiles: c.MaxFiles, Attrs: c.Attrs, NoSync: s.cfg.Volatile,
		})
		return err
	default:
		return errdef.New(errdef.NotImplemented, "log driver %q: the shim has json-file and none", c.Driver)
	}
}

// stream returns the log of one output.
func (s *Shim) stream(typ byte) stdio.Log {
	if s.log == nil {
		return nil
	}
	if typ == wire.FrameStderr {
		return s.log.Stream("stderr")
	}
	return s.log.Stream("stdout")
}

func (s *Shim) termSize() [2]uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// noteExit writes exit.json.
func (s *Shim) noteExit(e wire.Exit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := filepath.Join(s.cfg.StateDir, wire.ExitFile)
	if s.cfg.Volatile {
		return atomicfile.WriteVolatile(path, append(b, '\n'), 0o600, false)
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// plumbing is the standard input and output of one process, both ends.
type plumbing struct {
	terminal bool
	theirs   [3]*os.File
	out, err *os.File
	in       *stdio.Input
	stdin    *os.File
	master   *os.File
	// slave is held until the process has ended: while nobody has the slave open, its master reads as ended (EIO), and closing that
	// would hang up on a process that is only between two terminals, as systemd is.
	slave *os.File
}

// newPlumbing makes pipes for what is wanted and /dev/null for the rest, or prepares for a terminal.
func newPlumbing(terminal, stdin, stdout, stderr bool) (p *plumbing, err error) {
	p = &plumbing{terminal: terminal}
	if terminal {
		return p, nil
	}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
		}
	}()
	if stdin {
		if p.stdin, p.theirs[0], err = stdio.InPipe(); err != nil {
			return nil, err
		}
		p.in = stdio.NewInput(p.stdin, false)
	}
	if stdout {
		if p.out, p.theirs[1], err = stdio.OutPipe(); err != nil {
			return nil, err
		}
	}
	if stderr {
		if p.err, p.theirs[2], err = stdio.OutPipe(); err != nil {
			return nil, err
		}
	}
	for i, f := range p.theirs {
		if f == nil {
			if p.theirs[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// console returns what the runtime hands a terminal's master to, or nil.
func (p *plumbing) console(size func() [2]uint16) func(*os.File) error {
	if !p.terminal {
		return nil
	}
	return func(f *os.File) (err error) {
		if p.master, err = stdio.Master(f); err != nil {
			return err
		}
		if p.slave, err = stdio.Peer(p.master); err != nil {
			return err
		}
		p.in = stdio.NewInput(p.master, true)
		hw := size()
		return stdio.Resize(p.master, hw[0], hw[1])
	}
}

// pump starts reading; log may return nil.
func (p *plumbing) pump(out *stdio.Output, log func(byte) stdio.Log) (pumps []*stdio.Pump) {
	if p.out != nil {
		pumps = append(pumps, stdio.NewPump(p.out, wire.FrameStdout, out, log(wire.FrameStdout)))
	}
	if p.err != nil {
		pumps = append(pumps, stdio.NewPump(p.err, wire.FrameStderr, out, log(wire.FrameStderr)))
	}
	if p.master != nil {
		pumps = append(pumps, stdio.NewPump(p.master, wire.FrameStdout, out, log(wire.FrameStdout)))
	}
	return pumps
}

func (p *plumbing) closeTheirs() {
	for i, f := range p.theirs {
		if f != nil {
			f.Close()
			p.theirs[i] = nil
		}
	}
}

func (p *plumbing) closeOurs() {
	for _, f := range []*os.File{p.stdin, p.out, p.err, p.master, p.slave} {
		if f != nil {
			f.Close()
		}
	}
}
