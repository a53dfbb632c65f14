package cli

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/linux/tty"
)

func cmdAttach(a *app) *cobra.Command {
	var noStdin, proxy bool
	var keys string
	c := words("attach [OPTIONS] CONTAINER", "Attach this terminal to a running container", "dhow attach shell", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			return a.join(c.Context(), args[0], join{stdin: !noStdin, keys: keys, proxy: proxy})
		})
	c.Flags().StringVar(&keys, "detach-keys", "", "Keys that detach from the container")
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach to its input")
	c.Flags().BoolVar(&proxy, "sig-proxy", true, "Send signals to the container")
	return c
}

// join says how to attach to a container that exists.
type join struct {
	start, stdin, proxy bool
	keys                string
}

// join attaches to a container, starts it if asked, and ends with its exit code.
func (a *app) join(ctx context.Context, ref string, j join) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	j.keys = a.preference("detachKeys", j.keys)
	keys, err := detachKeys(j.keys)
	if err != nil {
		return exit(exitEngine, err)
	}
	var ins container.InspectResponse
	if err := api.Get(ctx, containerPath(ref, "/json"), nil, &ins); err != nil {
		return err
	}
	cfg, err := joinable(a, &ins, j)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := a.attach(ctx, ins.ID, cfg, j.keys)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	s.keys, s.proxied = keys, j.proxy
	cond := container.WaitConditionNotRunning
	if j.start {
		cond = container.WaitConditionNextExit
		if ins.HostConfig != nil && ins.HostConfig.AutoRemove {
			cond = container.WaitConditionRemoved
		}
	}
	wait, err := a.wait(ctx, ins.ID, cond)
	if err != nil {
		return err
	}
	if j.proxy {
		if err := a.proxySignals(ctx, ins.ID); err != nil {
			return err
		}
	}
	session := make(chan error, 1)
	go func() { session <- s.run(ctx); close(session) }()
	defer func() { cancel(); <-session }() // the terminal is restored before we go on
	if j.start {
		if err := api.Post(ctx, "/containers/"+ins.ID+"/start", nil, nil, nil); err != nil {
			return err
		}
	}
	if cfg.Tty {
		a.followSize(ctx, "/containers/"+ins.ID)
	}
	if err := <-session; errors.Is(err, errDetached) {
		return nil
	} else if err != nil {
		return err
	}
	return (<-wait).err()
}

// joinable checks that a container can be attached to, and says which streams it has.
func joinable(a *app, ins *container.InspectResponse, j join) (*container.Config, error) {
	if ins.Config == nil || ins.State == nil {
		return nil, errors.New("the engine's answer has no config or state")
	}
	if !j.start && !ins.State.Running {
		return nil, errors.New("the container does not run; start it first")
	}
	if !j.start && ins.State.Paused {
		return nil, errors.New("the container is paused; unpause it first")
	}
	cfg := &container.Config{AttachStdin: j.stdin && ins.Config.OpenStdin, AttachStdout: true, AttachStderr: true, Tty: ins.Config.Tty}
	if cfg.Tty && cfg.AttachStdin && !tty.IsTerminal(int(a.Stdin.Fd())) {
		return nil, errors.New("the container has a terminal, but standard input is none")
	}
	return cfg, nil
}
