package cgroup

import (
	"os"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

func (s *Counters) countV1(d plan.Dir, f *counterFile) {
	for _, part := range []struct {
		controller string
		read       func(*counterFile)
	}{{"cpuacct", s.cpuacctV1}, {"cpu", s.throttlingV1}, {"cpuset", s.cpusetV1}, {"memory", s.memoryV1}, {"pids", s.pids},
		{"blkio", s.blkioV1}, {"hugetlb", s.hugetlb}} {
		if d.Has(part.controller) {
			part.read(f)
		}
	}
}

func (s *Counters) cpuacctV1(f *counterFile) {
	u := &s.CPU.Usage
	u.Total, u.User, u.Kernel = f.number("cpuacct.usage"), f.number("cpuacct.usage_user"), f.number("cpuacct.usage_sys")
	for _, w := range strings.Fields(f.text("cpuacct.usage_percpu")) {
		u.PerCPU = append(u.PerCPU, parseNumber(w))
	}
	for line := range strings.Lines(f.text("cpuacct.usage_all")) { // "cpu user system", then a line a CPU
		if w := strings.Fields(line); len(w) == 3 && w[0] != "cpu" {
			u.PerCPUUser = append(u.PerCPUUser, parseNumber(w[1]))
			u.PerCPUKernel = append(u.PerCPUKernel, parseNumber(w[2]))
		}
	}
}

func (s *Counters) throttlingV1(f *counterFile) {
	m := f.keyed("cpu.stat")
	t := &s.CPU.Throttling
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
}

func (s *Counters) cpusetV1(f *counterFile) {
	c := &s.CPUSet
	c.CPUs, c.Mems = parseList(f.text("cpuset.cpus")), parseList(f.text("cpuset.mems"))
	for file, into := range map[string]*uint64{"cpu_exclusive": &c.CPUExclusive, "mem_hardwall": &c.MemHardwall, "mem_exclusive": &c.MemExclusive,
		"memory_migrate": &c.MemoryMigrate, "memory_spread_page": &c.MemorySpreadPage, "memory_spread_slab": &c.MemorySpreadSlab,
		"memory_pressure": &c.MemoryPressure, "sched_load_balance": &c.SchedLoadBalance} {
		*into = f.number("cpuset." + file)
	}
	c.SchedRelaxDomainLevel, _ = strconv.ParseInt(strings.TrimSpace(f.text("cpuset.sched_relax_domain_level")), 10, 64)
}

func (s *Counters) memoryV1(f *counterFile) {
	usage := func(name string) MemoryUsage {
		return MemoryUsage{Limit: f.number(name + ".limit_in_bytes"), Usage: f.number(name + ".usage_in_bytes"),
			Max: f.number(name + ".max_usage_in_bytes"), Failcnt: f.number(name + ".failcnt")}
	}
	m := &s.Memory
	m.Usage, m.Swap, m.Kernel, m.KernelTCP = usage("memory"), usage("memory.memsw"), usage("memory.kmem"), usage("memory.kmem.tcp")
	m.Raw = f.keyed("memory.stat")
	m.Cache = m.Raw["cache"]
}

func (s *Counters) pids(f *counterFile) {
	s.Pids.Current = f.number("pids.current")
	if n := f.number("pids.max"); n != 1<<64-1 {
		s.Pids.Limit = n
	}
}

// blkioV1 takes BFQ's counters where the kernel has them, else CFQ's (before Linux 5.0), else those of throttling.
func (s *Counters) blkioV1(f *counterFile) {
	prefix := ""
	for _, p := range []string{"blkio.bfq.", "blkio."} {
		if len(parseDevices(f.text(p+"io_serviced_recursive"))) > 0 {
			prefix = p
			break
		}
	}
	b := &s.BlkIO
	if prefix == "" {
		const throttle = "blkio.throttle."
		if f.exists(throttle + "io_serviced_recursive") {
			b.ServiceBytes, b.Serviced = parseDevices(f.text(throttle+"io_service_bytes_recursive")), parseDevices(f.text(throttle+"io_serviced_recursive"))
			return
		}
		b.ServiceBytes, b.Serviced = parseDevices(f.text(throttle+"io_service_bytes")), parseDevices(f.text(throttle+"io_serviced"))
		return
	}
	for file, into := range map[string]*[]BlkIOEntry{"io_service_bytes": &b.ServiceBytes, "io_serviced": &b.Serviced, "io_queued": &b.Queued,
		"io_service_time": &b.ServiceTime, "io_wait_time": &b.WaitTime, "io_merged": &b.Merged, "time": &b.Time, "sectors": &b.Sectors} {
		*into = parseDevices(f.text(prefix + file + "_recursive"))
	}
}

// hugetlb finds the page sizes by the files there are.
func (s *Counters) hugetlb(f *counterFile) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		size, v2 := strings.CutSuffix(strings.TrimPrefix(e.Name(), "hugetlb."), ".max")
		if !v2 {
			var v1 bool
			if size, v1 = strings.CutSuffix(size, ".limit_in_bytes"); !v1 {
				continue
			}
		}
		if strings.Contains(size, ".") || !strings.HasPrefix(e.Name(), "hugetlb.") {
			continue // SIZE.rsvd
		}
		prefix := "hugetlb." + size + "."
		if v2 {
			s.Hugetlb[size] = HugetlbUsage{Usage: f.number(prefix + "current"), Failcnt: f.keyed(prefix + "events")["max"]}
			continue
		}
		if f.exists(prefix + "rsvd.usage_in_bytes") { // the reservation is what the limit stops first
			prefix += "rsvd."
		}
		s.Hugetlb[size] = HugetlbUsage{Usage: f.number(prefix + "usage_in_bytes"), Max: f.number(prefix + "max_usage_in_bytes"),
			Failcnt: f.number(prefix + "failcnt")}
	}
}

func (s *Counters) countV2(d plan.Dir, f *counterFile) {
	for _, part := range []struct {
		controller string
		read       func(*counterFile)
	}{{"cpu", s.cpuV2}, {"cpuset", s.cpusetV2}, {"memory", s.memoryV2}, {"pids", s.pids}, {"io", s.ioV2}, {"hugetlb", s.hugetlb}} {
		if d.Has(part.controller) {
			part.read(f)
		}
	}
}

func (s *Counters) cpuV2(f *counterFile) {
	m := f.keyed("cpu.stat")
	u, t := &s.CPU.Usage, &s.CPU.Throttling
	u.Total, u.User, u.Kernel = 1000*m["usage_usec"], 1000*m["user_usec"], 1000*m["system_usec"]
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = m["nr_periods"], m["nr_throttled"], 1000*m["throttled_usec"]
	s.CPU.PSI = f.pressure("cpu.pressure")
}

func (s *Counters) cpusetV2(f *counterFile) {
	s.CPUSet.CPUs, s.CPUSet.Mems = parseList(f.text("cpuset.cpus.effective")), parseList(f.text("cpuset.mems.effective"))
}

func (s *Counters) memoryV2(f *counterFile) {
	m, events := &s.Memory, f.keyed("memory.events")
	m.Raw = f.keyed("memory.stat")
	m.Cache = m.Raw["file"]
	m.Usage = MemoryUsage{Limit: f.number("memory.max"), Usage: f.number("memory.current"), Max: f.number("memory.peak"), Failcnt: events["max"]}
	m.PSI = f.pressure("memory.pressure")
	if f.exists("memory.swap.max") { // else a kernel without swap
		m.Swap = MemoryUsage{Limit: f.number("memory.swap.max"), Usage: m.Usage.Usage + f.number("memory.swap.current"),
			Failcnt: f.keyed("memory.swap.events")["fail"]}
		if sum := m.Swap.Limit + m.Usage.Limit; sum >= m.Swap.Limit { // no limit plus something is no limit
			m.Swap.Limit = sum
		} else {
			m.Swap.Limit = 1<<64 - 1
		}
	}
}

func (s *Counters) ioV2(f *counterFile) {
	for _, d := range parseIOStat(f.text("io.stat")) {
		add := func(list *[]BlkIOEntry, op string, n uint64) {
			*list = append(*list, BlkIOEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: n})
		}
		add(&s.BlkIO.ServiceBytes, "Read", d.ReadBytes)
		add(&s.BlkIO.ServiceBytes, "Write", d.WriteBytes)
		add(&s.BlkIO.ServiceBytes, "Discard", d.DiscardBytes)
		add(&s.BlkIO.Serviced, "Read", d.ReadOps)
		add(&s.BlkIO.Serviced, "Write", d.WriteOps)
		add(&s.BlkIO.Serviced, "Discard", d.Discards)
	}
	s.BlkIO.PSI = f.pressure("io.pressure")
}
