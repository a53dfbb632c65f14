package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// folder writes the files of a made-up cgroup.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "c", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCountV2(t *testing.T) {
	dir := folder(t, map[string]string{
		"cpu.stat":              "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
		"cpu.pressure":          "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
		"cpuset.cpus.effective": "0-2,5\n", "cpuset.mems.effective": "0\n",
		"memory.stat": "anon 1\nfile 2\n", "memory.max": "max\n", "memory.current": "100\n", "memory.peak": "200\n",
		"memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n", "memory.swap.max": "50\n", "memory.swap.current": "7\n",
		"memory.swap.events": "high 0\nmax 3\nfail 4\n", "pids.current": "3\n", "pids.max": "max\n",
		"io.stat":         "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n",
		"hugetlb.2MB.max": "max\n", "hugetlb.2MB.rsvd.max": "max\n", "hugetlb.2MB.current": "4096\n", "hugetlb.2MB.events": "max 8\n",
	})
	s, err := Count([]plan.Dir{{V2: true, Mount: dir, Path: dir + "/c", Controllers: []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cpu":{"usage":{"total":30000,"kernel":10000,"user":20000},"throttling":{"periods":3,"throttledPeriods":2,"throttledTime":1000},` +
		`"psi":{"some":{"avg10":1.5,"avg60":0.25,"avg300":0,"total":77},"full":{"avg10":0,"avg60":0,"avg300":0,"total":5}}},` +
		`"cpuset":{"cpus":[0,1,2,5],"cpu_exclusive":0,"mems":[0],"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,` +
		`"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},` +
		`"memory":{"cache":2,"usage":{"limit":18446744073709551615,"usage":100,"max":200,"failcnt":9},` +
		`"swap":{"limit":18446744073709551615,"usage":107,"failcnt":4},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0},` +
		`"raw":{"anon":1,"file":2}},"pids":{"current":3},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":1},` +
		`{"major":8,"op":"Write","value":2},{"major":8,"op":"Discard","value":5}],"ioServicedRecursive":[{"major":8,"op":"Read","value":3},` +
		`{"major":8,"op":"Write","value":4},{"major":8,"op":"Discard","value":6}]},"hugetlb":{"2MB":{"usage":4096,"failcnt":8}}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestCountV1Bfq(t *testing.T) {
	dir := folder(t, map[string]string{
		"blkio.bfq.io_serviced_recursive": "8:0 Read 3\n8:0 Total 3\nTotal 3\n", "blkio.bfq.io_service_time_recursive": "8:0 Read 9\n",
		"blkio.bfq.sectors_recursive": "8:0 24\n", "blkio.throttle.io_serviced_recursive": "8:0 Read 1000\n",
		"cpuacct.usage_all": "cpu user system\n0 11 12\n1 21 22\n", "cpuacct.usage": "66\n",
	})
	s, err := Count([]plan.Dir{{Mount: dir, Path: dir + "/c", Controllers: []string{"blkio", "cpuacct"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := BlkIOCounters{Serviced: []BlkIOEntry{{8, 0, "Read", 3}, {8, 0, "Total", 3}}, ServiceTime: []BlkIOEntry{{8, 0, "Read", 9}},
		Sectors: []BlkIOEntry{{8, 0, "", 24}}}
	if !reflect.DeepEqual(s.BlkIO, want) {
		t.Errorf("%+v, want %+v", s.BlkIO, want)
	}
	if u := s.CPU.Usage; !reflect.DeepEqual(u.PerCPUUser, []uint64{11, 21}) || !reflect.DeepEqual(u.PerCPUKernel, []uint64{12, 22}) || u.Total != 66 {
		t.Errorf("%+v", u)
	}
}

// TestCountReal compares with what the kernel was told and what the process did.
func TestCountReal(t *testing.T) {
	l, where, dirs := fresh(t)
	if _, err := Count(dirs); !errdef.Is(err, errdef.NotFound) {
		t.Fatalf("of no cgroup: %v", err)
	}
	c := start(t)
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(256 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(77))}}
	enter(t, l, where, r, c.Process.Pid)
	c.tell(t, "eat")
	handed := handedDown(t, dirs, "hugetlb") // before: a container with a limit may have it handed down meanwhile
	s, err := Count(dirs)
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Usage.Limit != 256<<20 || s.Memory.Usage.Usage < 64<<20 || s.Memory.Usage.Max < 64<<20 || len(s.Memory.Raw) == 0 {
		t.Errorf("memory %+v", s.Memory)
	}
	if s.Pids.Limit != 77 || s.Pids.Current == 0 {
		t.Errorf("pids %+v", s.Pids)
	}
	if s.CPU.Usage.Total == 0 || s.CPU.Usage.User+s.CPU.Usage.Kernel == 0 {
		t.Errorf("cpu %+v", s.CPU)
	}
	if _, ok := controller(dirs, "cpuset"); ok && len(s.CPUSet.CPUs) == 0 {
		t.Errorf("cpuset %+v", s.CPUSet)
	}
	if handed && len(s.Hugetlb) == 0 {
		t.Error("no size of huge pages")
	}
}

// handedDown tells whether a cgroup has a controller's files: on v2 only if those above hand it down, which nobody may have told them to.
func handedDown(t *testing.T, dirs []plan.Dir, name string) bool {
	d, ok := controller(dirs, name)
	if !ok || !d.V2 {
		return ok
	}
	b, err := os.ReadFile(filepath.Join(d.Path, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(strings.Fields(string(b)), name)
}

func TestWatchOOM(t *testing.T) {
	l, where, dirs := fresh(t)
	if _, ok := controller(dirs, "memory"); !ok {
		t.Skip("no memory controller")
	}
	c := start(t)
	enter(t, l, where, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}}, c.Process.Pid)
	w, err := WatchOOM(dirs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	told := make(chan bool, 8)
	go func() { // ends with the cgroup, at the latest with Close
		for {
			oom, err := w.Wait()
			if err != nil {
				t.Error(err)
			}
			told <- oom
			if !oom || err != nil {
				return
			}
		}
	}()
	next := func() bool {
		select {
		case oom := <-told:
			return oom
		case <-time.After(time.Minute):
			t.Fatal("nothing told in a minute")
			return false
		}
	}
	if got := c.tell(t, "eat"); got != "gone" {
		t.Fatalf("64 MiB fit into 32: %s", got)
	}
	if !next() {
		t.Fatal("told of the end, not of running out of memory")
	}
	c.Wait()
	if err := Remove(dirs); err != nil {
		t.Fatal(err)
	}
	for next() {
	}
}

func FuzzCounters(f *testing.F) {
	f.Add("some avg10=1.00 avg60=NaN avg300=Inf total=9\n", "0-3,5", "8:0 Read 4\n")
	f.Fuzz(func(t *testing.T, psi, list, devices string) {
		s := Counters{BlkIO: BlkIOCounters{PSI: parsePressure(psi), Serviced: parseDevices(devices)}}
		s.CPUSet.CPUs = parseList(list)
		if len(s.CPUSet.CPUs) > 1<<13 {
			t.Fatal("unbounded")
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		if n := len(s.BlkIO.Serviced); n > strings.Count(devices, "\n")+1 {
			t.Fatalf("%d entries", n)
		}
	})
}
