package runtime

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/signals"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

type execFlags struct {
	process, cwd, user, pidFile, consoleSocket string
	env, caps                                  list
	tty, detach, noNewPrivs                    bool
	preserve                                   int
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func (f *execFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.process, "process", "", "file with the process object as JSON")
	fs.StringVar(&f.process, "p", "", "short for --process")
	fs.StringVar(&f.cwd, "cwd", "", "working folder")
	fs.StringVar(&f.user, "user", "", "UID[:GID]")
	fs.StringVar(&f.user, "u", "", "short for --user")
	fs.StringVar(&f.pidFile, "pid-file", "", "file to write the process ID to")
	fs.StringVar(&f.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.Var(&f.env, "env", "NAME=VALUE, may be repeated")
	fs.Var(&f.env, "e", "short for --env")
	fs.Var(&f.caps, "cap", "capability to add, may be repeated")
	fs.Var(&f.caps, "c", "short for --cap")
	fs.BoolVar(&f.tty, "tty", false, "give it a terminal")
	fs.BoolVar(&f.tty, "t", false, "short for --tty")
	fs.BoolVar(&f.detach, "detach", false, "do not wait for it")
	fs.BoolVar(&f.detach, "d", false, "short for --detach")
	fs.BoolVar(&f.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass descriptors 3 to 3+N-1 on")
}

func (a *app) exec(fs *flag.FlagSet, argv []string) (int, error) {
	var f execFlags
	f.define(fs)
	if err := parse(fs, argv, 1, -1); err != nil {
		return 255, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 255, err
	}
	s, err := c.Spec()
	if err != nil {
		return 255, err
	}
	p, err := f.build(s, fs.Args()[1:])
	if err != nil {
		return 255, err
	}
	if err := c.GuardExec(); err != nil {
		return 255, err
	}
	o := oci.ExecOptions{Process: p, PreserveFDs: f.preserve, Warn: a.warn}
	var tty *foreground
	if p.Terminal && f.consoleSocket == "" && !f.detach {
		tty = &foreground{}
		o.Console = tty.take
	} else if o.Console, err = consoleTo(f.consoleSocket, p.Terminal); err != nil {
		return 255, err
	}
	arrived := -1
	if !f.detach {
		if arrived, err = signals.Pipe(forwarded()...); err != nil {
			return 255, err
		}
	}
	proc, err := c.Exec(o)
	if err != nil {
		if code := startCode(err); code != 1 {
			return code, err
		}
		return 255, err
	}
	if f.pidFile != "" {
		if err := atomicfile.WriteVolatile(f.pidFile, []byte(strconv.Itoa(proc.Pid)), 0o644, false); err != nil {
			return 255, err
		}
	}
	if f.detach {
		return 0, nil
	}
	return supervise(proc, arrived, tty), nil
}

// build takes the process from a file, or the container's own with the flags' changes.
func (f *execFlags) build(s *bundle.Spec, args []string) (*specs.Process, error) {
	if f.process != "" {
		return readProcess(f.process)
	}
	if len(args) == 0 {
		return nil, errdef.New(errdef.InvalidArgument, "exec: no command given")
	}
	p := *s.Process
	p.Args, p.Terminal, p.ConsoleSize = args, f.tty, nil
	p.Env = append(append([]string(nil), p.Env...), f.env...)
	if f.cwd != "" {
		p.Cwd = f.cwd
	}
	p.NoNewPrivileges = p.NoNewPrivileges || f.noNewPrivs
	if f.user != "" {
		uid, gid, both := strings.Cut(f.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "exec: --user %q: not a number", f.user)
		}
		p.User = specs.User{UID: uint32(n)}
		if both {
			g, err := strconv.ParseUint(gid, 10, 32)
			if err != nil {
				return nil, errdef.New(errdef.InvalidArgument, "exec: --user %q: group is not a number", f.user)
			}
			p.User.GID = uint32(g)
		}
	}
	if len(f.caps) > 0 && p.Capabilities != nil {
		cc := *p.Capabilities
		for _, set := range []*[]string{&cc.Bounding, &cc.Effective, &cc.Permitted} {
			*set = append(append([]string(nil), *set...), f.caps...)
		}
		p.Capabilities = &cc
	}
	return &p, nil
}

func readProcess(path string) (*specs.Process, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var p specs.Process
	if err := json.NewDecoder(io.LimitReader(file, bundle.MaxConfig)).Decode(&p); err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "parse %s: %w", path, err)
	}
	return &p, nil
}

// consoleTo returns what passes a terminal's master on through a unix socket (runc's --console-socket protocol: one message whose
// ancillary data is the descriptor).
func consoleTo(socket string, terminal bool) (func(*os.File) error, error) {
	if !terminal {
		if socket != "" {
			return nil, errdef.New(errdef.InvalidArgument, "--console-socket is given but process.terminal is not set")
		}
		return nil, nil
	}
	if socket == "" {
		return nil, errdef.New(errdef.InvalidArgument, "process.terminal is set: --console-socket is needed")
	}
	return func(master *os.File) error {
		defer master.Close()
		if err := sendFile(socket, master); err != nil {
			return fmt.Errorf("console socket %s: %w", socket, err)
		}
		return nil
	}, nil
}
