package create

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// health is how the container is checked.
type health struct {
	cmd                                   string
	interval, timeout, start, startPeriod time.Duration
	retries                               int
	off                                   bool
}

func (h *health) add(fs *pflag.FlagSet) {
	fs.StringVar(&h.cmd, "health-cmd", "", "Command that checks the container's health")
	fs.DurationVar(&h.interval, "health-interval", 0, "Time between two checks (ms|s|m|h)")
	fs.DurationVar(&h.timeout, "health-timeout", 0, "Time one check may take (ms|s|m|h)")
	fs.DurationVar(&h.startPeriod, "health-start-period", 0, "Time the container has before failures count (ms|s|m|h)")
	fs.DurationVar(&h.start, "health-start-interval", 0, "Time between two checks in the start period (ms|s|m|h)")
	fs.IntVar(&h.retries, "health-retries", 0, "Consecutive failures that make it unhealthy")
	fs.BoolVar(&h.off, "no-healthcheck", false, "Switch the image's health check off")
}

func (h *health) apply(b *request) error {
	set := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.retries != 0 || h.start != 0
	if h.off {
		if set {
			return errors.New("--no-healthcheck contradicts the --health-* flags")
		}
		b.config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !set {
		return nil
	}
	for _, d := range []struct {
		flag string
		v    time.Duration
	}{{"interval", h.interval}, {"timeout", h.timeout}, {"start-period", h.startPeriod}, {"start-interval", h.start}} {
		if d.v < 0 {
			return fmt.Errorf("--health-%s %s: cannot be negative", d.flag, d.v)
		}
	}
	if h.retries < 0 {
		return fmt.Errorf("--health-retries %d: cannot be negative", h.retries)
	}
	b.config.Healthcheck = &container.HealthConfig{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.start, Retries: h.retries,
	}
	if h.cmd != "" {
		b.config.Healthcheck.Test = []string{"CMD-SHELL", h.cmd}
	}
	return nil
}

// lifecycle is how the container ends, comes back and logs.
type lifecycle struct {
	remove      bool
	restart     string
	stopSignal  string
	stopTimeout int
	cidfile     string
	logDriver   string
	logOpts     []string
}

func (l *lifecycle) add(fs *pflag.FlagSet) {
	fs.BoolVar(&l.remove, "rm", false, "Remove the container and its anonymous volumes when it exits")
	fs.StringVar(&l.restart, "restart", "no", "Restart policy (no, on-failure[:n], always, unless-stopped)")
	fs.StringVar(&l.stopSignal, "stop-signal", "", "Signal that stops the container")
	fs.IntVar(&l.stopTimeout, "stop-timeout", 0, "Seconds between that signal and SIGKILL")
	fs.StringVar(&l.cidfile, "cidfile", "", "Write the container's ID to a file")
	fs.StringVar(&l.logDriver, "log-driver", "", "Logging driver")
	fs.StringArrayVar(&l.logOpts, "log-opt", nil, "Options of the logging driver (K=V)")
}

func (l *lifecycle) apply(b *request) (err error) {
	b.config.StopSignal = l.stopSignal
	if b.fs.Changed("stop-timeout") {
		b.config.StopTimeout = &l.stopTimeout
	}
	h := b.host
	h.ContainerIDFile, h.AutoRemove = l.cidfile, l.remove
	if h.RestartPolicy, err = restartPolicy(l.restart); err != nil {
		return err
	}
	if l.remove && !h.RestartPolicy.IsNone() {
		return errors.New("--rm and --restart contradict each other")
	}
	if l.logDriver == "none" && len(l.logOpts) > 0 {
		return errors.New("--log-opt: the logging driver none has no options")
	}
	for _, o := range l.logOpts {
		if k, _, ok := strings.Cut(o, "="); !ok || k == "" {
			return fmt.Errorf("--log-opt %q: want key=value", o)
		}
	}
	h.LogConfig = container.LogConfig{Type: l.logDriver, Config: pairs(l.logOpts)}
	return nil
}

func restartPolicy(s string) (p container.RestartPolicy, err error) {
	name, n, counted := strings.Cut(s, ":")
	p.Name = container.RestartPolicyMode(name)
	if s != "" && name == "" {
		return p, fmt.Errorf("--restart %q: the policy is empty", s)
	}
	if counted {
		if p.MaximumRetryCount, err = strconv.Atoi(n); err != nil {
			return p, fmt.Errorf("--restart %q: %q is not a number", s, n)
		}
	}
	if err := container.ValidateRestartPolicy(p); err != nil {
		return p, fmt.Errorf("--restart %q: %w", s, err)
	}
	return p, nil
}
