package docker

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/events"
)

// event is a message with the fields that clients before API 1.52 read.
type event struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func shapeEvent(m events.Message, minor int) any {
	if minor >= 52 {
		return m
	}
	e := event{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		e.Status, e.ID, e.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		e.Status, e.ID = string(m.Action), m.Actor.ID
	}
	return e
}

// eventType chooses the media type by Accept (API 1.52 and later), and what comes before each event.
func (c *call) eventType() (media, before string) {
	if c.minor >= 52 {
		for _, v := range c.r.Header.Values("Accept") {
			for part := range strings.SplitSeq(v, ",") {
				switch t, _, _ := mime.ParseMediaType(part); t {
				case "application/x-ndjson", "application/jsonl":
					return t, ""
				case "application/json-seq":
					return t, "\x1e"
				}
			}
		}
	}
	return "application/json", ""
}

func eventStream(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	since, err := c.moment("since")
	if err != nil {
		return err
	}
	until, err := c.moment("until")
	if err != nil {
		return err
	}
	ch, err := c.engine.System.Events(c.ctx, since, until, f)
	if err != nil {
		return err
	}
	media, before := c.eventType()
	c.w.Header().Set("Content-Type", media)
	c.w.WriteHeader(http.StatusOK)
	c.w.flush()
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case m, ok := <-ch:
			if !ok {
				return nil
			}
			b, err := json.Marshal(shapeEvent(m, c.minor))
			if err != nil {
				return err
			}
			if _, err := (flusher{c.w}).Write(append([]byte(before), append(b, '\n')...)); err != nil {
				return nil // the client is gone
			}
		}
	}
}
