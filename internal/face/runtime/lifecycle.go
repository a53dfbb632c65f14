package runtime

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/signals"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// createFlags are shared by create and run.
type createFlags struct {
	bundle, consoleSocket, pidFile string
	preserve                       int
	noPivot, keep, detach          bool
}

func (f *createFlags) define(fs *flag.FlagSet, run bool) {
	cwd := "."
	fs.StringVar(&f.bundle, "bundle", cwd, "folder with config.json")
	fs.StringVar(&f.bundle, "b", cwd, "short for --bundle")
	fs.StringVar(&f.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.StringVar(&f.pidFile, "pid-file", "", "file to write the process ID to")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass descriptors 3 to 3+N-1 on")
	fs.BoolVar(&f.noPivot, "no-pivot", false, "not implemented: dhow always uses pivot_root")
	if run {
		fs.BoolVar(&f.keep, "keep", false, "do not delete the container when it has ended")
		fs.BoolVar(&f.detach, "detach", false, "do not wait for the container")
		fs.BoolVar(&f.detach, "d", false, "short for --detach")
	}
}

func (a *app) options(f *createFlags, id string) (oci.CreateOptions, error) {
	var o oci.CreateOptions
	if f.noPivot {
		return o, errdef.New(errdef.NotImplemented, "--no-pivot is not implemented by this version of dhow")
	}
	dir, err := filepath.Abs(f.bundle)
	if err != nil {
		return o, err
	}
	s, r, raw, err := bundle.LoadRaw(dir)
	if err != nil {
		return o, err
	}
	if err := oci.GuardCreate(s); err != nil {
		return o, err
	}
	return oci.CreateOptions{ID: id, Root: a.root, Bundle: dir, Spec: s, Rootfs: r, Config: raw, PreserveFDs: f.preserve, Warn: a.warn}, nil
}

func (a *app) create(fs *flag.FlagSet, argv []string) (int, error) {
	var f createFlags
	f.define(fs, false)
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	o, err := a.options(&f, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	o.Detached = true
	if o.Console, err = consoleTo(f.consoleSocket, o.Spec.Process != nil && o.Spec.Process.Terminal); err != nil {
		return 1, err
	}
	c, err := oci.Create(o)
	if err != nil {
		return 1, err
	}
	return 0, a.writePid(c, f.pidFile)
}

// writePid writes the PID file, and takes the container back when it cannot.
func (a *app) writePid(c *oci.Container, file string) error {
	if file == "" {
		return nil
	}
	err := atomicfile.WriteVolatile(file, []byte(strconv.Itoa(c.Init().Pid)), 0o644, false)
	if err != nil {
		c.Delete(true)
	}
	return err
}

func (a *app) start(fs *flag.FlagSet, argv []string) (int, error) {
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	return 0, c.Start()
}

func (a *app) runContainer(fs *flag.FlagSet, argv []string) (int, error) {
	var f createFlags
	f.define(fs, true)
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	o, err := a.options(&f, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	terminal := o.Spec.Process != nil && o.Spec.Process.Terminal
	var tty *foreground
	switch {
	case f.consoleSocket != "" || !terminal:
		o.Console, err = consoleTo(f.consoleSocket, terminal)
	case f.detach:
		err = errdef.New(errdef.InvalidArgument, "process.terminal with --detach needs --console-socket")
	default:
		tty = &foreground{}
		o.Console = tty.take
	}
	if err != nil {
		return 1, err
	}
	arrived := -1
	if !f.detach {
		if arrived, err = signals.Pipe(forwarded()...); err != nil { // before the child exists: none is missed
			return 1, err
		}
	}
	c, err := oci.Create(o)
	if err != nil {
		return 1, err
	}
	if err := a.writePid(c, f.pidFile); err != nil {
		return 1, err
	}
	if err := c.Start(); err != nil {
		c.Delete(true)
		return startCode(err), err
	}
	if f.detach {
		return 0, nil
	}
	code := supervise(c.Init(), arrived, tty)
	if f.keep {
		return code, nil
	}
	return code, c.Delete(true)
}

// startCode is the exit code of a container whose program could not be executed (127, 126 as a shell has it).
func startCode(err error) int {
	switch errdef.KindOf(err) {
	case errdef.NotFound:
		return 127
	case errdef.Forbidden:
		return 126
	}
	return 1
}

// forwarded lists what is passed on. Each signal costs a system call; the real-time ones and those that tell of our own faults are left out.
func forwarded() []syscall.Signal {
	return []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGALRM, unix.SIGPWR}
}

// supervise passes signals on until the process ends, and returns its exit code (128+n after signal n).
func supervise(p *oci.Process, arrived int, tty *foreground) int {
	signal.Ignore(unix.SIGPIPE) // a closed pipe of ours
	defer signal.Reset(unix.SIGPIPE)
	if tty != nil {
		tty.begin()
		defer tty.end()
	}
	fds := []unix.PollFd{{Fd: int32(p.Pidfd.Fd()), Events: unix.POLLIN}, {Fd: int32(arrived), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			break // wait4 below waits as well
		}
		for _, s := range signals.Read(arrived) {
			if s == unix.SIGWINCH {
				if tty != nil {
					tty.resize()
				}
				continue
			}
			unix.PidfdSendSignal(int(fds[0].Fd), s, nil, 0)
		}
	}
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.Pid, &ws, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func (a *app) kill(fs *flag.FlagSet, argv []string) (int, error) {
	all := fs.Bool("all", false, "signal every process of the container")
	fs.BoolVar(all, "a", false, "short for --all")
	if err := parse(fs, argv, 1, 2); err != nil {
		return 1, err
	}
	sig := syscall.SIGTERM
	if fs.NArg() == 2 {
		var err error
		if sig, err = parseSignal(fs.Arg(1)); err != nil {
			return 1, err
		}
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	return 0, c.Signal(sig, *all)
}

func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := s
	if len(s) < 3 || s[:3] != "SIG" {
		name = "SIG" + s
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, errdef.New(errdef.InvalidArgument, "unknown signal %q", s)
}

func (a *app) delete(fs *flag.FlagSet, argv []string) (int, error) {
	force := fs.Bool("force", false, "kill it first if it runs; no error if there is none")
	fs.BoolVar(force, "f", false, "short for --force")
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		if *force && errdef.Is(err, errdef.NotFound) {
			if errors.Is(state.ValidID(fs.Arg(0)), nil) {
				os.RemoveAll(filepath.Join(a.root, fs.Arg(0))) // a state folder without a state: creation was cut off
			}
			return 0, nil
		}
		return 1, err
	}
	return 0, c.Delete(*force)
}

func (a *app) pause(fs *flag.FlagSet, argv []string) (int, error) {
	return a.withLoaded(fs, argv, (*oci.Container).Pause)
}

func (a *app) resume(fs *flag.FlagSet, argv []string) (int, error) {
	return a.withLoaded(fs, argv, (*oci.Container).Resume)
}

func (a *app) withLoaded(fs *flag.FlagSet, argv []string, do func(*oci.Container) error) (int, error) {
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	if status, err := c.Status(); err != nil {
		return 1, err
	} else if status == state.Stopped {
		return 1, errdef.New(errdef.Conflict, "container %s is stopped", fs.Arg(0))
	}
	return 0, do(c)
}

func (a *app) plan(fs *flag.FlagSet, argv []string) (int, error) {
	id := fs.String("id", "demo", "container ID to plan for")
	if err := parse(fs, argv, 0, 1); err != nil {
		return 1, err
	}
	f := createFlags{bundle: "."}
	if fs.NArg() == 1 {
		f.bundle = fs.Arg(0)
	}
	o, err := a.options(&f, *id)
	if err != nil {
		return 1, err
	}
	p, err := oci.Plan(o)
	if err != nil {
		return 1, err
	}
	if _, err := p.WriteTo(a.stdout); err != nil {
		return 1, fmt.Errorf("write plan: %w", err)
	}
	return 0, nil
}
