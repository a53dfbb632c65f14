package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/face/cli/create"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// runOptions are the flags of run and create that stay on this side.
type runOptions struct {
	flags    create.Flags
	name     string
	platform string
	pull     string
	quiet    bool
	lazy     bool
	detach   bool
	sigProxy bool
	keys     string
}

func (o *runOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.SetInterspersed(false)
	o.flags.AddTo(f)
	f.StringVar(&o.name, "name", "", "Name of the container")
	f.StringVar(&o.platform, "platform", "", "Platform of the image (os/arch[/variant])")
	f.StringVar(&o.pull, "pull", "missing", "Pull the image before (always, missing, never)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Do not show the progress of a pull")
	f.BoolVar(&o.lazy, "lazy", false, "When the image is pulled: begin while layers in zstd:chunked or eStargz still arrive")
	f.Bool("disable-content-trust", true, "Has no effect")
	f.MarkHidden("disable-content-trust")
}

func cmdRun(a *app) *cobra.Command {
	var o runOptions
	c := words("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image",
		"dhow run --rm -it debian bash\ndhow run -d --name web -p 8080:80 nginx", minArgs(1),
		func(c *cobra.Command, args []string) error {
			req, err := o.request(a, c, args)
			if err != nil {
				return usage(c, exitEngine, err)
			}
			return a.run(c.Context(), &o, req)
		})
	o.add(c)
	c.Flags().BoolVarP(&o.detach, "detach", "d", false, "Run in the background and print the container's ID")
	c.Flags().BoolVar(&o.sigProxy, "sig-proxy", true, "Send signals to the container")
	c.Flags().StringVar(&o.keys, "detach-keys", "", "Keys that detach from the container (default ctrl-p,ctrl-q)")
	return c
}

func cmdCreate(a *app) *cobra.Command {
	var o runOptions
	c := words("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container",
		"dhow create --name web -p 8080:80 nginx", minArgs(1),
		func(c *cobra.Command, args []string) error {
			req, err := o.request(a, c, args)
			if err != nil {
				return usage(c, exitEngine, err)
			}
			resp, err := a.create(c.Context(), &o, req)
			if err != nil {
				return err
			}
			a.out(resp.ID)
			return nil
		})
	o.add(c)
	return c
}

// request turns the command line into a create request.
func (o *runOptions) request(a *app, c *cobra.Command, args []string) (*container.CreateRequest, error) {
	if v, _ := c.Flags().GetBool("disable-content-trust"); !v {
		return nil, errors.New("--disable-content-trust=false: content trust is not supported")
	}
	switch o.pull {
	case "always", "missing", "never", "":
	default:
		return nil, fmt.Errorf("--pull %q: want always, missing or never", o.pull)
	}
	env := create.Env{LookupEnv: a.LookupEnv, ReadFile: os.ReadFile, Abs: filepath.Abs}
	req, err := o.flags.Request(env, args[0], args[1:])
	if err != nil {
		return nil, err
	}
	if o.platform == "" {
		o.platform = a.getenv("DOCKER_DEFAULT_PLATFORM")
	}
	if o.detach {
		if o.flags.AttachSet() {
			return nil, errors.New("--attach and --detach contradict each other")
		}
		req.AttachStdin, req.AttachStdout, req.AttachStderr, req.StdinOnce = false, false, false, false
	} else if c.Name() == "run" && req.Tty && req.AttachStdin && !tty.IsTerminal(int(a.Stdin.Fd())) {
		return nil, errors.New("-it: standard input is not a terminal; leave -t out")
	}
	if req.Tty {
		if rows, cols, err := tty.Size(int(a.Stdout.Fd())); err == nil {
			req.HostConfig.ConsoleSize = [2]uint{uint(rows), uint(cols)}
		}
	}
	return req, nil
}

// create creates the container, pulling the image when it is missing and may be pulled.
func (a *app) create(ctx context.Context, o *runOptions, req *container.CreateRequest) (*container.CreateResponse, error) {
	api, err := a.client()
	if err != nil {
		return nil, err
	}
	var cid *os.File
	if name := req.HostConfig.ContainerIDFile; name != "" {
		if cid, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err != nil {
			return nil, fmt.Errorf("--cidfile: %w; remove it first if it is left over", err)
		}
		defer cid.Close()
	}
	resp, err := a.createOrPull(ctx, api, o, req)
	if err != nil {
		if cid != nil {
			os.Remove(cid.Name())
		}
		return nil, err
	}
	for _, w := range resp.Warnings {
		fmt.Fprintf(a.Stderr, "WARNING: %s\n", format.Safe(w))
	}
	if cid != nil {
		if _, err := cid.WriteString(resp.ID); err != nil {
			return nil, fmt.Errorf("--cidfile: %w", err)
		}
	}
	return resp, nil
}

func (a *app) createOrPull(ctx context.Context, api *client.Client, o *runOptions, req *container.CreateRequest) (*container.CreateResponse, error) {
	q := url.Values{}
	if o.name != "" {
		q.Set("name", o.name)
	}
	if o.platform != "" {
		q.Set("platform", o.platform)
	}
	p := pullOptions{platform: o.platform, quiet: o.quiet, lazy: o.lazy, to: a.Stderr}
	if o.pull == "always" {
		if err := a.pull(ctx, req.Image, p); err != nil {
			return nil, err
		}
	}
	var resp container.CreateResponse
	err := api.Post(ctx, "/containers/create", q, req, &resp)
	if client.StatusOf(err) == http.StatusNotFound && o.pull == "missing" && imageMissing(err) {
		if !o.quiet {
			fmt.Fprintf(a.Stderr, "Unable to find image '%s' locally\n", format.Safe(tagged(req.Image)))
		}
		if err := a.pull(ctx, req.Image, p); err != nil {
			return nil, err
		}
		err = api.Post(ctx, "/containers/create", q, req, &resp)
	}
	if err != nil {
		return nil, err
	}
	return &resp, nil
}

// imageMissing tells a missing image from the other things a create request can name and not find (a network, a volume's
// container). The engine's 404 says which; Docker's words are "No such image".
func imageMissing(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "no such image")
}

// run creates, attaches, waits, starts, in this order: attaching and waiting first, so that no output and no exit is lost.
func (a *app) run(ctx context.Context, o *runOptions, req *container.CreateRequest) error {
	o.keys = a.preference("detachKeys", o.keys)
	keys, err := detachKeys(o.keys)
	if err != nil {
		return exit(exitEngine, err)
	}
	resp, err := a.create(ctx, o, req)
	if err != nil {
		return exit(exitEngine, err)
	}
	id := resp.ID
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	proxy := o.sigProxy && !o.detach
	var session chan error
	if req.AttachStdin || req.AttachStdout || req.AttachStderr {
		s, err := a.attach(ctx, id, req.Config, o.keys)
		if err != nil {
			return exit(exitEngine, err)
		}
		s.keys, s.proxied = keys, proxy
		session = make(chan error, 1)
		defer s.conn.Close()
		defer func() { cancel(); <-session }() // the terminal is restored before we go on
		go func() { session <- s.run(ctx); close(session) }()
	}
	var wait <-chan exitStatus
	if !o.detach {
		cond := container.WaitConditionNextExit
		if req.HostConfig.AutoRemove {
			cond = container.WaitConditionRemoved
		}
		if wait, err = a.wait(ctx, id, cond); err != nil {
			return exit(exitEngine, err)
		}
	}
	if proxy {
		if err := a.proxySignals(ctx, id); err != nil {
			return exit(exitEngine, err)
		}
	}
	if err := a.api.Post(ctx, "/containers/"+id+"/start", nil, nil, nil); err != nil {
		return exit(startCode(err), err)
	}
	if !req.AttachStdout && !req.AttachStderr {
		a.out(id)
	}
	if o.detach {
		return nil
	}
	if req.Tty {
		a.followSize(ctx, "/containers/"+id)
	}
	if session != nil {
		if err := <-session; errors.Is(err, errDetached) {
			return nil
		} else if err != nil {
			return exit(exitEngine, err)
		}
	}
	return (<-wait).err()
}

// startCode is 127 when the command does not exist, 126 when it cannot be executed, 125 for everything else.
func startCode(err error) int {
	text := strings.ToLower(err.Error())
	exec := strings.Contains(text, "exec")
	switch {
	case strings.Contains(text, "executable file not found"), exec && strings.Contains(text, "no such file or directory"):
		return exitNoFile
	case exec && (strings.Contains(text, "permission denied") || strings.Contains(text, "is a directory") || strings.Contains(text, "exec format error")):
		return exitNoExec
	}
	return exitEngine
}

// attach opens the streams that cfg asks for.
func (a *app) attach(ctx context.Context, id string, cfg *container.Config, keys string) (*stream, error) {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": cfg.AttachStdin, "stdout": cfg.AttachStdout, "stderr": cfg.AttachStderr} {
		if on {
			q.Set(name, "1")
		}
	}
	if keys != "" {
		q.Set("detachKeys", keys)
	}
	conn, err := a.api.Hijack(ctx, "/containers/"+id+"/attach", q, nil)
	if err != nil {
		return nil, err
	}
	return &stream{a: a, conn: conn, tty: cfg.Tty, stdin: cfg.AttachStdin, stdout: cfg.AttachStdout, stderr: cfg.AttachStderr}, nil
}

// exitStatus is how a container ended, or why nobody knows.
type exitStatus struct {
	code    int64
	problem error
}

func (s exitStatus) err() error {
	switch {
	case s.problem != nil:
		return exit(exitEngine, s.problem)
	case s.code != 0:
		return exit(int(s.code), nil)
	}
	return nil
}

// wait registers a wait: when it returns, the engine watches. The channel gets one status.
func (a *app) wait(ctx context.Context, id string, cond container.WaitCondition) (<-chan exitStatus, error) {
	q := url.Values{}
	if cond != "" {
		q.Set("condition", string(cond))
	}
	resp, err := a.api.Open(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/wait", q, nil, nil)
	if err != nil {
		return nil, err
	}
	ch := make(chan exitStatus, 1)
	go func() { // ends with the answer or ctx
		defer resp.Body.Close()
		var w container.WaitResponse
		if err := json.NewDecoder(resp.Body).Decode(&w); err != nil {
			ch <- exitStatus{problem: fmt.Errorf("wait for container %s: the engine went away: %w", id, err)}
			return
		}
		if w.Error != nil && w.Error.Message != "" {
			ch <- exitStatus{problem: errors.New(w.Error.Message)}
			return
		}
		ch <- exitStatus{code: w.StatusCode}
	}()
	return ch, nil
}
