// Package event owns what the engine tells about itself: Docker's event messages, live and for a while back.
//
// It promises that publishing never blocks and that a subscriber sees every message after its subscription in order, or is cut
// off when it falls behind by more than its buffer. It must never store messages on disk.
package event

import (
	"context"
	"maps"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	keep   = 1024 // messages that a late subscriber may ask for
	buffer = 1024 // messages that a slow subscriber may lag behind
)

// Bus is the engine's one event stream; its zero value is ready.
type Bus struct {
	mu   sync.Mutex // guards all below
	past []events.Message
	subs map[*subscriber]struct{}
	last int64
}

type subscriber struct {
	ch   chan events.Message
	want func(events.Message) bool
}

// Publish tells everybody; the attributes are copied.
func (b *Bus) Publish(t events.Type, a events.Action, id string, attributes map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := max(time.Now().UnixNano(), b.last+1) // unique and in order even when the clock steps back
	b.last = now
	m := events.Message{Type: t, Action: a, Actor: events.Actor{ID: id, Attributes: maps.Clone(attributes)}, Scope: "local", Time: now / 1e9, TimeNano: now}
	if len(b.past) == keep {
		copy(b.past, b.past[1:])
		b.past = b.past[:keep-1]
	}
	b.past = append(b.past, m)
	for s := range b.subs {
		if !s.want(m) {
			continue
		}
		select {
		case s.ch <- m:
		default: // too slow: its channel ends, the client may come back with since
			delete(b.subs, s)
			close(s.ch)
		}
	}
}

// Listeners returns the number of subscribers.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

// Subscribe replays the messages since since (where set) and follows until until (where set) or ctx ends; then the channel is closed.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) <-chan events.Message {
	s := &subscriber{want: func(m events.Message) bool { return Match(m, filters) }}
	b.mu.Lock()
	var replay []events.Message
	for _, m := range b.past {
		at := time.Unix(0, m.TimeNano)
		if since.IsZero() || at.Before(since) || !until.IsZero() && at.After(until) || !s.want(m) {
			continue
		}
		replay = append(replay, m)
	}
	s.ch = make(chan events.Message, buffer+len(replay))
	for _, m := range replay {
		s.ch <- m
	}
	if !until.IsZero() && !until.After(time.Now()) {
		close(s.ch)
		b.mu.Unlock()
		return s.ch
	}
	if b.subs == nil {
		b.subs = map[*subscriber]struct{}{}
	}
	b.subs[s] = struct{}{}
	b.mu.Unlock()
	go b.end(ctx, s, until) // ends with ctx or at until
	return s.ch
}

func (b *Bus) end(ctx context.Context, s *subscriber, until time.Time) {
	if until.IsZero() {
		<-ctx.Done()
	} else {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.subs[s]; ok {
		delete(b.subs, s)
		close(s.ch)
	}
}

// Match tells whether a message passes Docker's event filters: the values of one key are alternatives, the keys all must hold.
func Match(m events.Message, filters map[string][]string) bool {
	for key, values := range filters {
		ok := false
		for _, v := range values {
			ok = ok || matchOne(m, key, v)
		}
		if !ok && len(values) > 0 {
			return false
		}
	}
	return true
}

func matchOne(m events.Message, key, v string) bool {
	attr := m.Actor.Attributes
	object := func(t events.Type) bool {
		return m.Type == t && (m.Actor.ID == v || attr["name"] == v || len(v) >= 4 && strings.HasPrefix(m.Actor.ID, v))
	}
	switch key {
	case "type":
		return string(m.Type) == v
	case "event":
		action, _, _ := strings.Cut(string(m.Action), ":")
		return string(m.Action) == v || action == v
	case "container":
		return object(events.ContainerEventType)
	case "network":
		return object(events.NetworkEventType)
	case "volume":
		return object(events.VolumeEventType)
	case "image":
		repo, _, _ := strings.Cut(attr["name"], ":")
		return object(events.ImageEventType) || m.Type == events.ImageEventType && repo == v || m.Type == events.ContainerEventType && attr["image"] == v
	case "label":
		k, want, given := strings.Cut(v, "=")
		got, ok := attr[k]
		return ok && (!given || got == want)
	case "scope":
		return m.Scope == v
	case "daemon":
		return m.Type == events.DaemonEventType
	}
	return false
}

// Keys lists the filter keys that Match understands.
func Keys() []string {
	k := []string{"type", "event", "container", "network", "volume", "image", "label", "scope", "daemon"}
	sort.Strings(k)
	return k
}
