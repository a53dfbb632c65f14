package cgroup

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// Counters is all that the kernel counts for a container, in the JSON that runc's "events --stats" established. A limit that is none is
// the largest number (memory) or 0 (pids). Times are in nanoseconds.
type Counters struct {
	CPU     CPUCounters             `json:"cpu"`
	CPUSet  CPUSet                  `json:"cpuset"`
	Memory  MemoryCounters          `json:"memory"`
	Pids    PidsCounters            `json:"pids"`
	BlkIO   BlkIOCounters           `json:"blkio"`
	Hugetlb map[string]HugetlbUsage `json:"hugetlb"` // by page size, like 2MB
}

// CPUCounters is the use of processor time.
type CPUCounters struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		PerCPU       []uint64 `json:"percpu,omitempty"` // v1 only, as the next two
		PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
		PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *PSI `json:"psi,omitempty"`
}

// CPUSet says on which CPUs and memory nodes the container may be; all but the two lists are of v1.
type CPUSet struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryUsage is one kind of memory.
type MemoryUsage struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// MemoryCounters: swap is memory and swap together, as v1 counts. Kernel memory is counted apart by v1 only.
type MemoryCounters struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryUsage       `json:"usage"`
	Swap      MemoryUsage       `json:"swap"`
	Kernel    MemoryUsage       `json:"kernel"`
	KernelTCP MemoryUsage       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	PSI       *PSI              `json:"psi,omitempty"`
}

// PidsCounters counts tasks.
type PidsCounters struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkIOEntry is one number of one device.
type BlkIOEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// BlkIOCounters is block I/O. v2 and v1's throttling count bytes and operations only, BFQ on v1 all.
type BlkIOCounters struct {
	ServiceBytes []BlkIOEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkIOEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlkIOEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlkIOEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlkIOEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlkIOEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlkIOEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlkIOEntry `json:"sectorsRecursive,omitempty"`
	PSI          *PSI         `json:"psi,omitempty"`
}

// HugetlbUsage is the use of one size of huge pages, in bytes.
type HugetlbUsage struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PSI is pressure stall information: how long tasks waited (Documentation/accounting/psi.rst). Only v2 has it.
type PSI struct {
	Some Pressure `json:"some,omitzero"`
	Full Pressure `json:"full,omitzero"`
}

// Pressure is one line of it: per cent of the last 10, 60, 300 s, and microseconds in all.
type Pressure struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// Count returns the container's counters. If none of its directories exists, the error is of kind NotFound. What a missing controller
// would count is zero.
func Count(dirs []plan.Dir) (Counters, error) {
	s := Counters{Hugetlb: map[string]HugetlbUsage{}}
	if _, err := home(dirs); err != nil {
		return s, err
	}
	found := false
	var errs []error
	for _, d := range dirs {
		if _, err := os.Stat(d.Path); err != nil {
			continue
		}
		found = true
		f := counterFile{dir: d.Path}
		if d.V2 {
			s.countV2(d, &f)
		} else {
			s.countV1(d, &f)
		}
		errs = append(errs, f.err)
	}
	if !found {
		return s, errdef.New(errdef.NotFound, "cgroup %s: no such directory in any hierarchy", dirs[0].Path)
	}
	return s, errors.Join(errs...)
}

// counterFile reads the files of a directory. What is absent reads as empty or 0; the first other error stays.
type counterFile struct {
	dir string
	err error
}

func (f *counterFile) text(name string) string {
	b, err := read(path.Join(f.dir, name), maxFile)
	if err != nil {
		if f.err == nil && !absent(err) {
			f.err = err
		}
		return ""
	}
	return string(b)
}

func (f *counterFile) exists(name string) bool {
	_, err := os.Stat(path.Join(f.dir, name))
	return err == nil
}

// number reads one number, "max" as the largest.
func (f *counterFile) number(name string) uint64 {
	return parseNumber(f.text(name))
}

func parseNumber(s string) uint64 {
	s = strings.TrimSpace(s)
	if s == "max" || s == "-1" {
		return 1<<64 - 1
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func (f *counterFile) keyed(name string) map[string]uint64 { return parseKeyed([]byte(f.text(name))) }

// pressure reads a PSI file: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and mostly "full ...". Without it there is nil.
func (f *counterFile) pressure(name string) *PSI { return parsePressure(f.text(name)) }

func parsePressure(text string) *PSI {
	var p PSI
	found := false
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		into := &p.Some
		if w[0] == "full" {
			into = &p.Full
		} else if w[0] != "some" {
			continue
		}
		found = true
		for _, kv := range w[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				into.Avg10 = percent(v)
			case "avg60":
				into.Avg60 = percent(v)
			case "avg300":
				into.Avg300 = percent(v)
			case "total":
				into.Total, _ = strconv.ParseUint(v, 10, 64)
			}
		}
	}
	if !found {
		return nil
	}
	return &p
}

// percent reads the kernel's "12.34"; anything else, an infinity included, is 0, so that the result is always JSON.
func percent(s string) float64 {
	if strings.Trim(s, "0123456789.") != "" || len(s) > 16 {
		return 0
	}
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

// parseList reads "0-2,5" into numbers; what is no such list is empty. Nothing on Linux has more than maxListed CPUs.
func parseList(s string) []uint16 {
	const maxListed = 1 << 13
	var out []uint16
	for _, part := range strings.Split(strings.TrimSpace(s), ",") {
		a, b, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(a, 10, 16)
		if err != nil {
			return nil
		}
		to := from
		if isRange {
			if to, err = strconv.ParseUint(b, 10, 16); err != nil || to < from {
				return nil
			}
		}
		for n := from; n <= to; n++ {
			if len(out) == maxListed {
				return nil
			}
			out = append(out, uint16(n))
		}
	}
	return out
}

// parseDevices reads lines "MAJ:MIN Op N" and "MAJ:MIN N" of v1's blkio files.
func parseDevices(text string) []BlkIOEntry {
	var out []BlkIOEntry
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) != 2 && len(w) != 3 {
			continue
		}
		major, minor, ok := parseDevice(w[0])
		n, err := strconv.ParseUint(w[len(w)-1], 10, 64)
		if !ok || err != nil {
			continue // the line "Total N"
		}
		e := BlkIOEntry{Major: major, Minor: minor, Value: n}
		if len(w) == 3 {
			e.Op = w[1]
		}
		out = append(out, e)
	}
	return out
}
