package runtime

import (
	"flag"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

func (a *app) kill(fs *flag.FlagSet, argv []string) (int, error) {
	var all bool
	both(fs.BoolVar, &all, "all", "a", false, "signal every process of the container; no error if there is none")
	args, err := parse(fs, argv, thenTheirs(2))
	if err != nil {
		return 1, err
	}
	sig := syscall.SIGTERM
	if len(args) == 2 && args[1] != "" {
		if sig, err = parseSignal(args[1]); err != nil {
			return 1, err
		}
	}
	c, err := a.load(args[0])
	if err != nil {
		return 1, err
	}
	return 0, c.Signal(sig, all)
}

// parseSignal understands numbers (0 asks whether there is a process), and names in any case with or without SIG.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 {
			return 0, errdef.New(errdef.InvalidArgument, "unknown signal %q: signals are 1 to 64", s)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, errdef.New(errdef.InvalidArgument, "unknown signal %q", s)
}

func (a *app) pause(fs *flag.FlagSet, argv []string) (int, error) {
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, status, err := a.loadStatus(args[0])
	if err != nil {
		return 1, err
	}
	if status != state.Running && status != state.Created {
		return 1, errdef.New(errdef.Conflict, "container not running: %q is %s", args[0], status)
	}
	return 0, c.Pause()
}

func (a *app) resume(fs *flag.FlagSet, argv []string) (int, error) {
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, status, err := a.loadStatus(args[0])
	if err != nil {
		return 1, err
	}
	if status != state.Paused {
		return 1, errdef.New(errdef.Conflict, "container not paused: %q is %s", args[0], status)
	}
	return 0, c.Resume()
}

func (a *app) load(id string) (*oci.Container, error) {
	c, err := oci.Load(a.root, id)
	if err == nil {
		c.Warn = a.warning
	}
	return c, err
}

func (a *app) loadStatus(id string) (*oci.Container, state.Status, error) {
	c, err := a.load(id)
	if err != nil {
		return nil, "", err
	}
	status, err := c.Status()
	return c, status, err
}
