// Package keeper owns the engine's side of a shim: starting one, finding it again after the engine's own restart, and asking it.
//
// It promises that a shim it started outlives the engine, that none of the engine's descriptors leak into it, and that an exit
// which the shim recorded is never lost. It must never act on a process by its number alone.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/selfexe"
	"github.com/dhow-containers/dhow/internal/linux/selfmem"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

const readyTimeout = 20 * time.Second

// Shim is one running shim.
type Shim struct {
	socket, stateDir string
}

// Find returns the shim of a run folder; whether it lives shows at the first call.
func Find(runDir, stateDir string) *Shim {
	return &Shim{socket: wire.SocketPath(runDir), stateDir: stateDir}
}

// Start writes the configuration and starts the program binary with c.RunDir as its working folder.
func Start(ctx context.Context, binary string, c wire.Config) (*Shim, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode shim configuration: %w", err)
	}
	if err := atomicfile.WriteVolatile(filepath.Join(c.RunDir, wire.ConfigFile), b, 0o600, false); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(c.RunDir, "shim.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer log.Close()
	ready, readyW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer ready.Close()
	program, err := selfexe.ReadOnly(binary) // containers see it as /proc/PID/exe for a moment, and must not be able to write to it
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	files := []*os.File{null, null, log, readyW} // 3: one byte once the socket listens
	if program, err = selfexe.Above(program, files...); err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer program.Close()
	p, err := os.StartProcess(selfexe.Path(program), []string{"dhow-shim", c.RunDir}, &os.ProcAttr{
		Dir:   c.RunDir,
		Env:   append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, selfmem.NoHugePages()...), // a shim weighs a page here and there
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	readyW.Close()
	if err != nil {
		return nil, fmt.Errorf("start shim %s: %w", binary, err)
	}
	go p.Wait() // ends with the shim: only there so that no zombie stays
	if err := awaitReady(ctx, ready); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start shim: %w%s", err, tail(filepath.Join(c.RunDir, "shim.log")))
	}
	return Find(c.RunDir, c.StateDir), nil
}

func awaitReady(ctx context.Context, ready *os.File) error {
	ready.SetReadDeadline(time.Now().Add(readyTimeout))
	defer context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })()
	var b [1]byte
	_, err := ready.Read(b[:])
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return errdef.New(errdef.System, "it ended before it was ready")
	}
	return fmt.Errorf("wait for it to be ready: %w", err)
}

// tail gives the last words of a shim that did not come up.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 2048))
	if len(b) == 0 {
		return ""
	}
	return ": " + string(b)
}

// Alive reports whether the shim answers.
func (s *Shim) Alive(ctx context.Context) bool { return wire.Alive(ctx, s.socket) }

// Run makes the container and lets its command run. It returns the PID of its init once execve succeeded.
func (s *Shim) Run(ctx context.Context) (pid int, err error) {
	r, err := wire.Call(ctx, s.socket, wire.Request{Op: wire.OpStart})
	return r.Pid, err
}

// State asks what the shim knows.
func (s *Shim) State(ctx context.Context) (*wire.State, error) {
	r, err := wire.Call(ctx, s.socket, wire.Request{Op: wire.OpState})
	if err == nil && r.State == nil {
		err = errdef.New(errdef.DataLoss, "state: the shim sent none")
	}
	return r.State, err
}

// Wait blocks until the command has ended. errdef.NotFound means that the shim went away without recording an exit.
func (s *Shim) Wait(ctx context.Context) (wire.Exit, error) {
	r, err := wire.Call(ctx, s.socket, wire.Request{Op: wire.OpWait})
	if err == nil && r.Exit != nil {
		return *r.Exit, nil
	}
	if ctx.Err() != nil {
		return wire.Exit{}, ctx.Err()
	}
	return s.Recorded()
}

// Recorded reads the exit that the shim left on disk; errdef.NotFound when there is none.
func (s *Shim) Recorded() (wire.Exit, error) {
	f, err := os.Open(filepath.Join(s.stateDir, wire.ExitFile))
	if os.IsNotExist(err) {
		return wire.Exit{}, errdef.As(errdef.NotFound, err)
	}
	if err != nil {
		return wire.Exit{}, err
	}
	defer f.Close()
	var e wire.Exit
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&e); err != nil {
		return e, errdef.New(errdef.DataLoss, "read recorded exit: %w", err)
	}
	return e, nil
}

// Forget removes the recorded exit of an earlier run.
func Forget(stateDir string) error {
	if err := os.Remove(filepath.Join(stateDir, wire.ExitFile)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("forget the last exit: %w", err)
	}
	return nil
}

// Signal signals the container's init, or the exec named.
func (s *Shim) Signal(ctx context.Context, exec string, signal int) error {
	return s.do(ctx, wire.Request{Op: wire.OpSignal, Exec: exec, Signal: signal})
}

// Resize sets the size of the terminal of init, or of the exec named.
func (s *Shim) Resize(ctx context.Context, exec string, height, width uint16) error {
	return s.do(ctx, wire.Request{Op: wire.OpResize, Exec: exec, Height: height, Width: width})
}

// Pause freezes the container; Resume thaws it.
func (s *Shim) Pause(ctx context.Context) error { return s.do(ctx, wire.Request{Op: wire.OpPause}) }

// Resume thaws what Pause froze.
func (s *Shim) Resume(ctx context.Context) error { return s.do(ctx, wire.Request{Op: wire.OpResume}) }

// Update changes the limits of the running container.
func (s *Shim) Update(ctx context.Context, r *specs.LinuxResources) error {
	return s.do(ctx, wire.Request{Op: wire.OpUpdate, Resources: r})
}

// Attach opens a stream to init's stdio.
func (s *Shim) Attach(ctx context.Context, in, out, errs bool) (*wire.Stream, error) {
	return wire.OpenStream(ctx, s.socket, wire.Request{Op: wire.OpAttach, Stdin: in, Stdout: out, Stderr: errs})
}

// Exec starts a process in the container and opens a stream to its stdio; the stream's First.Pid is its PID.
func (s *Shim) Exec(ctx context.Context, r wire.Request) (*wire.Stream, error) {
	r.Op = wire.OpExec
	return wire.OpenStream(ctx, s.socket, r)
}

// ExecState asks after an exec.
func (s *Shim) ExecState(ctx context.Context, exec string) (*wire.ExecState, error) {
	r, err := wire.Call(ctx, s.socket, wire.Request{Op: wire.OpExecState, Exec: exec})
	return r.Exec, err
}

// End makes the shim delete its container, killing what runs when kill is set, and waits until it has left.
func (s *Shim) End(ctx context.Context, kill bool) error {
	err := s.do(ctx, wire.Request{Op: wire.OpShutdown, All: kill})
	if err != nil && !errdef.Is(err, errdef.Unavailable) {
		return err
	}
	return wire.Gone(ctx, s.socket)
}

func (s *Shim) do(ctx context.Context, r wire.Request) error {
	_, err := wire.Call(ctx, s.socket, r)
	return err
}
