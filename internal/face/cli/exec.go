package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/create"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

func cmdExec(a *app) *cobra.Command {
	var o struct {
		detach, stdin, tty, privileged bool
		keys, user, dir                string
		env, envFiles                  []string
	}
	c := words("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
		"dhow exec -it web sh\ndhow exec -u 1000 -w /srv web ls -l", minArgs(2),
		func(c *cobra.Command, args []string) error {
			env, err := create.Environment(create.Env{LookupEnv: a.LookupEnv, ReadFile: os.ReadFile, Abs: filepath.Abs}, o.envFiles, o.env)
			if err != nil {
				return usage(c, exitEngine, err)
			}
			req := container.ExecCreateRequest{
				User: o.user, Privileged: o.privileged, Tty: o.tty, Env: env, WorkingDir: o.dir, Cmd: args[1:], DetachKeys: o.keys,
			}
			if !o.detach {
				req.AttachStdin, req.AttachStdout, req.AttachStderr = o.stdin, true, true
				if o.tty && o.stdin && !tty.IsTerminal(int(a.Stdin.Fd())) {
					return exit(exitError, errors.New("-it: standard input is not a terminal; leave -t out"))
				}
			}
			return a.exec(c.Context(), args[0], &req, o.detach)
		})
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "Run in the background")
	f.StringVar(&o.keys, "detach-keys", "", "Keys that detach from the command (default ctrl-p,ctrl-q)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "Set environment variables")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "Read environment variables from a file")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "Keep standard input open")
	f.BoolVar(&o.privileged, "privileged", false, "Give the command all privileges")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a terminal")
	f.StringVarP(&o.user, "user", "u", "", "User or UID, with an optional group")
	f.StringVarP(&o.dir, "workdir", "w", "", "Working directory inside the container")
	return c
}

func (a *app) exec(ctx context.Context, ref string, req *container.ExecCreateRequest, detach bool) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	req.DetachKeys = a.preference("detachKeys", req.DetachKeys)
	keys, err := detachKeys(req.DetachKeys)
	if err != nil {
		return exit(exitEngine, err)
	}
	start := container.ExecStartRequest{Detach: detach, Tty: req.Tty}
	if req.Tty && !detach {
		if rows, cols, err := tty.Size(int(a.Stdout.Fd())); err == nil {
			req.ConsoleSize = &[2]uint{uint(rows), uint(cols)}
			start.ConsoleSize = req.ConsoleSize
		}
	}
	var id container.ExecCreateResponse
	if err := api.Post(ctx, "/containers/"+url.PathEscape(ref)+"/exec", nil, req, &id); err != nil {
		return err
	}
	if id.ID == "" {
		return errors.New("the engine gave no exec ID")
	}
	path := "/exec/" + id.ID
	if detach {
		return startError(api.Post(ctx, path+"/start", nil, start, nil))
	}
	conn, err := api.Hijack(ctx, path+"/start", nil, start)
	if err != nil {
		return startError(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.Tty {
		a.followSize(ctx, path)
	}
	s := &stream{a: a, conn: conn, tty: req.Tty, stdin: req.AttachStdin, stdout: true, stderr: true, keys: keys}
	if err := s.run(ctx); errors.Is(err, errDetached) {
		return nil
	} else if err != nil {
		return err
	}
	var end container.ExecInspectResponse
	if err := api.Get(ctx, path+"/json", nil, &end); err != nil {
		return fmt.Errorf("the command ended, but its exit code is unknown: %w", err)
	}
	if end.ExitCode != nil && *end.ExitCode != 0 {
		return exit(*end.ExitCode, nil)
	}
	return nil
}

// startError gives a refused exec Docker's exit codes.
func startError(err error) error {
	if err == nil {
		return nil
	}
	if code := startCode(err); code != exitEngine {
		return exit(code, err)
	}
	return err
}
