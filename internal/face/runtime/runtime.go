// Package runtime is the OCI runtime's command line: runc's commands, flags, files and exit codes over package oci.
//
// It owns argument parsing, the terminal of a foreground container and what is printed. It promises that every error is one line
// on standard error (and in --log), and exit code 1 (exec: 255) unless the container's own is passed on. It must never act on kernel
// objects itself.
package runtime

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Version is what --version prints, set by the program.
type Version struct{ Number, Commit string }

// app is one invocation.
type app struct {
	logger
	root          string
	rootSet       bool
	rootless      string
	isRootless    *bool // nil: to be found out
	systemdCgroup bool
	trace         traceFlag
	version       Version
	stdout        io.Writer
}

// viewer are the commands that only print.
type viewer struct{ *app }

func view(do func(viewer, *flag.FlagSet, []string) (int, error)) func(*app, *flag.FlagSet, []string) (int, error) {
	return func(a *app, fs *flag.FlagSet, argv []string) (int, error) { return do(viewer{a}, fs, argv) }
}

// command is one word of the command line. In fails, %w stands for its error: engines know runc's by these words.
type command struct {
	name, args, help string
	run              func(a *app, fs *flag.FlagSet, argv []string) (int, error)
	fails            string
}

func commands() []command {
	return []command{
		{"create", "ID", "create a container, its process waiting for start", (*app).create, "create failed: %w"},
		{"start", "ID", "let the process of a created container go", (*app).start, ""},
		{"run", "ID", "create, start, wait, delete", (*app).runContainer, "run failed: %w"},
		{"exec", "ID COMMAND [ARG...]", "run a process in a running container", (*app).exec, "exec failed: %w"},
		{"state", "ID", "print the state of a container as JSON", view(viewer.state), ""},
		{"kill", "ID [SIGNAL]", "send a signal (default SIGTERM) to the container's first process", (*app).kill, ""},
		{"delete", "ID", "remove what a stopped container left", (*app).delete, ""},
		{"list", "", "list containers", view(viewer.list), ""},
		{"ps", "ID [PS OPTION...]", "list the processes in a container", view(viewer.ps), ""},
		{"pause", "ID", "freeze all processes of a container", (*app).pause, ""},
		{"resume", "ID", "thaw them", (*app).resume, ""},
		{"checkpoint", "ID", "save a running container with criu", (*app).checkpoint, ""},
		{"restore", "ID", "make a container from a checkpoint", (*app).restore, ""},
		{"update", "ID", "change the limits of a container", (*app).update, ""},
		{"events", "ID", "print what a container uses, and when its memory runs out", view(viewer.events), ""},
		{"spec", "", "write a config.json to begin with", view(viewer.spec), ""},
		{"plan", "[BUNDLE] | exec ID COMMAND [ARG...]", "print the system calls that run or exec would make", view(viewer.plan), ""},
		{"features", "", "print what this runtime supports, as JSON", view(viewer.features), ""},
	}
}

// Main runs one command and returns the exit code.
func Main(argv []string, v Version) int {
	a := &app{version: v, stdout: os.Stdout, logger: logger{stderr: os.Stderr, format: "text"}}
	code, err := a.main(argv)
	if err != nil {
		a.fail(err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

// codeNoTopic is the exit code for a command that does not exist.
const codeNoTopic = 3

func (a *app) main(argv []string) (int, error) {
	fs := flag.NewFlagSet("dhow-runtime", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	version := a.define(fs)
	if err := fs.Parse(argv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			a.usage(fs)
			return 0, nil
		}
		return 1, errdef.New(errdef.InvalidArgument, "%w; see dhow-runtime --help", err)
	}
	if *version {
		fmt.Fprintf(a.stdout, "dhow-runtime version %s\ncommit: %s\nspec: %s\ngo: %s\n", a.version.Number, a.version.Commit, specs.Version, goruntime.Version())
		return 0, nil
	}
	if err := a.settle(fs); err != nil {
		return 1, err
	}
	rest := fs.Args()
	if len(rest) > 0 && (rest[0] == "help" || rest[0] == "h") {
		if rest = rest[1:]; len(rest) > 0 {
			rest = []string{rest[0], "--help"}
		}
	}
	if len(rest) == 0 {
		a.usage(fs)
		return 0, nil
	}
	if a.trace != "" && !traces(rest[0]) {
		return 1, errdef.New(errdef.InvalidArgument, "--trace: %s executes no program; create, run and exec do", rest[0])
	}
	for _, c := range commands() {
		if c.name == rest[0] {
			return a.call(&c, rest[1:])
		}
	}
	return codeNoTopic, errdef.New(errdef.InvalidArgument, "no command %q; see dhow-runtime --help", rest[0])
}

func (a *app) call(c *command, argv []string) (int, error) {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	a.debug("%s %q, state below %s", c.name, argv, a.root)
	code, err := c.run(a, fs, argv)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(a.stdout, "Usage: dhow-runtime %s\n\n%s\n\n", strings.TrimSpace(c.name+" [OPTION...] "+c.args), c.help)
		fs.SetOutput(a.stdout)
		fs.PrintDefaults()
		return 0, nil
	}
	if wrong := (misuse{}); errors.As(err, &wrong) {
		return 1, err
	}
	if err != nil && c.fails != "" {
		err = fmt.Errorf(c.fails, err)
	}
	return code, err
}

// define declares the options that come before the command.
func (a *app) define(fs *flag.FlagSet) *bool {
	fs.StringVar(&a.root, "root", defaultRoot(), "folder of the containers' state, on a tmpfs")
	fs.StringVar(&a.file, "log", "", "file to log to; errors go to standard error as well")
	fs.StringVar(&a.format, "log-format", "text", "text or json")
	fs.BoolVar(&a.debugging, "debug", false, "log what is done, too")
	fs.BoolVar(&a.systemdCgroup, "systemd-cgroup", false, "have systemd make the container's cgroup; linux.cgroupsPath is then SLICE:PREFIX:NAME")
	fs.StringVar(&a.rootless, "rootless", "auto", "go on without the cgroups that we may not make: true, false or auto (when we are not root)")
	fs.Func("criu", "ignored: criu is found in $PATH", func(string) error { return nil })
	a.trace.define(fs)
	version := fs.Bool("version", false, "print the version")
	fs.BoolVar(version, "v", false, "print the version")
	return version
}

// settle checks the global options.
func (a *app) settle(fs *flag.FlagSet) error {
	if a.format == "" {
		a.format = "text"
	}
	if a.format != "text" && a.format != "json" {
		return errdef.New(errdef.InvalidArgument, "invalid log-format: %q is neither text nor json", a.format)
	}
	if err := a.open(); err != nil {
		return err
	}
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "root":
			a.rootSet = true
		case "criu":
			a.warn("--criu is ignored: criu is found in $PATH")
		}
	})
	root, err := filepath.Abs(a.root)
	if err != nil {
		return err
	}
	if root == "/" || a.root == "" {
		return errdef.New(errdef.InvalidArgument, "--root %q: the state of containers cannot lie in /", a.root)
	}
	a.root = root
	switch strings.ToLower(a.rootless) {
	case "", "auto":
	default:
		on, err := strconv.ParseBool(a.rootless)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "--rootless %q: use true, false or auto", a.rootless)
		}
		a.isRootless = &on

	}
	return nil
}

func (a *app) usage(fs *flag.FlagSet) {
	fmt.Fprint(a.stdout, "dhow-runtime, an OCI runtime: makes containers from bundles (config.json and a root file system).\n\n"+
		"Usage: dhow-runtime [GLOBAL OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(a.stdout, "  %-10s %s\n", c.name, c.help)
	}
	fmt.Fprint(a.stdout, "\nGlobal options:\n")
	fs.SetOutput(a.stdout)
	fs.PrintDefaults()
	fmt.Fprint(a.stdout, "\nExample: dhow-runtime run --bundle ./bundle demo\n")
}

// defaultRoot is below $XDG_RUNTIME_DIR for whoever is not root of the machine.
func defaultRoot() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" && (os.Geteuid() != 0 || inUserNamespace() && os.Getenv("USER") != "root") {
		return filepath.Join(d, "dhow-runtime")
	}
	return "/run/dhow-runtime"
}

func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}
