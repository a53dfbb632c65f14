package format

import (
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// totalID is no ID that a message can have: Safe would not let it pass.
const totalID = "\x00total"

// total adds up what is transferred under all IDs.
type total struct {
	now   func() time.Time
	began time.Time
	layer map[string][2]int64 // bytes so far and in all
	had   int64               // of these, what was there before
}

// add takes a message and returns the line that is to be shown, "" for none.
func (t *total) add(m *jsonstream.Message) string {
	id := Safe(m.ID)
	was, known := t.layer[id]
	resumes := m.Status == "Resuming download"
	moves := m.Progress != nil && m.Progress.Total > 0 && m.Progress.Units == "" && (m.Status == "Downloading" || m.Status == "Pushing" || resumes)
	switch {
	case moves:
		if t.layer == nil {
			t.layer, t.began = map[string][2]int64{}, t.now()
		}
		t.layer[id] = [2]int64{min(m.Progress.Current, m.Progress.Total), m.Progress.Total}
		if resumes && !known {
			t.had += t.layer[id][0]
		}
	case known && (strings.HasSuffix(m.Status, " complete") || m.Status == "Pushed"):
		t.layer[id] = [2]int64{was[1], was[1]}
	default:
		return ""
	}
	var now, all int64
	for _, l := range t.layer {
		now, all = now+l[0], all+l[1]
	}
	text := "Total: " + units.HumanSize(float64(now)) + "/" + units.HumanSize(float64(all))
	if took := t.now().Sub(t.began).Seconds(); took > 0.2 {
		text += "  " + units.HumanSize(float64(max(0, now-t.had))/took) + "/s"
	}
	return text
}
