package event

import (
	"context"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

func TestReplayAndFollow(t *testing.T) {
	var b Bus
	start := time.Now().Add(-time.Second)
	b.Publish(events.ContainerEventType, events.ActionCreate, "aaaa1111", map[string]string{"name": "one"})
	b.Publish(events.VolumeEventType, events.ActionCreate, "v", nil)
	ctx, cancel := context.WithCancel(t.Context())
	ch := b.Subscribe(ctx, start, time.Time{}, map[string][]string{"type": {"container"}})
	b.Publish(events.ContainerEventType, events.ActionDie, "aaaa1111", map[string]string{"name": "one", "exitCode": "0"})
	if m := <-ch; m.Action != events.ActionCreate {
		t.Fatalf("first: %+v", m)
	}
	if m := <-ch; m.Action != events.ActionDie || m.Actor.Attributes["exitCode"] != "0" {
		t.Fatalf("second: %+v", m)
	}
	cancel()
	if _, ok := <-ch; ok {
		t.Fatal("channel still open after cancel")
	}
	if n := b.Listeners(); n != 0 {
		t.Fatalf("%d listeners left", n)
	}
}

func TestUntilInThePastEnds(t *testing.T) {
	var b Bus
	b.Publish(events.ImageEventType, events.ActionPull, "x", nil)
	ch := b.Subscribe(t.Context(), time.Now().Add(-time.Minute), time.Now(), nil)
	if m, ok := <-ch; !ok || m.Action != events.ActionPull {
		t.Fatalf("%+v %v", m, ok)
	}
	if _, ok := <-ch; ok {
		t.Fatal("not closed")
	}
}

func TestSlowSubscriberIsCutOff(t *testing.T) {
	var b Bus
	ch := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	for range buffer + 1 {
		b.Publish(events.ContainerEventType, events.ActionStart, "x", nil)
	}
	n := 0
	for range ch {
		n++
	}
	if n != buffer {
		t.Fatalf("got %d messages", n)
	}
	if len(b.past) != keep {
		t.Fatalf("kept %d", len(b.past))
	}
}

func TestMatch(t *testing.T) {
	m := events.Message{Type: events.ContainerEventType, Action: "exec_start: sh -c true", Actor: events.Actor{ID: "abcdef0123", Attributes: map[string]string{"name": "web", "image": "nginx:1", "tier": "front"}}}
	for _, tc := range []struct {
		key, value string
		want       bool
	}{
		{"event", "exec_start", true}, {"event", "die", false}, {"container", "web", true}, {"container", "abcdef", true},
		{"container", "ab", false}, {"label", "tier=front", true}, {"label", "tier", true}, {"label", "tier=back", false},
		{"image", "nginx:1", true}, {"network", "web", false}, {"nonsense", "x", false},
	} {
		if got := Match(m, map[string][]string{tc.key: {tc.value}}); got != tc.want {
			t.Errorf("%s=%s: %v", tc.key, tc.value, got)
		}
	}
}
