package cgroup

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestPrevious(t *testing.T) {
	for _, c := range []struct{ file, text, written, want string }{
		{"memory.max", "max\n", "1000", "max"},
		{"cpu.max", "max 100000\n", "5000 10000", "max 100000"},
		{"cpuset.cpus", "\n", "0", "\n"},
		{"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1", "0"},
		{"blkio.throttle.read_bps_device", "8:16 5\n8:0 7\n", "8:0 9", "8:0 7"},
		{"blkio.throttle.read_bps_device", "8:16 5\n", "8:0 9", "8:0 0"},
		{"io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n", "8:0 rbps=9", "8:0 rbps=1 wbps=max riops=max wiops=max"},
		{"io.max", "", "8:0 rbps=9", "8:0 rbps=max"},
		{"io.weight", "default 100\n8:0 50\n", "default 200", "default 100"},
		{"io.weight", "default 100\n", "8:0 200", "8:0 default"},
		{"io.bfq.weight", "default 100\n8:0 50\n", "200", "default 100"},
		{"rdma.max", "", "mlx hca_handle=2 hca_object=3", "mlx hca_handle=max hca_object=max"},
	} {
		if got := previous(c.file, c.text, c.written); got != c.want {
			t.Errorf("previous(%s, %q, %q) = %q, want %q", c.file, c.text, c.written, got, c.want)
		}
	}
}

// TestChangeAllOrNone: a step that fails half-way leaves every limit as it was.
func TestChangeAllOrNone(t *testing.T) {
	l, where, dirs := fresh(t)
	c := start(t)
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(512 << 20)), Swap: ptr(int64(1 << 30))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(50))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Devices: deviceRules()}
	enter(t, l, where, r, c.Process.Pid)
	limits := func() map[string]string {
		v := Values(dirs)
		for k := range v {
			if !slices.ContainsFunc([]string{"max", "limit_in_bytes", "shares", "quota_us", "period_us", "devices.list", "weight"}, func(s string) bool {
				return strings.HasSuffix(k, s)
			}) {
				delete(v, k)
			}
			if strings.HasSuffix(k, "devices.list") {
				w := strings.Split(v[k], "\n")
				slices.Sort(w)
				v[k] = strings.Join(w, "\n")
			}
		}
		return v
	}
	was := limits()
	for _, change := range []*specs.LinuxResources{
		{CPU: &specs.LinuxCPU{Shares: ptr(uint64(100)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000))}},
		{Memory: &specs.LinuxMemory{Limit: ptr(int64(2 << 30)), Swap: ptr(int64(3 << 30))}},
		{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}},
		{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Access: "rwm"}}},
	} {
		steps, err := plan.Update(l, where, change)
		if err != nil {
			t.Fatal(err)
		}
		bad := plan.Step{Kind: plan.Write, Path: path.Join(dirs[0].Path, "no.such.file"), Value: "1", Why: "linux.resources.test"}
		if last := steps[len(steps)-1]; last.Kind == plan.Devices { // is always the last, and replaces in one call: there is nothing to set back
			continue
		}
		err = Change(append(steps, bad))
		if err == nil || !strings.Contains(err.Error(), "linux.resources.test") || !strings.Contains(err.Error(), "is as it was") {
			t.Fatalf("%v", err)
		}
		for file, value := range limits() {
			if was[file] != value {
				t.Errorf("%s is %q, was %q", file, value, was[file])
			}
		}
		if err := Change(steps); err != nil {
			t.Fatal(err)
		}
		changed := false
		for file, value := range limits() {
			changed = changed || was[file] != value
		}
		if !changed {
			t.Errorf("%+v changed nothing", change)
		}
		back, err := plan.Update(l, where, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := Change(back); err != nil {
			t.Fatal(err)
		}
	}
	deviceCheck(t, c)
}

func TestComplete(t *testing.T) {
	dir := folder(t, map[string]string{"cpu.max": "max 20000\n", "memory.max": "4096\n"})
	dirs := []plan.Dir{{V2: true, Mount: dir, Path: dir + "/c", Controllers: []string{"cpu", "memory"}}}
	r, err := Complete(dirs, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(5000))}, Memory: &specs.LinuxMemory{Swap: ptr(int64(8192))}})
	if err != nil || *r.CPU.Period != 20000 || *r.Memory.Limit != 4096 {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = Complete(dirs, &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(5000))}})
	if err != nil || *r.CPU.Quota != -1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Remove(dir + "/c/cpu.max"); err != nil {
		t.Fatal(err)
	}
	if r, err = Complete(dirs, &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(5000))}}); err != nil || r.CPU.Quota != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzPrevious(f *testing.F) {
	f.Add("io.max", "8:0 rbps=1\n", "8:0 rbps=9")
	f.Fuzz(func(t *testing.T, file, text, written string) {
		if got := previous(file, text, written); got == "" && !strings.HasPrefix(written, " ") {
			t.Fatal("nothing to write")
		}
	})
}
