package change

import (
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// healthcheck is HEALTHCHECK NONE, or options and CMD.
func (a *applier) healthcheck(s string) error {
	h := &container.HealthConfig{}
	if strings.EqualFold(s, "NONE") {
		h.Test = []string{"NONE"}
		a.c.Healthcheck = h
		return nil
	}
	for strings.HasPrefix(s, "--") {
		opt, rest, _ := strings.Cut(s, " ")
		if err := healthOption(h, opt); err != nil {
			return err
		}
		s = strings.TrimSpace(rest)
	}
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	if !strings.EqualFold(word, "CMD") || rest == "" {
		return bad("HEALTHCHECK", s, "want NONE or CMD and a command")
	}
	if l, ok := list(rest); ok {
		if len(l) == 0 {
			return bad("HEALTHCHECK", s, "the command is empty")
		}
		h.Test = append([]string{"CMD"}, l...)
	} else {
		h.Test = []string{"CMD-SHELL", rest}
	}
	a.c.Healthcheck = h
	return nil
}

func healthOption(h *container.HealthConfig, opt string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(opt, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return bad("HEALTHCHECK", opt, "want a number of at least 0")
		}
		h.Retries = n
		return nil
	}
	to := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}[name]
	if to == nil {
		return bad("HEALTHCHECK", opt, "no such option")
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < container.MinimumDuration {
		return bad("HEALTHCHECK", opt, "want a duration of at least 1ms, or 0")
	}
	*to = d
	return nil
}
