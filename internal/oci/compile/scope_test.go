package compile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// TestExecIntoScope: where we may not move a process ourselves, it waits outside until systemd has moved it, before it enters anything.
func TestExecIntoScope(t *testing.T) {
	s := &bundle.Spec{}
	must(t, json.Unmarshal([]byte(base), s))
	in := ExecInput{ID: "demo", Process: s.Process, Spec: s, Facts: testFacts(), Pidfd: 5, Namespaces: u.CLONE_NEWPID, Scope: "dhow-demo.scope",
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

// TestHugePages: a program that does without huge pages for its own sake gives them back to the container's processes, as the first thing after
// nobody may trace them; who was without them before does not.
func TestHugePages(t *testing.T) {
	for _, ours := range []bool{false, true} {
		f := testFacts()
		f.HugePages = ours
		s := &bundle.Spec{}
		must(t, json.Unmarshal([]byte(base), s))
		init, err := Compile(Input{ID: "demo", Bundle: "/bundle", CgroupPath: "/demo", Spec: s, Facts: f})
		must(t, err)
		exec, err := Exec(ExecInput{ID: "demo", Process: s.Process, Spec: s, Facts: f, Pidfd: 5})
		must(t, err)
		for name, p := range map[string]*prog.Program{"init": init, "exec": exec} {
			wellFormed(t, p, name == "init")
			if got := strings.Count(p.String(), "prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)"); got == 1 != ours {
				t.Errorf("%s, ours %v: %d times in\n%s", name, ours, got, p)
			}
		}
	}
}
