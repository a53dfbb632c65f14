// Package runtime is the OCI runtime's command line: runc's commands, flags, files and exit codes over package oci.
//
// It owns argument parsing, the terminal of a foreground container and what is printed. It promises that every error is one line
// on standard error (and in --log), and exit code 1 unless the container's own is passed on. It must never act on kernel objects itself.
package runtime

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Version is what --version prints, set by the program.
type Version struct{ Number, Commit string }

// app is one invocation.
type app struct {
	root          string
	log           string
	logFormat     string
	systemdCgroup bool
	version       Version
	stdout        io.Writer
	stderr        io.Writer
}

type command struct {
	name, args, help string
	run              func(a *app, fs *flag.FlagSet, argv []string) (int, error)
}

func commands() []command {
	return []command{
		{"create", "ID", "create a container, its process waiting for start", (*app).create},
		{"start", "ID", "let the process of a created container go", (*app).start},
		{"run", "ID", "create, start, wait, delete", (*app).runContainer},
		{"exec", "ID COMMAND [ARG...]", "run a process in a running container", (*app).exec},
		{"state", "ID", "print the state of a container as JSON", (*app).state},
		{"kill", "ID [SIGNAL]", "send a signal (default SIGTERM) to the container's first process", (*app).kill},
		{"delete", "ID", "remove what a stopped container left", (*app).delete},
		{"list", "", "list containers", (*app).list},
		{"ps", "ID [PS OPTION...]", "list the processes in a container", (*app).ps},
		{"pause", "ID", "freeze all processes of a container", (*app).pause},
		{"resume", "ID", "thaw them", (*app).resume},
		{"spec", "", "write a config.json to begin with", (*app).spec},
		{"plan", "[BUNDLE]", "print the system calls that would make the container", (*app).plan},
		{"features", "", "print what this runtime supports, as JSON", (*app).features},
	}
}

// Main runs one command and returns the exit code.
func Main(argv []string, v Version) int {
	a := &app{version: v, stdout: os.Stdout, stderr: os.Stderr}
	code, err := a.main(argv)
	if err != nil {
		a.report(err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

func (a *app) main(argv []string) (int, error) {
	fs := flag.NewFlagSet("dhow-runtime", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&a.root, "root", defaultRoot(), "folder of the containers' state")
	fs.StringVar(&a.log, "log", "", "file for errors, in addition to standard error")
	fs.StringVar(&a.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&a.systemdCgroup, "systemd-cgroup", false, "use the systemd cgroup driver (not implemented)")
	debug := fs.Bool("debug", false, "accepted for compatibility: the program listing is always kept")
	version := fs.Bool("version", false, "print the version")
	fs.BoolVar(version, "v", false, "print the version")
	_ = debug
	if err := fs.Parse(argv); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			a.usage(a.stdout)
			return 0, nil
		}
		return 1, errdef.New(errdef.InvalidArgument, "%w; see dhow-runtime --help", err)
	}
	if *version {
		fmt.Fprintf(a.stdout, "dhow-runtime version %s\ncommit: %s\nspec: %s\n", a.version.Number, a.version.Commit, specs.Version)
		return 0, nil
	}
	if a.logFormat != "text" && a.logFormat != "json" {
		return 1, errdef.New(errdef.InvalidArgument, "--log-format %q is neither text nor json", a.logFormat)
	}
	if a.systemdCgroup {
		return 1, errdef.New(errdef.NotImplemented, "--systemd-cgroup is not implemented by this version of dhow")
	}
	if fs.NArg() == 0 || fs.Arg(0) == "help" {
		a.usage(a.stdout)
		return 0, nil
	}
	for _, c := range commands() {
		if c.name == fs.Arg(0) {
			sub := flag.NewFlagSet("dhow-runtime "+c.name, flag.ContinueOnError)
			sub.SetOutput(io.Discard)
			code, err := c.run(a, sub, fs.Args()[1:])
			if errors.Is(err, flag.ErrHelp) {
				fmt.Fprintf(a.stdout, "Usage: dhow-runtime %s [OPTION...] %s\n\n%s\n\n", c.name, c.args, c.help)
				sub.SetOutput(a.stdout)
				sub.PrintDefaults()
				return 0, nil
			}
			return code, err
		}
	}
	return 1, errdef.New(errdef.InvalidArgument, "unknown command %q; see dhow-runtime --help", fs.Arg(0))
}

// parse reads a command's flags and checks the number of what remains.
func parse(fs *flag.FlagSet, argv []string, least, most int) error {
	if err := fs.Parse(argv); err != nil {
		return err
	}
	if n := fs.NArg(); n < least || most >= 0 && n > most {
		return errdef.New(errdef.InvalidArgument, "%s: %d arguments given; see %s --help", fs.Name(), n, fs.Name())
	}
	return nil
}

func (a *app) usage(w io.Writer) {
	fmt.Fprint(w, "dhow-runtime, an OCI runtime: makes containers from bundles (config.json and a root file system).\n\n"+
		"Usage: dhow-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprint(w, "\nExample: dhow-runtime run --bundle ./bundle demo\n")
}

func defaultRoot() string {
	if os.Geteuid() != 0 {
		if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
			return filepath.Join(d, "dhow-runtime")
		}
	}
	return "/run/dhow-runtime"
}

// report writes an error to standard error and, where asked, to the log that engines read (runc's JSON lines: level, msg, time).
func (a *app) report(err error) {
	msg := strings.TrimSpace(err.Error())
	fmt.Fprintln(a.stderr, "dhow-runtime: "+msg)
	a.toLog("error", msg)
}

// warn is report for what is no error.
func (a *app) warn(msg string) {
	fmt.Fprintln(a.stderr, "dhow-runtime: warning: "+msg)
	a.toLog("warning", msg)
}

func (a *app) toLog(level, msg string) {
	if a.log == "" {
		return
	}
	f, openErr := os.OpenFile(a.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if openErr != nil {
		fmt.Fprintln(a.stderr, "dhow-runtime: log: "+openErr.Error())
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if a.logFormat == "json" {
		b, _ := json.Marshal(map[string]string{"level": level, "msg": msg, "time": now})
		f.Write(append(b, '\n'))
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, msg)
}
