package plan

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzUpdate: whatever an update's JSON says, the plan is an error or writes lines of one value below the container's directories.
func FuzzUpdate(f *testing.F) {
	f.Add(`{"cpu":{"shares":2,"quota":-1,"cpus":"0-3"},"memory":{"limit":1,"swap":-1},"unified":{"memory.high":"1\n2"}}`)
	f.Add(`{"devices":[{"allow":true,"type":"a","major":-1,"access":"r"}],"hugepageLimits":[{"pageSize":"../x","limit":1}],"rdma":{"a b":{}}}`)
	f.Add(`{"network":{"priorities":[{"name":"e\n0","priority":1}]},"blockIO":{"throttleReadBpsDevice":[{"major":-8,"rate":18446744073709551615}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r specs.LinuxResources
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		for _, mode := range []string{"v1", "hybrid", "v2"} {
			for _, make := range []func(Layout, string, *specs.LinuxResources) ([]Step, error){Create, Update} {
				steps, err := make(layout(t, mode), "/a/b", &r)
				if err != nil {
					continue
				}
				for _, s := range steps {
					for e := &s; e != nil; e = e.Else {
						if !strings.HasPrefix(e.Path, "/sys/fs/cgroup/") || path.Clean(e.Path) != e.Path {
							t.Fatalf("%s leads out", e)
						}
						if e.Kind == Write && strings.ContainsAny(e.Value, "\n\x00") {
							t.Fatalf("%s writes more than a line", e)
						}
					}
				}
			}
			UnitLimits(layout(t, mode), &r)
		}
	})
}
