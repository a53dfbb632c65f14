package cli

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden pages of explain")

// TestExplainPage prints each testdata/explain/*.txtar: report.json in; page (100 columns), narrow (60) and colour out.
func TestExplainPage(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var r report
			if err := json.Unmarshal(a.Files[0].Data, &r); err != nil {
				t.Fatal(err)
			}
			colour := strings.ReplaceAll(explainPage(&r, 100, true), "\x1b", "ESC")
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				a.Files[0], {Name: "page", Data: []byte(explainPage(&r, 100, false))}, {Name: "narrow", Data: []byte(explainPage(&r, 10, false))},
				{Name: "colour", Data: []byte(colour)},
			}}
			for _, l := range strings.Split(string(got.Files[1].Data), "\n") {
				if n := len([]rune(l)); n > 100 {
					t.Errorf("%d columns: %s", n, l)
				}
			}
			if *update {
				if err := os.WriteFile(f, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want, have := string(txtar.Format(a)), string(txtar.Format(got)); want != have {
				t.Errorf("differs from %s (-update rewrites it):\n%s", f, have)
			}
		})
	}
}

// TestExplainCommand: the three forms, and what a report without a program says.
func TestExplainCommand(t *testing.T) {
	e := newEngine(t)
	answer := `{"id":"0123456789abcdef","name":"web","image":"i\u001b[31m","status":"running","pid":7,"sections":[],` +
		`"program":{"host_lane":1,"child_lane":1,"lines":["   0 host  a\u001b]0;x","   1 child b"]}}`
	e.mux.HandleFunc("GET /dhow/containers/web/explain", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(answer)) })
	e.mux.HandleFunc("GET /dhow/containers/new/explain", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"name":"new","program":{"note":"there is none before the first start"}}`))
	})
	for _, c := range []struct {
		args  []string
		code  int
		words []string
	}{
		{[]string{"explain", "web"}, 0, []string{"web (0123456789ab): image i\\x1b[31m, running, process 7", "1 host-lane and 1 child-lane instructions"}},
		{[]string{"explain", "--json", "web"}, 0, []string{`"host_lane": 1`}},
		{[]string{"explain", "--program", "web"}, 0, []string{"   0 host  a\\x1b]0;x\n   1 child b\n"}},
		{[]string{"explain", "--program", "new"}, 1, []string{"container new has no program: there is none before the first start"}},
		{[]string{"explain", "--program", "--json", "web"}, 1, []string{"exclude each other"}},
	} {
		res := e.run(c.args...)
		out, errs, code := res.stdout, res.stderr, res.code
		if code != c.code {
			t.Errorf("%v: code %d, want %d: %s", c.args, code, c.code, errs)
		}
		for _, w := range c.words {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%v: %q is not in\n%s%s", c.args, w, out, errs)
			}
		}
		if strings.Contains(out+errs, "\x1b") {
			t.Errorf("%v: an escape reaches the terminal", c.args)
		}
	}
}
