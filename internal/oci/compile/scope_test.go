package compile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// TestExecIntoScope: where we may not move a process ourselves, it waits outside until systemd has moved it, before it enters anything.
func TestExecIntoScope(t *testing.T) {
	s := &bundle.Spec{}
	must(t, json.Unmarshal([]byte(base), s))
	in := ExecInput{ID: "demo", Process: s.Process, Spec: s, Facts: testFacts(), Pidfd: 5, Scope: "dhow-demo.scope",
		Cgroups: []plan.Dir{{V2: true, Mount: "/sys/fs/cgroup", Path: "/sys/fs/cgroup/x"}}}
	p, err := Exec(in)
	must(t, err)
	wellFormed(t, p, false)
	text := p.String()
	attach, enter := strings.Index(text, "AttachProcessesToUnit dhow-demo.scope"), strings.Index(text, "setns(")
	if attach < 0 || enter < attach || strings.Contains(text, "/sys/fs/cgroup/x") {
		t.Errorf("attach at %d, setns at %d:\n%s", attach, enter, text)
	}
}
