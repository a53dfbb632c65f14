package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// job is a program to run to its end.
type job struct {
	Args  []string
	Env   []string // beyond our own
	Quiet bool     // no output: for what leaves a process behind that would hold the pipe
}

// outcome is how it went. Took is from before the fork until it was waited for.
type outcome struct {
	Took time.Duration
	Out  string
	Err  string
}

// spawn runs jobs and takes their time. Somebody who has to run in other surroundings is spawned there by a helper that entered
// them once: nobody pays for an unshare or a shell.
type spawn func(job) (outcome, error)

// locally spawns from this process; output goes to a pipe.
func locally(j job) (outcome, error) {
	var out bytes.Buffer
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Env = append(os.Environ(), j.Env...)
	if !j.Quiet {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	began := time.Now()
	err := cmd.Run()
	o := outcome{Took: time.Since(began), Out: strings.TrimSpace(out.String())}
	if err != nil {
		return o, fmt.Errorf("%s: %w: %s", strings.Join(j.Args, " "), err, lastLine(o.Out))
	}
	return o, nil
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// HelperArg as the only argument makes the program a helper: see Helper.
const HelperArg = "-spawn-helper"

// unified is where systemd's hybrid layout mounts cgroup v2 beside the v1 hierarchies.
const unified = "/sys/fs/cgroup/unified"

// hybrid tells whether crun 1.8, which refuses that layout, needs a mount namespace without it.
func hybrid() bool {
	var above, at unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &above) == nil && above.Type == unix.TMPFS_MAGIC && unix.Statfs(unified, &at) == nil && at.Type == unix.CGROUP2_SUPER_MAGIC
}

// Helper spawns the jobs it reads from in until in ends. It was started in a mount namespace of its own, from which it first takes the
// unified hierarchy.
func Helper(in io.Reader, out io.Writer) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", unified, err)
	}
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j job
		if err := dec.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		o, err := locally(j)
		if err != nil {
			o.Err = err.Error()
		}
		if err := enc.Encode(o); err != nil {
			return err
		}
	}
}

// withoutUnified starts a helper; it ends with the run.
func (b *bench) withoutUnified() (spawn, error) {
	cmd := exec.Command("/proc/self/exe", HelperArg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start helper in a mount namespace: %w", err)
	}
	b.onEnd(func() { in.Close(); cmd.Wait() })
	enc, dec := json.NewEncoder(in), json.NewDecoder(out)
	return func(j job) (outcome, error) {
		var o outcome
		if err := enc.Encode(j); err != nil {
			return o, err
		}
		if err := dec.Decode(&o); err != nil {
			return o, fmt.Errorf("helper: %w", err)
		}
		if o.Err != "" {
			return o, errors.New(o.Err)
		}
		return o, nil
	}, nil
}
