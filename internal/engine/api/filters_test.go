package api

import (
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "1600000000": time.Unix(1600000000, 0), "1600000000.5": time.Unix(1600000000, 5e8), "2020-01-01T00:00:00Z": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := ParseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	if _, err := ParseTime("yesterday", now); !errdef.Is(err, errdef.InvalidArgument) {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	labels := map[string]string{"a": "1", "b": ""}
	for _, c := range []struct {
		f    Filters
		want bool
	}{
		{nil, true}, {Filters{"label": {"a"}}, true}, {Filters{"label": {"a=1", "b"}}, true}, {Filters{"label": {"a=2"}}, false},
		{Filters{"label!": {"a"}}, false}, {Filters{"label!": {"a=2", "c"}}, true}, {Filters{"label": {"b="}, "label!": {"b=x"}}, true},
	} {
		if got := c.f.Labelled(labels); got != c.want {
			t.Errorf("%v: %v", c.f, got)
		}
	}
	if got, err := (Filters{"dangling": {"0"}}).Bool("dangling", true); err != nil || got {
		t.Error(got, err)
	}
	if _, err := (Filters{"dangling": {"maybe"}}).Bool("dangling", true); !errdef.Is(err, errdef.InvalidArgument) {
		t.Error(err)
	}
}
