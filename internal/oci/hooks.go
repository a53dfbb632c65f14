package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// maxHookOutput bounds what of a failed hook's output goes into the error, in bytes.
const maxHookOutput = 4096

// hookText is the state that a hook reads on its standard input (runtime-spec, config.md, POSIX-platform Hooks). Up to start it is
// "created": the first hooks are called after step 2 of the lifecycle, which is what the word means (runtime.md, State).
func hookText(s *state.State, kind string, pid int) ([]byte, error) {
	status := specs.StateCreated
	switch kind {
	case "poststart":
		status = specs.StateRunning
	case "poststop":
		status = specs.StateStopped
	}
	in, err := json.Marshal(specs.State{Version: specs.Version, ID: s.ID, Pid: pid, Bundle: s.Bundle, Annotations: s.Annotations, Status: status})
	if err != nil {
		return nil, fmt.Errorf("encode state for hook: %w", err)
	}
	return in, nil
}

// hookStateInside is hookText for hooks inside the container: the PID is the one that they know (config.md, "the pid as seen by the container").
func hookStateInside(s *state.State, kind string, pid int) ([]byte, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, fmt.Errorf("number of process %d inside the container: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
			inner, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				return nil, fmt.Errorf("number of process %d inside the container: %w", pid, err)
			}
			return hookText(s, kind, inner)
		}
	}
	return nil, errdef.New(errdef.NotImplemented, "number of process %d inside the container: this kernel does not tell", pid)
}

// hookError tells how a hook inside the container failed.
func hookError(why, note string, step *interp.StepError) error {
	how := step.Errno.Error()
	switch {
	case step.Ended >= 256:
		how = fmt.Sprintf("killed by signal %d", step.Ended-256)
	case step.Ended > 0:
		how = fmt.Sprintf("exit status %d", step.Ended)
	case step.Errno == syscall.ETIMEDOUT:
		how = ""
	}
	text := strings.TrimSuffix(why+": "+note+": "+how, ": ")
	if out := strings.TrimSpace(string(step.Output)); out != "" {
		text += fmt.Sprintf(": %q", out)
	}
	return errdef.New(errdef.System, "%s", text)
}

// hook runs one hook in the runtime's namespaces.
func (c *Container) hook(h prog.HookCall, pid int) error {
	if h.Kind == prog.MapIDs {
		return mapIDs(h, pid)
	}
	in, err := hookText(&c.State, h.Kind, pid)
	if err != nil {
		return err
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
	if _, err := os.Stat(cmd.Dir); err != nil { // what poststop takes back is there without the bundle, too
		cmd.Dir = "/"
	}
	cmd.Stdin = bytes.NewReader(in)
	var out beginning
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) { // that one ended well, and left somebody behind who may still print
		text := strings.TrimSpace(string(out))
		if ctx.Err() != nil {
			return fmt.Errorf("hook %s: still running after %d s, killed", h.Path, h.Timeout)
		}
		return fmt.Errorf("hook %s: %w: %q", h.Path, err, text)
	}
	return nil
}

// beginning keeps the first of what is written to it.
type beginning []byte

// Write takes all.
func (b *beginning) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), maxHookOutput-len(*b))]...)
	return len(p), nil
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

// poststop runs the hooks that follow the removal. One that fails is no failure of the removal.
func (c *Container) poststop(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	err := c.runHooks("poststop", h.Poststop)
	if err != nil && c.Warn != nil {
		c.Warn(err.Error())
		return nil
	}
	return err
}

// runHooks stops at the first that fails; of poststop hooks all run (runtime-spec, runtime.md, Lifecycle).
func (c *Container) runHooks(kind string, list []specs.Hook) error {
	var errs []error
	for i, h := range list {
		call := prog.HookCall{Kind: kind, Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			call.Timeout = *h.Timeout
		}
		pid := c.State.Pid
		if kind == "poststop" {
			pid = 0 // nobody's any more
		}
		if err := c.hook(call, pid); err != nil {
			errs = append(errs, fmt.Errorf("hooks.%s[%d]: %w", kind, i, err))
			if kind != "poststop" {
				break
			}
		}
	}
	return errors.Join(errs...)
}
