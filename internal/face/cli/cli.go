// Package cli is the command line: a client of the Docker Engine API and of dhow's own paths under /dhow/.
//
// It owns words, flags, exit codes and the user's terminal. It promises that the terminal is as it was when a command ends,
// that what a container did not write itself reaches the terminal escaped, and that a flag it cannot honour is an error. It
// must never decide what an engine decides, and it starts in a few milliseconds: look at what an import costs at init.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// Exit codes that are not a container's own.
const (
	exitError  = 1
	exitEngine = 125 // the engine refused, or the flags are wrong
	exitNoExec = 126 // the command cannot be executed
	exitNoFile = 127 // the command was not found
)

// IO is the world of one invocation.
type IO struct {
	Stdin          *os.File
	Stdout, Stderr *os.File
	LookupEnv      func(string) (string, bool)
	Version        string // what the client calls itself
}

// app is one invocation.
type app struct {
	IO
	host      string // -H
	configDir string // --config
	context   string // -c
	debug     bool
	api       *client.Client
}

// Main runs one command line (without the program's name) and returns its exit code.
func Main(ctx context.Context, w IO, args []string) int {
	a := &app{IO: w}
	root := newRoot(a, called(args))
	root.SetArgs(args)
	root.SetOut(w.Stdout)
	root.SetErr(w.Stderr)
	return a.report(root.ExecuteContext(ctx))
}

// status is an error with an exit code; an empty text prints nothing.
type status struct {
	code int
	err  error
}

func (s *status) Error() string {
	if s.err == nil {
		return ""
	}
	return s.err.Error()
}
func (s *status) Unwrap() error { return s.err }

func exit(code int, err error) error { return &status{code: code, err: err} }

// report prints an error and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitError
	var s *status
	if errors.As(err, &s) {
		code = s.code
		if s.err == nil {
			return code
		}
		err = s.err
	}
	a.complain(err)
	return code
}

// complain prints one error, escaped, with the words scripts look for when it is the engine's.
func (a *app) complain(err error) {
	text := format.SafeText(err.Error())
	var e *client.Error
	if errors.As(err, &e) {
		text = "Error response from daemon: " + text
	}
	fmt.Fprintf(a.Stderr, "dhow: %s\n", text)
}

// client returns the API client, made at the first call.
func (a *app) client() (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	if a.context != "" && a.context != "default" {
		return nil, fmt.Errorf("--context %s: contexts are not supported yet; use -H or DHOW_HOST", a.context)
	}
	host, chosen := a.host, a.host != ""
	for _, name := range []string{"DHOW_HOST", "DOCKER_HOST"} {
		if !chosen {
			if v, _ := a.LookupEnv(name); v != "" {
				host, chosen = v, true
			}
		}
	}
	if v, _ := a.LookupEnv("DOCKER_TLS_VERIFY"); v != "" && strings.HasPrefix(host, "tcp:") {
		return nil, errors.New("DOCKER_TLS_VERIFY: TLS to an engine is not supported yet; use a unix socket")
	}
	o := client.Options{Host: host, UserAgent: "dhow/" + a.Version}
	o.APIVersion, _ = a.LookupEnv("DOCKER_API_VERSION")
	if !chosen {
		o.Host = client.DefaultHost
		o.Wake = func(ctx context.Context) error { return wakeEngine(ctx, a) }
	} else if filepath.IsAbs(host) {
		o.Host = "unix://" + host
	}
	api, err := client.New(o)
	if err != nil {
		return nil, err
	}
	a.api = api
	return api, nil
}

// getenv returns a variable or "".
func (a *app) getenv(name string) string {
	v, _ := a.LookupEnv(name)
	return v
}

// out writes a line to stdout.
func (a *app) out(v ...any) { fmt.Fprintln(a.Stdout, v...) }

// forEach does act for every name, many at a time, prints in their order the name of each that worked and every error, and
// fails if one failed.
func (a *app) forEach(names []string, act func(name string) error) error {
	const most = 32
	errs := make([]chan error, len(names))
	slots := make(chan struct{}, most)
	for i, n := range names {
		errs[i] = make(chan error, 1)
		go func() { // ends with the engine's answer
			slots <- struct{}{}
			errs[i] <- act(n)
			<-slots
		}()
	}
	failed := false
	for i, n := range names {
		err := <-errs[i]
		if err == nil {
			a.out(n)
			continue
		}
		a.complain(err)
		if _, ok := err.(tolerated); !ok {
			failed = true
		}
	}
	if failed {
		return exit(exitError, nil)
	}
	return nil
}

// tolerated is an error that is told but is no failure: rm -f of what does not exist.
type tolerated struct{ error }

func (t tolerated) Unwrap() error { return t.error }

// minArgs, maxArgs and exactArgs check the number of words.
func minArgs(n int) cobra.PositionalArgs   { return countArgs(n, -1) }
func maxArgs(n int) cobra.PositionalArgs   { return countArgs(0, n) }
func exactArgs(n int) cobra.PositionalArgs { return countArgs(n, n) }

func countArgs(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		want, n := "at least", least
		switch {
		case least == most:
			want = "exactly"
		case most >= 0 && len(args) > most:
			want, n = "at most", most
		}
		word := fmt.Sprintf("%s %d arguments", want, n)
		if n == 1 {
			word = want + " 1 argument"
		}
		if most == 0 {
			word = "no arguments"
		}
		return usage(c, exitError, fmt.Errorf("'%s' takes %s", c.CommandPath(), word))
	}
}

// usage is an error about how a command was called.
func usage(c *cobra.Command, code int, err error) error {
	return exit(code, fmt.Errorf("%w\n\nUsage:  %s\n\nRun '%s --help' for more information", err, c.UseLine(), c.CommandPath()))
}
