package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

type execFlags struct {
	process, cwd, user                  string
	consoleSocket, pidfdSocket, pidFile string
	label, apparmor                     string
	env, caps, gids, cgroups            list
	tty, detach, ignorePaused           bool
	noNewPrivs                          *bool
	preserve                            int
}

func (f *execFlags) define(fs *flag.FlagSet) {
	both(fs.StringVar, &f.process, "process", "p", "", "file with the process object as JSON, in place of a command")
	fs.StringVar(&f.cwd, "cwd", "", "working folder")
	both(fs.StringVar, &f.user, "user", "u", "", "UID[:GID]")
	fs.StringVar(&f.pidFile, "pid-file", "", "file to write the process ID to")
	fs.StringVar(&f.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.StringVar(&f.pidfdSocket, "pidfd-socket", "", "unix socket that receives a pidfd of the process")
	fs.StringVar(&f.label, "process-label", "", "SELinux label")
	fs.StringVar(&f.apparmor, "apparmor", "", "AppArmor profile")
	both(fs.BoolVar, &f.tty, "tty", "t", false, "give it a terminal")
	both(fs.BoolVar, &f.detach, "detach", "d", false, "do not wait for it")
	fs.BoolVar(&f.ignorePaused, "ignore-paused", false, "begin although the container is paused; the process waits until it is resumed")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass N descriptors on that follow the standard three")
	fs.Bool("no-subreaper", false, "as ever: exec adopts nobody")
	fs.BoolFunc("no-new-privs", "set no_new_privs (=false: do not)", func(s string) error {
		on, err := strconv.ParseBool(s)
		f.noNewPrivs = &on
		return err
	})
	for _, l := range []struct {
		list              *list
		long, short, help string
	}{{&f.env, "env", "e", "NAME=VALUE"}, {&f.caps, "cap", "c", "capability to add"}, {&f.gids, "additional-gids", "g", "group to add"},
		{&f.cgroups, "cgroup", "", "sub-cgroup that exists: PATH (v2) or CONTROLLER[,CONTROLLER...]:PATH"}} {
		fs.Var(l.list, l.long, l.help+", may be repeated")
		if l.short != "" {
			fs.Var(l.list, l.short, "short for --"+l.long)
		}
	}
}

// execFailed is the exit code when there is no process whose code could be passed on.
const execFailed = 255

func (a *app) exec(fs *flag.FlagSet, argv []string) (int, error) {
	var f execFlags
	f.define(fs)
	a.trace.define(fs)
	args, err := parse(fs, argv, thenTheirs(-1))
	if err != nil {
		return execFailed, err
	}
	if err := inherited(0, f.preserve); err != nil {
		return execFailed, err
	}
	c, o, err := f.options(a, args)
	if err != nil {
		return execFailed, err
	}
	if err := terminalFits(o.Process.Terminal, f.detach, f.consoleSocket); err != nil {
		return execFailed, err
	}
	if err := c.GuardExec(); err != nil {
		return execFailed, err
	}
	var s supervisor
	if !f.detach || f.ignorePaused {
		if err := s.begin(o.Process.Terminal, false); err != nil {
			return execFailed, err
		}
		o.Console = s.console()
	}
	if f.detach {
		o.Console = consoleTo(f.consoleSocket)
	}
	if f.ignorePaused {
		o.Wait = s.awaits
	}
	if o.Trace, err = a.trace.open(a.stderr); err != nil {
		return execFailed, err
	}
	o.Warn = a.warning
	p, err := c.Exec(o)
	if sig := interrupted(0); errors.As(err, &sig) {
		return 128 + int(sig), err
	}
	if err != nil {
		return execFailed, startError(err)
	}
	a.debug("process %d runs in %s", p.Pid, c.State.ID)
	if err := tellProcess(p, f.pidfdSocket, f.pidFile); err != nil {
		unix.PidfdSendSignal(int(p.Pidfd.Fd()), unix.SIGKILL, nil, 0)
		reap(p.Pid, true)
		return execFailed, err
	}
	if f.detach {
		return 0, nil
	}
	return s.wait(p), nil
}

// options gathers what is to be executed in which container.
func (f *execFlags) options(a *app, args []string) (*oci.Container, oci.ExecOptions, error) {
	o := oci.ExecOptions{PreserveFDs: f.preserve, IgnorePaused: f.ignorePaused}
	c, status, err := a.loadStatus(args[0])
	if err != nil {
		return nil, o, err
	}
	if status == state.Stopped {
		return nil, o, errdef.New(errdef.Conflict, "cannot exec in a stopped container: %q", args[0])
	}
	if f.process != "" {
		o.Process, err = readProcess(f.process)
	} else {
		o.Process, err = f.build(c, args[1:])
	}
	if err == nil {
		o.Cgroup, err = subCgroups(f.cgroups)
	}
	return c, o, err
}

// build takes the container's own process with the options' changes.
func (f *execFlags) build(c *oci.Container, args []string) (*specs.Process, error) {
	if len(args) == 0 {
		return nil, errdef.New(errdef.InvalidArgument, "exec args cannot be empty: give a command or --process")
	}
	s, err := c.Spec()
	if err != nil {
		return nil, err
	}
	if s.Process == nil {
		return nil, errdef.New(errdef.InvalidArgument, "config.json: process property must not be empty")
	}
	p := *s.Process
	p.Args, p.Terminal, p.ConsoleSize = args, f.tty, nil
	p.Env = append(append([]string(nil), p.Env...), f.env...)
	for _, set := range []struct {
		to    *string
		value string
	}{{&p.Cwd, f.cwd}, {&p.ApparmorProfile, f.apparmor}, {&p.SelinuxLabel, f.label}} {
		if set.value != "" {
			*set.to = set.value
		}
	}
	if f.noNewPrivs != nil {
		p.NoNewPrivileges = *f.noNewPrivs
	}
	if err := f.identity(&p.User); err != nil {
		return nil, err
	}
	if len(f.caps) > 0 {
		p.Capabilities = f.capabilities(p.Capabilities)
	}
	return &p, nil
}

func (f *execFlags) identity(u *specs.User) error {
	if f.user != "" {
		uid, gid, both := strings.Cut(f.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "--user %q: bad uid: %w", f.user, err)
		}
		u.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return errdef.New(errdef.InvalidArgument, "--user %q: bad gid: %w", f.user, err)
			}
			u.GID = uint32(n)
		}
	}
	groups := append([]uint32(nil), u.AdditionalGids...)
	for _, g := range f.gids {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "--additional-gids %q: %w", g, err)
		}
		groups = append(groups, uint32(n))
	}
	u.AdditionalGids = groups
	return nil
}

// capabilities adds to the sets of the container's. Ambient ones need to be inheritable: they are added where the config has such.
func (f *execFlags) capabilities(own *specs.LinuxCapabilities) *specs.LinuxCapabilities {
	var cc specs.LinuxCapabilities
	if own != nil {
		cc = *own
	}
	sets := []*[]string{&cc.Bounding, &cc.Effective, &cc.Permitted}
	if cc.Inheritable != nil {
		sets = append(sets, &cc.Inheritable, &cc.Ambient)
	}
	for _, set := range sets {
		*set = append(append([]string(nil), *set...), f.caps...)
	}
	return &cc
}

// subCgroups takes --cgroup apart: controller -> path, "" for the v2 hierarchy.
func subCgroups(args []string) (map[string]string, error) {
	var out map[string]string
	bad := func(arg, why string) error {
		return errdef.New(errdef.InvalidArgument, "invalid --cgroup argument: %s (%s)", arg, why)
	}
	for _, arg := range args {
		names, path, ok := strings.Cut(arg, ":")
		if !ok {
			if len(args) > 1 {
				return nil, bad(arg, "missing <controller>: prefix")
			}
			return map[string]string{"": arg}, nil
		}
		if out == nil {
			out = map[string]string{}
		}
		for name := range strings.SplitSeq(names, ",") {
			if name == "" {
				return nil, bad(arg, "empty <controller> prefix")
			}
			if _, twice := out[name]; twice {
				return nil, bad(arg, "controller "+name+" specified multiple times")
			}
			out[name] = path
		}
	}
	return out, nil
}

func readProcess(path string) (*specs.Process, error) {
	text, err := atomicfile.Read(path, bundle.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("--process: %w", err)
	}
	var p specs.Process
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&p); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("is empty")
		}
		return nil, errdef.New(errdef.InvalidArgument, "--process %s: %w", path, err)
	}
	return &p, nil
}

// consoleTo returns what passes a terminal's master on through a unix socket (runc's --console-socket protocol), nil without one.
func consoleTo(socket string) func(*os.File) error {
	if socket == "" {
		return nil
	}
	return func(master *os.File) error {
		defer master.Close()
		if err := sendFile(socket, master); err != nil {
			return fmt.Errorf("console socket %s: %w", socket, err)
		}
		return nil
	}
}
