package docker

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const compatibility = "../../../docs/compatibility.md"

const (
	tableBegin = "<!-- operations: begin (written by go test ./internal/face/docker -update) -->\n"
	tableEnd   = "<!-- operations: end -->\n"
)

// TestCompatibility keeps the page true: its table is the route table.
func TestCompatibility(t *testing.T) {
	b, err := os.ReadFile(compatibility)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("the marks of the table are missing")
	}
	var w strings.Builder
	counts := map[support]int{}
	w.WriteString("\n| operation | state | what is missing, notes |\n|---|---|---|\n")
	for _, o := range routes() {
		counts[o.state]++
		fmt.Fprintf(&w, "| `%s %s` | %s | %s |\n", o.method, o.path, o.state, o.note)
		if o.state == partly && o.note == "" {
			t.Errorf("%s %s: partly, but what is missing?", o.method, o.path)
		}
	}
	fmt.Fprintf(&w, "\n%d operations: %d work, %d partly, %d stubs, %d answer 501, %d answer 503.\n", len(routes()), counts[works], counts[partly], counts[stub], counts[notYet], counts[noSwarm])
	if old == w.String() {
		return
	}
	if !*update {
		t.Fatal("docs/compatibility.md does not say what the route table says; run with -update")
	}
	if err := os.WriteFile(compatibility, []byte(before+tableBegin+w.String()+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRoutes: no row hides another, and every row is reached by its own path.
func TestRoutes(t *testing.T) {
	rt := newRouter(routes())
	seen := map[string]bool{}
	for _, o := range routes() {
		key := o.method + " " + o.path
		if seen[key] {
			t.Errorf("%s twice", key)
		}
		seen[key] = true
		path := strings.NewReplacer("{name...}", "a/b", "{id}", "xx", "{name}", "vv", "{checkpoint}", "cc").Replace(o.path)
		got, _, err := rt.find(o.method, strings.Split(path[1:], "/"))
		if err != nil || got.path != o.path {
			t.Errorf("%s leads to %s (%v)", key, got.path, err)
		}
	}
}
