package format

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 日本":         "plain é 日本",
		"\x1b[31mred\x07":    `\x1b[31mred\x07`,
		"a\nb\tc\r":          `a\nb\tc\r`,
		"bad \xff utf8":      `bad \xff utf8`,
		"c1 \u009b31m":       `c1 \x9b31m`,
		"bidi \u202e\u2066x": `bidi \u202e\u2066x`,
		"\ufffd":             "\ufffd",
	} {
		if got := Safe(in); got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
	}
	if got := SafeText("a\nb\t\x1b"); got != "a\nb\t\\x1b" {
		t.Errorf("%q", got)
	}
}

func TestNatural(t *testing.T) {
	for _, p := range [][2]string{{"web2", "web10"}, {"a", "b"}, {"web", "web1"}, {"a01b", "a1c"}} {
		if Natural(p[0], p[1]) >= 0 || Natural(p[1], p[0]) <= 0 {
			t.Errorf("%v", p)
		}
	}
}

func TestTemplates(t *testing.T) {
	row := map[string]any{"A": "a", "L": []string{"x", "y"}}
	for in, want := range map[string]string{
		`{{.A}}\t{{.A}}`:               "a\ta\n",
		`{{join .L "\n"}}\n.`:          "x\ny\n.\n",
		"{{join .L `\\t`}}":            "x\\ty\n",
		`{{"}}\t"}}{{'\t'}}\t{{"\""}}`: "}}\t9\t\"\n",
		`no action\tat all`:            "no action\tat all\n",
	} {
		var b bytes.Buffer
		if err := (Table{}).Print(&b, in, false, []any{row}); err != nil || b.String() != want {
			t.Errorf("%s: %q %v, want %q", in, b.String(), err, want)
		}
	}
	if err := (Table{}).Print(&bytes.Buffer{}, `{{.A`, false, []any{row}); err == nil {
		t.Error("an action without end")
	}
}

func TestProgressOnATerminal(t *testing.T) {
	var b bytes.Buffer
	in := `{"id":"aa","status":"Waiting"}{"id":"bb","status":"Waiting"}{"id":"aa","status":"Downloading","progressDetail":{"current":5,"total":10}}`
	if err := Progress(&b, 80, true, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if !strings.HasPrefix(got, "aa: Waiting\nbb: Waiting\n\x1b[2A\r\x1b[2Kaa: Downloading [=") || !strings.HasSuffix(got, "5B/10B\r\x1b[2BTotal: 5B/10B\n") {
		t.Fatalf("%q", got)
	}
}

// TestProgressTotal: the total stays below all lines, counts what has ended as whole, and tells the rate.
func TestProgressTotal(t *testing.T) {
	at := time.Unix(0, 0)
	sum := total{now: func() time.Time { return at }}
	say := func(id, status string, current, all int64) string {
		m := jsonstream.Message{ID: id, Status: status}
		if all > 0 {
			m.Progress = &jsonstream.Progress{Current: current, Total: all}
		}
		return sum.add(&m)
	}
	for n, want := range []string{"", "Total: 1kB/4kB", "Total: 3kB/10kB  1.5kB/s", "Total: 6kB/10kB  1.5kB/s", "Total: 10kB/10kB  2.5kB/s"} {
		var got string
		switch n {
		case 0:
			got = say("a", "Waiting", 0, 0)
		case 1:
			got = say("a", "Downloading", 1000, 4000)
		case 2:
			at = at.Add(2 * time.Second)
			got = say("b", "Downloading", 2000, 6000)
		case 3:
			at = at.Add(2 * time.Second)
			got = say("a", "Download complete", 0, 0)
		case 4:
			got = say("b", "Pull complete", 0, 0)
		}
		if got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	sum = total{now: func() time.Time { return at }} // what was there before has not come at any rate
	say("a", "Resuming download", 3000, 4000)
	at = at.Add(2 * time.Second)
	if got, want := say("a", "Downloading", 3500, 4000), "Total: 3.5kB/4kB  250B/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var b bytes.Buffer
	in := `{"id":"a","status":"Downloading","progressDetail":{"current":5,"total":10}}{"id":"b","status":"Waiting"}{"id":"b","status":"Downloading","progressDetail":{"current":1,"total":10}}`
	if err := Progress(&b, 40, true, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	lines, row := []string{}, 0
	for _, s := range strings.SplitAfter(b.String(), "\n") { // as a terminal would show it
		for s != "" {
			switch {
			case strings.HasPrefix(s, "\x1b["):
				end := strings.IndexAny(s, "AKB")
				n, _ := strconv.Atoi(s[2:end])
				switch s[end] {
				case 'A':
					row -= n
				case 'B':
					row += n
				case 'K':
					lines[row] = ""
				}
				s = s[end+1:]
			case s[0] == '\n':
				row, s = row+1, s[1:]
			case s[0] == '\r':
				s = s[1:]
			default:
				end := strings.IndexAny(s, "\x1b\r\n")
				for len(lines) <= row {
					lines = append(lines, "")
				}
				lines[row], s = s[:end], s[end:]
			}
		}
	}
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "a: Downloading") || !strings.HasPrefix(lines[1], "b: Downloading") || lines[2] != "Total: 6B/20B" {
		t.Errorf("%q", lines)
	}
}
