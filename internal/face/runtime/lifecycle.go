package runtime

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// createFlags are shared by create and run.
type createFlags struct {
	bundle                     string
	consoleSocket, pidfdSocket string
	pidFile                    string
	preserve                   int
	noPivot, noNewKeyring      bool
	keep, detach, noSubreaper  bool
}

func (f *createFlags) define(fs *flag.FlagSet, run bool) {
	f.defineBundle(fs)
	fs.StringVar(&f.pidfdSocket, "pidfd-socket", "", "unix socket that receives a pidfd of the first process")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass N descriptors on that follow the standard three and those of LISTEN_FDS")
	fs.BoolVar(&f.noPivot, "no-pivot", false, "move the root instead of pivot_root, for hosts that run from a ramdisk")
	fs.BoolVar(&f.noNewKeyring, "no-new-keyring", false, "stay in the caller's session keyring")
	if run {
		fs.BoolVar(&f.keep, "keep", false, "do not delete the container when it has ended")
		both(fs.BoolVar, &f.detach, "detach", "d", false, "do not wait for the container")
		fs.BoolVar(&f.noSubreaper, "no-subreaper", false, "do not adopt what the container's processes leave behind")
	}
}

// defineBundle defines what restore has too.
func (f *createFlags) defineBundle(fs *flag.FlagSet) {
	both(fs.StringVar, &f.bundle, "bundle", "b", "", "folder with config.json (the current one)")
	fs.StringVar(&f.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.StringVar(&f.pidFile, "pid-file", "", "file to write the process ID to")
}

// options loads the bundle.
func (a *app) options(f *createFlags, id string) (oci.CreateOptions, error) {
	var o oci.CreateOptions
	listen := activated(os.Getenv, os.Getpid)
	if err := inherited(listen, f.preserve); err != nil {
		return o, err
	}
	dir, err := filepath.Abs(f.bundle)
	if err != nil {
		return o, err
	}
	s, r, raw, err := bundle.LoadRaw(dir)
	if err != nil {
		if errdef.Is(err, errdef.NotFound) {
			err = errdef.New(errdef.NotFound, "JSON specification file %s not found in %s", bundle.ConfigFile, dir)
		}
		return o, err
	}
	if s.Process == nil {
		return o, errdef.New(errdef.InvalidArgument, "config.json: process property must not be empty")
	}
	if err := oci.GuardCreate(s); err != nil {
		return o, err
	}
	if listen > 0 {
		s.Process.Env = append(s.Process.Env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
	w, err := a.trace.open(a.stderr)
	if err != nil {
		return o, err
	}
	return oci.CreateOptions{Trace: w, ID: id, Root: a.root, Bundle: dir, Spec: s, Rootfs: r, Config: raw, PreserveFDs: listen + f.preserve, Warn: a.warning,
		Systemd: a.systemdCgroup, Rootless: a.isRootless, NoPivot: f.noPivot, NoNewKeyring: f.noNewKeyring, Notify: os.Getenv(notifySocket) != ""}, nil
}

// terminalFits checks that somebody takes the terminal, or that there is none to take.
func terminalFits(terminal, detach bool, socket string) error {
	switch {
	case terminal && detach && socket == "":
		return errdef.New(errdef.InvalidArgument, "cannot allocate tty if runtime will detach without setting console socket (process.terminal is set: use --console-socket)")
	case (!terminal || !detach) && socket != "":
		return errdef.New(errdef.InvalidArgument, "cannot use console socket if runtime will not detach or allocate tty (--console-socket with process.terminal %v, detached %v)", terminal, detach)
	}
	return nil
}

func (a *app) create(fs *flag.FlagSet, argv []string) (int, error) {
	var f createFlags
	f.define(fs, false)
	a.trace.define(fs)
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	o, err := a.options(&f, args[0])
	if err != nil {
		return 1, err
	}
	if err := terminalFits(o.Spec.Process.Terminal, true, f.consoleSocket); err != nil {
		return 1, err
	}
	o.Detached = true
	o.Console = consoleTo(f.consoleSocket)
	c, err := oci.Create(o)
	if err != nil {
		return 1, startError(err)
	}
	a.debug("created %s: process %d", c.State.ID, c.State.Pid)
	return 0, announce(c, &f)
}

// announce tells who asked about the first process, and takes the container back when it cannot.
func announce(c *oci.Container, f *createFlags) error {
	err := tellProcess(c.Init(), f.pidfdSocket, f.pidFile)
	if err != nil {
		err = errors.Join(err, c.Delete(true))
	}
	return err
}

func tellProcess(p *oci.Process, pidfdSocket, pidFile string) error {
	if pidfdSocket != "" {
		if err := sendFile(pidfdSocket, p.Pidfd); err != nil {
			return fmt.Errorf("--pidfd-socket %s: %w", pidfdSocket, err)
		}
	}
	if pidFile != "" {
		if err := atomicfile.WriteVolatile(pidFile, []byte(strconv.Itoa(p.Pid)), 0o644, false); err != nil {
			return fmt.Errorf("--pid-file: %w", err)
		}
	}
	return nil
}

func (a *app) start(fs *flag.FlagSet, argv []string) (int, error) {
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, err := a.load(args[0])
	if err != nil {
		return 1, err
	}
	n, err := listenNotify(c, os.Getenv(notifySocket))
	if err != nil {
		return 1, err
	}
	defer n.close()
	if err := c.Start(); err != nil {
		return 1, startError(err)
	}
	return 0, n.forward(c.State.Pid)
}

func (a *app) runContainer(fs *flag.FlagSet, argv []string) (int, error) {
	var f createFlags
	f.define(fs, true)
	a.trace.define(fs)
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	o, err := a.options(&f, args[0])
	if err != nil {
		return 1, err
	}
	terminal := o.Spec.Process.Terminal
	if err := terminalFits(terminal, f.detach, f.consoleSocket); err != nil {
		return 1, err
	}
	var s supervisor
	if f.detach {
		o.Console = consoleTo(f.consoleSocket)
	} else {
		if err := s.begin(terminal, !f.noSubreaper && oci.SharesPids(o.Spec)); err != nil { // before the child exists: no signal is missed
			return 1, err
		}
		o.Console = s.console()
	}
	c, err := oci.Create(o)
	if err != nil {
		return 1, startError(err)
	}
	a.debug("created %s: process %d", c.State.ID, c.State.Pid)
	n, err := listenNotify(c, os.Getenv(notifySocket))
	if err != nil {
		return 1, errors.Join(err, c.Delete(true))
	}
	defer n.close()
	if err := announce(c, &f); err != nil {
		return 1, err
	}
	if err := c.Start(); err != nil {
		return 1, errors.Join(startError(err), c.Delete(true))
	}
	if f.detach {
		return 0, n.forward(c.State.Pid)
	}
	if n != nil {
		go n.forward(c.State.Pid) // ends with the container, or with us
	}
	code := s.wait(c.Init())
	a.debug("%s ended with code %d", c.State.ID, code)
	if f.keep {
		return code, nil
	}
	return code, c.Delete(true)
}

// startError puts runc's words before what concerns the container's program: engines look for them.
func startError(err error) error {
	switch errdef.KindOf(err) {
	case errdef.NotFound, errdef.Forbidden:
		return fmt.Errorf("unable to start container process: %w", err)
	}
	return err
}

func (a *app) delete(fs *flag.FlagSet, argv []string) (int, error) {
	var force bool
	both(fs.BoolVar, &force, "force", "f", false, "kill it first if it runs; no error if there is none")
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, err := a.load(args[0])
	if err == nil {
		return 0, c.Delete(force)
	}
	if errdef.Is(err, errdef.NotFound) {
		if rmErr := oci.Discard(a.root, args[0]); rmErr != nil {
			return 1, rmErr
		}
		if force {
			return 0, nil
		}
	}
	return 1, err
}
