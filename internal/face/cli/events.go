package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func cmdEvents(a *app) *cobra.Command {
	var since, until, fm string
	var filter []string
	c := words("events", "Show what happens in the engine, as it happens", "dhow events --filter type=container --since 5m", maxArgs(0),
		func(c *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q, err := filterQuery(filter)
			if err != nil {
				return usage(c, exitError, err)
			}
			for k, v := range map[string]string{"since": since, "until": until} {
				if v == "" {
					continue
				}
				t, err := instant(v, time.Now())
				if err != nil {
					return usage(c, exitError, fmt.Errorf("--%s %q: %w", k, v, err))
				}
				q.Set(k, t)
			}
			resp, err := api.Open(c.Context(), http.MethodGet, "/events", q, nil, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			dec := json.NewDecoder(resp.Body)
			for {
				var m events.Message
				if err := dec.Decode(&m); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return fmt.Errorf("read events: %w", err)
				}
				if fm == "" {
					a.out(eventLine(&m))
				} else if err := a.template(fm, m); err != nil {
					return err
				}
			}
		})
	f := c.Flags()
	f.StringArrayVarP(&filter, "filter", "f", nil, "Show only what matches (key=value)")
	f.StringVar(&fm, "format", "", "Format of the output: json or a Go template")
	f.StringVar(&since, "since", "", "Start with events since a time or a duration ago")
	f.StringVar(&until, "until", "", "Stop at a time or a duration ago")
	return c
}

// eventLine is time, type, action, ID and attributes, as docker events prints them.
func eventLine(m *events.Message) string {
	t := time.Unix(0, m.TimeNano)
	if m.TimeNano == 0 {
		t = time.Unix(m.Time, 0)
	}
	attrs := make([]string, 0, len(m.Actor.Attributes))
	for k, v := range m.Actor.Attributes {
		attrs = append(attrs, k+"="+v)
	}
	sort.Strings(attrs)
	s := fmt.Sprintf("%s %s %s %s", t.Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	if len(attrs) > 0 {
		s += " (" + strings.Join(attrs, ", ") + ")"
	}
	return format.Safe(s)
}
