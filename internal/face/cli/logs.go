package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
)

func cmdLogs(a *app) *cobra.Command {
	var o struct {
		details, follow, timestamps bool
		since, until, tail          string
	}
	c := words("logs [OPTIONS] CONTAINER", "Show what a container wrote", "dhow logs -f --tail 20 web\ndhow logs --since 10m web", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {o.tail}}
			for k, on := range map[string]bool{"details": o.details, "follow": o.follow, "timestamps": o.timestamps} {
				if on {
					q.Set(k, "1")
				}
			}
			now := time.Now()
			for k, v := range map[string]string{"since": o.since, "until": o.until} {
				if v == "" {
					continue
				}
				t, err := instant(v, now)
				if err != nil {
					return usage(c, exitError, fmt.Errorf("--%s %q: %w", k, v, err))
				}
				q.Set(k, t)
			}
			path := "/containers/" + url.PathEscape(args[0])
			var ins container.InspectResponse
			if err := api.Get(c.Context(), path+"/json", nil, &ins); err != nil {
				return err
			}
			resp, err := api.Open(c.Context(), http.MethodGet, "/containers/"+ins.ID+"/logs", q, nil, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if ins.Config != nil && ins.Config.Tty {
				_, err = io.Copy(a.Stdout, resp.Body)
				return err
			}
			return client.Demux(a.Stdout, a.Stderr, resp.Body)
		})
	f := c.Flags()
	f.BoolVar(&o.details, "details", false, "Show the extra fields of the log")
	f.BoolVarP(&o.follow, "follow", "f", false, "Keep showing new lines")
	f.StringVar(&o.since, "since", "", "Show lines since a time (2026-01-02T13:23:37Z) or a duration ago (42m)")
	f.StringVar(&o.until, "until", "", "Show lines before a time or a duration ago")
	f.StringVarP(&o.tail, "tail", "n", "all", "Number of lines to show from the end")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "Show the time of every line")
	return c
}

// instant reads a Unix time, a date, an RFC 3339 time or a duration before now, and writes seconds.nanoseconds.
func instant(s string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return unixNano(now.Add(-d)), nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15",
		"2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return unixNano(t), nil
		}
	}
	return "", fmt.Errorf("neither a time nor a duration")
}

func unixNano(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
