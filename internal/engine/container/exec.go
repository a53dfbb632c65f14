package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/keeper"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/shim/wire"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Execs implements api.Execs.
type Execs struct{ c *core }

// maxExecs bounds the execs that are remembered per container; the oldest ended ones are forgotten.
const maxExecs = 256

type execTable struct {
	mu   sync.Mutex
	byID map[string]*exec
	of   map[string][]*exec // by container, oldest first
}

// exec is one process asked for in a container.
type exec struct {
	id   string
	u    *unit
	req  container.ExecCreateRequest
	keys []byte

	mu      sync.Mutex // guards below
	started bool
	running bool
	pid     int
	code    *int
	shim    *keeper.Shim
	size    [2]uint
}

func (t *execTable) add(e *exec) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID, t.of = map[string]*exec{}, map[string][]*exec{}
	}
	list := append(t.of[e.u.id], e)
	for i := 0; len(list) > maxExecs && i < len(list); {
		if old := list[i]; old.over() {
			delete(t.byID, old.id)
			list = slices.Delete(list, i, i+1)
			continue
		}
		i++
	}
	t.byID[e.id], t.of[e.u.id] = e, list
}

func (t *execTable) find(eid string) (*exec, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byID[eid]; e != nil {
		return e, nil
	}
	return nil, errdef.New(errdef.NotFound, "No such exec instance: %s", eid)
}

func (t *execTable) forget(cid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.of[cid] {
		delete(t.byID, e.id)
	}
	delete(t.of, cid)
}

// live lists the execs of a container that have not ended.
func (t *execTable) live(cid string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, e := range t.of[cid] {
		if !e.over() {
			out = append(out, e.id)
		}
	}
	return out
}

func (e *exec) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started && !e.running
}

// Create implements api.Execs.
func (x *Execs) Create(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	u, err := x.c.table.find(ref)
	if err != nil {
		return "", err
	}
	if err := executable(u, ref); err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 || req.Cmd[0] == "" {
		return "", errdef.New(errdef.InvalidArgument, "No exec command specified")
	}
	keys, err := detachKeys(req.DetachKeys)
	if err != nil {
		return "", err
	}
	e := &exec{id: id.New(), u: u, req: req, keys: keys}
	if req.ConsoleSize != nil {
		e.size = *req.ConsoleSize
	}
	x.c.execs.add(e)
	x.c.execEvent(e, events.ActionExecCreate, true)
	return e.id, nil
}

func executable(u *unit, ref string) error {
	if _, err := u.current(); err != nil {
		return errdef.New(errdef.Conflict, "container %s is not running", ref)
	}
	if u.rec.Load().State.Paused {
		return errdef.New(errdef.Conflict, "container %s is paused, unpause the container before exec", ref)
	}
	return nil
}

func (c *core) execEvent(e *exec, a events.Action, command bool) {
	if command {
		a = events.Action(string(a) + ": " + strings.Join(e.req.Cmd, " "))
	}
	more := map[string]string{"execID": e.id}
	e.mu.Lock()
	if e.code != nil {
		more["exitCode"] = strconv.Itoa(*e.code)
	}
	e.mu.Unlock()
	c.event(e.u.rec.Load(), a, more)
}

// Start implements api.Execs.
func (x *Execs) Start(ctx context.Context, eid string, detach, tty bool, size [2]uint) (api.Session, error) {
	e, err := x.c.execs.find(eid)
	if err != nil {
		return nil, err
	}
	if err := executable(e.u, e.u.id); err != nil {
		return nil, err
	}
	r, err := e.u.current()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	if e.started {
		e.mu.Unlock()
		return nil, errdef.New(errdef.Conflict, "exec %s has already run", id.Short(eid))
	}
	e.started, e.running, e.shim = true, true, r.shim
	if size[0] > 0 {
		e.size = size
	}
	e.mu.Unlock()
	s := &execSession{c: x.c, e: e}
	if !detach {
		return s, nil
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	go s.copy(context.WithoutCancel(x.c.ctx), nil, io.Discard, io.Discard) // ends with the process
	return nil, nil
}

// execSession implements api.Session for an exec.
type execSession struct {
	c  *core
	e  *exec
	st *wire.Stream
}

// TTY implements api.Session.
func (s *execSession) TTY() bool { return s.e.req.Tty }

// open starts the process. Its output waits in the shim until copy reads it.
func (s *execSession) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			s.ended(startExitCode(err))
		}
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
	defer cancel()
	p, err := s.process(ctx)
	if err != nil {
		return err
	}
	s.e.mu.Lock()
	shim, size := s.e.shim, s.e.size
	s.e.mu.Unlock()
	st, err := shim.Exec(context.WithoutCancel(s.c.ctx), wire.Request{
		Exec: s.e.id, Process: p, Stdin: s.e.req.AttachStdin, Stdout: s.e.req.AttachStdout, Stderr: s.e.req.AttachStderr,
		Height: uint16(size[0]), Width: uint16(size[1]),
	})
	if err != nil {
		return startError(err)
	}
	s.st = st
	s.e.mu.Lock()
	s.e.pid = st.First.Pid
	s.e.mu.Unlock()
	s.c.execEvent(s.e, events.ActionExecStart, true)
	return nil
}

// Run implements api.Session. A command that cannot be run is an error here, and an exit code in Inspect.
func (s *execSession) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.copy(ctx, stdin, stdout, stderr)
}

func (s *execSession) copy(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	p := pump{st: s.st, tty: s.e.req.Tty, closeStdin: !s.e.req.Tty, keys: s.e.keys}
	if !s.e.req.AttachStdin {
		stdin = nil
	}
	last, err := p.run(ctx, stdin, stdout, stderr)
	switch {
	case errors.Is(err, errDetached):
		s.c.execEvent(s.e, events.ActionExecDetach, false)
		go s.follow()
		return nil
	case last != nil && last.Exit != nil:
		s.ended(last.Exit.Code)
		return nil
	}
	s.follow()
	return err
}

// follow asks the shim for the end of a process whose stream was left.
func (s *execSession) follow() {
	s.e.mu.Lock()
	shim := s.e.shim
	s.e.mu.Unlock()
	st, err := shim.ExecState(s.c.ctx, s.e.id)
	switch {
	case err != nil:
		s.ended(137)
	case st != nil && st.Exit != nil:
		s.ended(st.Exit.Code)
	}
}

func (s *execSession) ended(code int) {
	s.e.mu.Lock()
	if !s.e.running {
		s.e.mu.Unlock()
		return
	}
	s.e.running, s.e.code = false, &code
	s.e.mu.Unlock()
	s.c.execEvent(s.e, events.ActionExecDie, false)
}

// process makes the process from the container's own: its environment, capabilities and folder unless asked otherwise.
func (s *execSession) process(ctx context.Context) (*specs.Process, error) {
	b, _, err := bundle.Load(s.c.runDir(s.e.u.id))
	if err != nil {
		return nil, err
	}
	p := *b.Process
	rec := s.e.u.rec.Load()
	p.Args, p.Terminal, p.ConsoleSize = s.e.req.Cmd, s.e.req.Tty, nil
	if s.e.req.WorkingDir != "" {
		if !path.IsAbs(s.e.req.WorkingDir) {
			return nil, errdef.New(errdef.InvalidArgument, "exec: working folder %q: not an absolute path", s.e.req.WorkingDir)
		}
		p.Cwd = path.Clean(s.e.req.WorkingDir)
	}
	home := ""
	if s.e.req.User != "" && s.e.req.User != rec.Config.User {
		u, err := s.user(ctx, rec)
		if err != nil {
			return nil, err
		}
		p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: p.User.Umask}
		home = u.Home
	}
	p.Env = spec.ExecEnv(p.Env, s.e.req.Env, s.e.req.Tty, home, slices.ContainsFunc(rec.Config.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }))
	if s.e.req.Privileged {
		caps := s.c.Host.Caps
		p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
		if p.ApparmorProfile != "" {
			p.ApparmorProfile = "unconfined"
		}
	}
	return &p, nil
}

// user looks the user up in the running container: through its root folder, which is checked to be that of the same process.
func (s *execSession) user(ctx context.Context, rec *api.Container) (spec.User, error) {
	st, err := s.e.shim.State(ctx)
	if err != nil {
		return spec.User{}, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/root", st.Pid))
	if err != nil {
		return spec.User{}, fmt.Errorf("exec: open the container's root: %w", err)
	}
	root := rootfs.New(f)
	defer root.Close()
	if t, err := startTime(st.Pid); err != nil || t != st.StartTime {
		return spec.User{}, errdef.New(errdef.Conflict, "container %s is not running", rec.ID)
	}
	u, err := root.User(s.e.req.User, rec.HostConfig.GroupAdd)
	return spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}, err
}

// startTime reads field 22 of /proc/PID/stat; the command in field 2 may hold anything but ends in the last parenthesis.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, errdef.New(errdef.DataLoss, "read /proc/%d/stat: %d fields", pid, len(f))
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Inspect implements api.Execs.
func (x *Execs) Inspect(ctx context.Context, eid string) (container.ExecInspectResponse, error) {
	e, err := x.c.execs.find(eid)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	e.mu.Lock()
	running, shim := e.running, e.shim
	e.mu.Unlock()
	if running && shim != nil {
		(&execSession{c: x.c, e: e}).follow() // a detached client's exec may have ended
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged := e.req.Privileged
	return container.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.code, ContainerID: e.u.id, Pid: e.pid,
		OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout, OpenStderr: e.req.AttachStderr, DetachKeys: []byte(e.req.DetachKeys),
		ProcessConfig: &container.ExecProcessConfig{Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:], Privileged: &privileged, User: e.req.User},
	}, nil
}

// Resize implements api.Execs.
func (x *Execs) Resize(ctx context.Context, eid string, height, width uint) error {
	e, err := x.c.execs.find(eid)
	if err != nil {
		return err
	}
	if height > 65535 || width > 65535 {
		return errdef.New(errdef.InvalidArgument, "resize to %dx%d: a terminal has at most 65535 rows and columns", height, width)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running {
		return errdef.New(errdef.Conflict, "exec %s is not running", id.Short(eid))
	}
	return e.shim.Resize(ctx, e.id, uint16(height), uint16(width))
}
