package format

import (
	"bytes"
	"strings"
	"testing"
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
	if !strings.HasPrefix(got, "aa: Waiting\nbb: Waiting\n\x1b[2A\r\x1b[2Kaa: Downloading [=") || !strings.HasSuffix(got, "5B/10B\r\x1b[2B") {
		t.Fatalf("%q", got)
	}
}
