package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// maxHookOutput bounds what of a failed hook's output goes into the error, in bytes.
const maxHookOutput = 4096

// hook runs one hook with the container's state on its standard input (runtime-spec, config.md, POSIX-platform Hooks).
func (c *Container) hook(h prog.HookCall, pid int) error {
	if h.Kind == prog.MapIDs {
		return mapIDs(h, pid)
	}
	st := specs.State{Version: specs.Version, ID: c.State.ID, Pid: pid, Bundle: c.State.Bundle, Annotations: c.State.Annotations, Status: hookStatus(h.Kind)}
	in, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state for hook: %w", err)
	}
	ctx := context.Background()
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // built from nothing, never ours
	}
	cmd.Dir = c.State.Bundle
	cmd.Stdin = bytes.NewReader(in)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if len(text) > maxHookOutput {
			text = text[:maxHookOutput]
		}
		if ctx.Err() != nil {
			return fmt.Errorf("hook %s: still running after %d s, killed", h.Path, h.Timeout)
		}
		return fmt.Errorf("hook %s: %w: %q", h.Path, err, text)
	}
	return nil
}

func hookStatus(kind string) specs.ContainerState {
	switch kind {
	case "poststart":
		return specs.StateRunning
	case "poststop":
		return specs.StateStopped
	}
	return specs.StateCreating
}

// poststart runs the hooks that follow the execution of the program; the container runs whatever they answer.
func (c *Container) poststart() error {
	if c.State.NoHooks {
		return nil
	}
	s, err := c.Spec()
	if err != nil || s.Hooks == nil {
		return err
	}
	return c.runHooks("poststart", s.Hooks.Poststart)
}

func (c *Container) poststop() error {
	if c.State.NoHooks {
		return nil
	}
	s, err := c.Spec()
	if err != nil || s.Hooks == nil {
		return nil // a bundle that is gone has no hooks left to run
	}
	return c.runHooks("poststop", s.Hooks.Poststop)
}

// runHooks stops at the first that fails; of poststop hooks all run (runtime-spec, runtime.md, Lifecycle).
func (c *Container) runHooks(kind string, list []specs.Hook) error {
	var errs []error
	for i, h := range list {
		call := prog.HookCall{Kind: kind, Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			call.Timeout = *h.Timeout
		}
		if err := c.hook(call, c.State.Pid); err != nil {
			errs = append(errs, fmt.Errorf("hooks.%s[%d]: %w", kind, i, err))
			if kind != "poststop" {
				break
			}
		}
	}
	return errors.Join(errs...)
}
