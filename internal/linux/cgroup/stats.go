package cgroup

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"golang.org/x/sys/unix"
)

// Stats is what the kernel counts for a container. What a missing controller would count is zero.
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	BlockIO []DeviceIO
}

// CPUStats: times in nanoseconds.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods             uint64   // of the quota, passed
	ThrottledPeriods    uint64
	ThrottledTime       uint64
}

// MemoryStats: bytes, but Failures and OOMKills are events. A limit of 0 is none.
type MemoryStats struct {
	Usage, Peak, Limit   uint64
	SwapUsage, SwapLimit uint64 // swap alone, v1's sums taken apart
	Failures, OOMKills   uint64
	Detail               map[string]uint64 // memory.stat
}

// PidsStats: tasks; a limit of 0 is none.
type PidsStats struct{ Current, Limit uint64 }

// DeviceIO is what went to and from one block device.
type DeviceIO struct {
	Major, Minor           uint64
	ReadBytes, WriteBytes  uint64
	ReadOps, WriteOps      uint64
	DiscardBytes, Discards uint64
}

// Read returns the container's counters. If none of its directories exists, the error is of kind NotFound.
func Read(dirs []plan.Dir) (Stats, error) {
	var s Stats
	if _, err := home(dirs); err != nil {
		return s, err
	}
	found := false
	for _, d := range dirs {
		if _, err := os.Stat(d.Path); err != nil {
			continue
		}
		found = true
		if err := s.read(d); err != nil && !absent(err) {
			return s, err
		}
	}
	if !found {
		return s, errdef.New(errdef.NotFound, "cgroup %s: no such directory in any hierarchy", dirs[0].Path)
	}
	return s, nil
}

// absent reports that a file is not there: no such controller, or the directory just went away.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)
}

func (s *Stats) read(d plan.Dir) error {
	var errs []error
	for _, part := range []struct {
		controller string
		v2         bool
		read       func(string) error
	}{
		{"cpuacct", false, s.cpuacct}, {"cpu", false, s.cpuV1}, {"memory", false, s.memoryV1}, {"blkio", false, s.blkio},
		{"cpu", true, s.cpuV2}, {"memory", true, s.memoryV2}, {"io", true, s.io}, {"pids", d.V2, s.pids},
	} {
		if part.v2 == d.V2 && d.Has(part.controller) {
			if err := part.read(d.Path); err != nil && !absent(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Stats) cpuacct(dir string) (err error) {
	if s.CPU.Total, err = readUint(dir, "cpuacct.usage"); err != nil {
		return err
	}
	if s.CPU.User, err = readUint(dir, "cpuacct.usage_user"); err != nil {
		return err
	}
	if s.CPU.System, err = readUint(dir, "cpuacct.usage_sys"); err != nil {
		return err
	}
	b, err := read(path.Join(dir, "cpuacct.usage_percpu"), maxFile)
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			s.CPU.PerCPU = append(s.CPU.PerCPU, n)
		}
	}
	return err
}

func (s *Stats) cpuV1(dir string) error {
	b, err := read(path.Join(dir, "cpu.stat"), maxFile)
	m := parseKeyed(b)
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
	return err
}

func (s *Stats) cpuV2(dir string) error {
	b, err := read(path.Join(dir, "cpu.stat"), maxFile)
	m := parseKeyed(b)
	s.CPU.Total, s.CPU.User, s.CPU.System = 1000*m["usage_usec"], 1000*m["user_usec"], 1000*m["system_usec"]
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], 1000*m["throttled_usec"]
	return err
}

func (s *Stats) memoryV1(dir string) (err error) {
	m := &s.Memory
	if m.Usage, err = readUint(dir, "memory.usage_in_bytes"); err != nil {
		return err
	}
	if m.Peak, err = readUint(dir, "memory.max_usage_in_bytes"); err != nil {
		return err
	}
	if m.Limit, err = readLimit(dir, "memory.limit_in_bytes"); err != nil {
		return err
	}
	if m.Failures, err = readUint(dir, "memory.failcnt"); err != nil {
		return err
	}
	if both, err := readUint(dir, "memory.memsw.usage_in_bytes"); err == nil {
		m.SwapUsage = both - min(both, m.Usage)
	}
	if both, err := readLimit(dir, "memory.memsw.limit_in_bytes"); err == nil && both != 0 {
		m.SwapLimit = both - min(both, m.Limit)
	}
	b, err := read(path.Join(dir, "memory.oom_control"), maxFile)
	if err != nil {
		return err
	}
	m.OOMKills = parseKeyed(b)["oom_kill"]
	b, err = read(path.Join(dir, "memory.stat"), maxFile)
	m.Detail = parseKeyed(b)
	return err
}

func (s *Stats) memoryV2(dir string) (err error) {
	m := &s.Memory
	if m.Usage, err = readUint(dir, "memory.current"); err != nil {
		return err
	}
	if m.Limit, err = readLimit(dir, "memory.max"); err != nil {
		return err
	}
	b, err := read(path.Join(dir, "memory.events"), maxFile)
	if err != nil {
		return err
	}
	events := parseKeyed(b)
	m.Failures, m.OOMKills = events["max"], events["oom_kill"]
	b, err = read(path.Join(dir, "memory.stat"), maxFile)
	if err != nil {
		return err
	}
	m.Detail = parseKeyed(b)
	// memory.peak is of Linux 5.19, swap may be configured out.
	for _, f := range []struct {
		file string
		into *uint64
	}{{"memory.peak", &m.Peak}, {"memory.swap.current", &m.SwapUsage}, {"memory.swap.max", &m.SwapLimit}} {
		n, err := readLimit(dir, f.file)
		if err != nil && !absent(err) {
			return err
		}
		*f.into = n
	}
	return nil
}

func (s *Stats) pids(dir string) (err error) {
	if s.Pids.Current, err = readUint(dir, "pids.current"); err != nil {
		return err
	}
	s.Pids.Limit, err = readLimit(dir, "pids.max")
	return err
}

func (s *Stats) blkio(dir string) error {
	devices := make(map[string]*DeviceIO)
	var order []string
	for _, f := range []struct {
		file                 string
		read, write, discard func(*DeviceIO) *uint64
	}{
		{"blkio.throttle.io_service_bytes_recursive", func(d *DeviceIO) *uint64 { return &d.ReadBytes },
			func(d *DeviceIO) *uint64 { return &d.WriteBytes }, func(d *DeviceIO) *uint64 { return &d.DiscardBytes }},
		{"blkio.throttle.io_serviced_recursive", func(d *DeviceIO) *uint64 { return &d.ReadOps },
			func(d *DeviceIO) *uint64 { return &d.WriteOps }, func(d *DeviceIO) *uint64 { return &d.Discards }},
	} {
		b, err := read(path.Join(dir, f.file), maxFile)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if len(w) != 3 {
				continue
			}
			n, err := strconv.ParseUint(w[2], 10, 64)
			major, minor, ok := parseDevice(w[0])
			if err != nil || !ok {
				continue
			}
			d := devices[w[0]]
			if d == nil {
				d = &DeviceIO{Major: major, Minor: minor}
				devices[w[0]] = d
				order = append(order, w[0])
			}
			switch w[1] {
			case "Read":
				*f.read(d) = n
			case "Write":
				*f.write(d) = n
			case "Discard":
				*f.discard(d) = n
			}
		}
	}
	for _, name := range order {
		s.BlockIO = append(s.BlockIO, *devices[name])
	}
	return nil
}

func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, ok && err1 == nil && err2 == nil
}

func (s *Stats) io(dir string) error {
	b, err := read(path.Join(dir, "io.stat"), maxFile)
	s.BlockIO = append(s.BlockIO, parseIOStat(string(b))...)
	return err
}

func parseIOStat(text string) []DeviceIO {
	var all []DeviceIO
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		var d DeviceIO
		var ok bool
		if d.Major, d.Minor, ok = parseDevice(w[0]); !ok {
			continue
		}
		for _, kv := range w[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			switch k {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadOps = n
			case "wios":
				d.WriteOps = n
			case "dbytes":
				d.DiscardBytes = n
			case "dios":
				d.Discards = n
			}
		}
		all = append(all, d)
	}
	return all
}

// OOMKills counts the processes the kernel killed because the container's memory limit was reached.
func OOMKills(dirs []plan.Dir) (uint64, error) {
	for _, d := range dirs {
		if !d.Has("memory") {
			continue
		}
		file := "memory.oom_control"
		if d.V2 {
			file = "memory.events"
		}
		b, err := read(path.Join(d.Path, file), maxFile)
		return parseKeyed(b)["oom_kill"], err
	}
	return 0, nil
}

// Values reads the files that say what holds a container back, by full path; files that don't exist are left out.
func Values(dirs []plan.Dir) map[string]string {
	values := make(map[string]string)
	for _, d := range dirs {
		for _, file := range interesting(d) {
			p := path.Join(d.Path, file)
			if b, err := read(p, maxFile); err == nil {
				values[p] = strings.TrimSpace(string(b))
			}
		}
	}
	return values
}

func interesting(d plan.Dir) []string {
	var files []string
	for _, c := range d.Controllers {
		switch {
		case c == "cpu" && d.V2:
			files = append(files, "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpu.stat")
		case c == "cpu":
			files = append(files, "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle",
				"cpu.rt_runtime_us", "cpu.stat")
		case c == "cpuacct":
			files = append(files, "cpuacct.usage")
		case c == "cpuset":
			files = append(files, "cpuset.cpus", "cpuset.mems")
		case c == "memory" && d.V2:
			files = append(files, "memory.current", "memory.peak", "memory.max", "memory.high", "memory.low", "memory.swap.max",
				"memory.swap.current", "memory.events")
		case c == "memory":
			files = append(files, "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes",
				"memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness", "memory.oom_control")
		case c == "pids":
			files = append(files, "pids.current", "pids.max")
		case c == "io":
			files = append(files, "io.weight", "io.bfq.weight", "io.max", "io.stat")
		case c == "blkio":
			files = append(files, "blkio.weight", "blkio.bfq.weight", "blkio.throttle.read_bps_device",
				"blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device")
		case c == "devices":
			files = append(files, "devices.list")
		case c == "freezer":
			files = append(files, "freezer.state")
		case c == "net_cls":
			files = append(files, "net_cls.classid")
		case c == "net_prio":
			files = append(files, "net_prio.ifpriomap")
		case c == "rdma":
			files = append(files, "rdma.max", "rdma.current")
		}
	}
	if d.V2 {
		files = append(files, "cgroup.events", "cgroup.freeze")
	}
	return files
}
