package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// ExecOptions says what Exec shall run inside a running container.
type ExecOptions struct {
	Process     *specs.Process
	Stdio       [3]*os.File // descriptors 0, 1, 2; unused with Process.Terminal
	Console     func(master *os.File) error
	PreserveFDs int
	Host        facts.Host // as in CreateOptions
	Trace       io.Writer  // as in CreateOptions
	Warn        func(text string)
	// Cgroup puts the process into sub-cgroups that exist: v1 controller -> path below the container's, "" -> path in the v2 hierarchy.
	Cgroup map[string]string
	// IgnorePaused enters a paused container: the process begins when it is resumed, and with it what waits for it.
	IgnorePaused bool
	// Wait, where set, returns once something can be read from line, or why the process shall not be waited for: it is killed then, before it
	// has executed anything. It is for whoever enters a paused container.
	Wait func(line int) error
}

// Load returns a container that another process created.
func Load(root, id string) (*Container, error) {
	s, err := state.Load(root, id)
	if err != nil {
		return nil, err
	}
	return &Container{State: *s, root: root}, nil
}

// Init returns the container's first process; nil unless this process created the container.
func (c *Container) Init() *Process { return c.init }

func (c *Container) dir() string { return filepath.Join(c.root, c.State.ID) }

// Start lets a created container execute its program, and returns when it has, or why it could not. A container that could not
// start is dead; Delete removes what is left.
func (c *Container) Start() error {
	var err error
	if c.running != nil { // it waits for us and nobody else
		if err = c.running.Release(); err == nil {
			err = trace(c.trace, c.program, c.running.Times())
		}
		c.running = nil
	} else {
		status, serr := c.Status()
		if serr != nil {
			return serr
		}
		switch status {
		case state.Created:
		case state.Stopped:
			return errdef.New(errdef.Conflict, "cannot start a container that has stopped: %q", c.State.ID)
		case state.Running:
			return errdef.New(errdef.Conflict, "cannot start an already running container: %q", c.State.ID)
		default:
			return errdef.New(errdef.Conflict, "cannot start a container in the %s state: %q", status, c.State.ID)
		}
		err = c.releaseParked()
	}
	unix.Unlink(filepath.Join(c.dir(), state.Parked))
	if err != nil {
		if c.program != nil {
			return explain(c.program, err)
		}
		return err
	}
	if err = c.poststart(); err != nil { // runtime.md, Lifecycle, 9: the container is stopped
		if killErr := killAll(c); killErr != nil {
			err = fmt.Errorf("%w (and stopping the container: %v)", err, killErr)
		}
		c.killInit()
	}
	c.program, c.spec = nil, nil // a supervisor keeps a container for months: what is needed again is read again
	return err
}

// releaseParked releases a container through the FIFOs that Create made for it, and reads what became of it.
func (c *Container) releaseParked() error {
	ctlFile, statFile := filepath.Join(c.dir(), state.ParkCtl), filepath.Join(c.dir(), state.ParkStat)
	stat, err := unix.Open(statFile, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return notParked(c, statFile, err)
	}
	defer unix.Close(stat)
	ctl, err := unix.Open(ctlFile, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return notParked(c, ctlFile, err)
	}
	defer unix.Close(ctl)
	if err := onlyStarter(c, ctl); err != nil { // until ctl is closed
		return err
	}
	if _, err := unix.Write(ctl, []byte{1}); err != nil {
		return fmt.Errorf("start container %s: %w", c.State.ID, err)
	}
	unix.Unlink(filepath.Join(c.dir(), state.Parked)) // before the FIFOs, by which a starter that died in between is found out
	failed := interp.ReadReport(fifo(stat))
	unix.Unlink(statFile)
	unix.Unlink(ctlFile)
	if failed == nil {
		return nil
	}
	c.killInit() // it is about to end; who asks next shall not find it running
	index, errno := failed.Index, failed.Errno
	l, err := c.programLine(index)
	if err != nil {
		return errdef.New(kindOf(errno), "start container %s: %v at instruction %d (its listing: %v)", c.State.ID, errno, index, err)
	}
	if strings.HasPrefix(l.Note, "exec: ") {
		return execError(l.Note, errno)
	}
	if strings.HasPrefix(l.Why, "hooks.") {
		return hookError(l.Why, l.Note, failed)
	}
	return errdef.New(kindOf(errno), "start container %s: %s: %s: %v [instruction %d of the program]", c.State.ID, l.Why, l.Call, errno, index)
}

// notParked tells what others did to a container since it was seen to wait for its start, by which a FIFO cannot be opened.
func notParked(c *Container, fifo string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		if _, gone := state.Load(c.root, c.State.ID); errdef.Is(gone, errdef.NotFound) {
			return gone
		}
		return errdef.New(errdef.Conflict, "cannot start an already running container: %q", c.State.ID)
	}
	if errors.Is(err, unix.ENXIO) {
		return errdef.New(errdef.Conflict, "cannot start a container that has stopped: %q", c.State.ID)
	}
	return fmt.Errorf("start container %s: open %s: %w", c.State.ID, fifo, err)
}

// onlyStarter makes this process the one that starts the container: two would share the report of what became of it, and both call the hooks.
func onlyStarter(c *Container, ctl int) error {
	err := unix.Flock(ctl, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = os.Lstat(filepath.Join(c.dir(), state.Parked))
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
		return errdef.New(errdef.Conflict, "cannot start an already running container: %q", c.State.ID)
	}
	return err
}

// fifo is the reading end, opened without waiting for a writer, of a FIFO that has one.
type fifo int

// Read waits until there is something to read or no writer any more.
func (f fifo) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch err {
		case unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(f), Events: unix.POLLIN}}, -1)
		case unix.EINTR:
		default:
			return n, err
		}
	}
}

// programLine finds an instruction in the stored listing.
func (c *Container) programLine(index int) (prog.Line, error) {
	f, err := os.Open(filepath.Join(c.dir(), state.Program))
	if err != nil {
		return prog.Line{}, err
	}
	defer f.Close()
	lines, err := prog.ParseListing(f)
	if err != nil {
		return prog.Line{}, err
	}
	if index < 0 || index >= len(lines) {
		return prog.Line{}, errdef.New(errdef.DataLoss, "it has %d instructions", len(lines))
	}
	return lines[index], nil
}

// Status asks the kernel where the container is in its life.
func (c *Container) Status() (state.Status, error) {
	if c.State.Pid == 0 {
		return state.Creating, nil
	}
	if !c.State.Alive() {
		return state.Stopped, nil
	}
	if frozen(&c.State) { // be it started or not: what is frozen can be resumed and does nothing else
		return state.Paused, nil
	}
	if _, err := os.Stat(filepath.Join(c.dir(), state.Parked)); err == nil && !c.released() {
		return state.Created, nil
	}
	return state.Running, nil
}

// released tells whether a container that another process was to start has been, though its starter died before it could say so: a parked
// child holds its FIFO open, one that called execve does not.
func (c *Container) released() bool {
	if c.running != nil {
		return false
	}
	fd, err := unix.Open(filepath.Join(c.dir(), state.ParkCtl), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.ENXIO)
}

// Spec returns the config the container was made from.
func (c *Container) Spec() (*bundle.Spec, error) {
	if c.spec != nil {
		return c.spec, nil
	}
	s, _, err := bundle.Load(c.dir())
	if errdef.Is(err, errdef.NotFound) {
		s, _, err = bundle.Load(c.State.Bundle)
	}
	return s, err
}

// Exec starts a process inside the container. The process is a child of this one, to be waited for by its PID.
func (c *Container) Exec(o ExecOptions) (*Process, error) {
	in, done, err := execInput(c, &o)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := watchExec(c, o.Process); err != nil {
		return nil, err
	}
	r, err := c.enter(in, &o)
	if err != nil {
		return nil, err
	}
	proc, err := process(r.Pid)
	if err != nil { // no descriptor left: a process that nobody knows must not stay
		r.Kill()
		return nil, err
	}
	return proc, nil
}

// PlanExec returns the Program that c.Exec would run, and enters nothing.
func PlanExec(c *Container, o ExecOptions) (*prog.Program, error) {
	in, done, err := execInput(c, &o)
	if err != nil {
		return nil, err
	}
	defer done()
	return compile.Exec(in)
}

// execInput gathers the compiler's input; the function returned closes its descriptor.
func execInput(c *Container, o *ExecOptions) (in compile.ExecInput, done func(), err error) {
	status, err := c.Status()
	if err != nil {
		return in, nil, err
	}
	switch {
	case status == state.Running || status == state.Created:
	case status != state.Paused:
		return in, nil, errdef.New(errdef.Conflict, "cannot exec in a %s container: %q", status, c.State.ID)
	case !o.IgnorePaused:
		return in, nil, errdef.New(errdef.Conflict, "cannot exec in a paused container (use --ignore-paused to override): %q", c.State.ID)
	}
	s, err := c.Spec()
	if err != nil {
		return in, nil, err
	}
	init, err := process(c.State.Pid)
	if err != nil {
		return in, nil, err
	}
	defer func() {
		if err != nil {
			init.Pidfd.Close()
		}
	}()
	if !c.State.Alive() { // the pidfd was opened before this check: it is the container's or nobody's
		return in, nil, errdef.New(errdef.Conflict, "cannot exec in a stopped container: %q", c.State.ID)
	}
	o.Process = inherit(o.Process, s.Process)
	f, err := o.Host.Read(c.State.Bundle, &bundle.Spec{Process: o.Process, Linux: &specs.Linux{MountLabel: s.Linux.MountLabel}})
	if err != nil {
		return in, nil, err
	}
	f.Preserve, f.Stdio = o.PreserveFDs, numbers(o.Stdio)
	f.Home = facts.HomeInside(c.State.Pid, o.Process)
	ns, err := differing(c.State.Pid)
	if errors.Is(err, unix.ENOENT) { // it was killed and lets go of its namespaces, before it is dead
		err = errdef.New(errdef.Conflict, "cannot exec in a stopped container: %q", c.State.ID)
	}
	if err != nil {
		return in, nil, err
	}
	dirs, err := plan.Sub(c.State.Cgroups, o.Cgroup)
	if err != nil {
		return in, nil, err
	}
	return compile.ExecInput{ID: c.State.ID, Process: o.Process, Spec: s, Facts: f, Pidfd: int(init.Pidfd.Fd()), Pid: c.State.Pid, Namespaces: ns, Cgroups: dirs, Resctrl: c.State.Resctrl,
		Keyring: keyringOf(&c.State)}, func() { init.Pidfd.Close() }, nil
}

// inherit fills in what a process leaves unsaid, as runc does: it is confined and limited as the container's own.
func inherit(p, own *specs.Process) *specs.Process {
	if own == nil {
		return p
	}
	out := *p
	if out.Capabilities == nil {
		out.Capabilities = own.Capabilities
	}
	if out.ApparmorProfile == "" {
		out.ApparmorProfile = own.ApparmorProfile
	}
	if out.SelinuxLabel == "" {
		out.SelinuxLabel = own.SelinuxLabel
	}
	if len(out.Rlimits) == 0 {
		out.Rlimits = own.Rlimits
	}
	return &out
}

// differing returns the clone flags of the namespaces that a process does not share with us.
func differing(pid int) (uint64, error) {
	var flags uint64
	for _, n := range []struct {
		name string
		flag uint64
	}{{"user", unix.CLONE_NEWUSER}, {"mnt", unix.CLONE_NEWNS}, {"pid", unix.CLONE_NEWPID}, {"net", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP}, {"time", unix.CLONE_NEWTIME}} {
		var theirs, ours unix.Stat_t
		if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/"+n.name, &theirs); err != nil {
			if n.flag == unix.CLONE_NEWTIME && errors.Is(err, unix.ENOENT) {
				continue // this kernel has none
			}
			return 0, fmt.Errorf("namespace %s of process %d: %w", n.name, pid, err)
		}
		if err := unix.Stat("/proc/thread-self/ns/"+n.name, &ours); err != nil || ours.Ino != theirs.Ino {
			flags |= n.flag
		}
	}
	return flags, nil
}

// Pause freezes every process of the container.
func (c *Container) Pause() error {
	if err := needCgroups(&c.State, "pause"); err != nil {
		return err
	}
	return cgroup.Freeze(c.State.Cgroups)
}

// Resume thaws them.
func (c *Container) Resume() error {
	if err := needCgroups(&c.State, "resume"); err != nil {
		return err
	}
	return cgroup.Thaw(c.State.Cgroups)
}
