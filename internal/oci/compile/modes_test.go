package compile

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// TestModesFollowNoLink: fchmodat(2) follows a link in the last place, and before the root is the container's such a link leads to the host's
// files: by a name that the container's folders hold no mode is set with it.
func TestModesFollowNoLink(t *testing.T) {
	s := &bundle.Spec{}
	must(t, json.Unmarshal([]byte(base), s))
	perm := os.FileMode(0o600)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/volume/node", Type: "c", Major: 1, Minor: 3, FileMode: &perm}}
	p, err := Compile(Input{ID: "demo", Bundle: "/bundle", CgroupPath: "/demo", Spec: s, Facts: testFacts()})
	must(t, err)
	found := false
	for _, in := range p.Ins {
		found = found || in.Op == prog.Syscall && in.Sys == prog.SysFchmodat2 && strings.Contains(in.Args[3].Text, "NOFOLLOW")
		if in.Op == prog.Syscall && in.Sys == prog.SysFchmodat && in.Args[1].Text != `"."` {
			t.Errorf("fchmodat of %s", in.Args[1].Text)
		}
	}
	if !found {
		t.Errorf("the mode of a node that is there is not set:\n%s", p)
	}
}
