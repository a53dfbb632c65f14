package container

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Stats implements api.Containers: one sample; the caller keeps the one before.
func (s *Service) Stats(_ context.Context, ref string) (container.StatsResponse, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	rec := u.rec.Load()
	out := container.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux", Read: time.Now()}
	if !rec.State.Running {
		return out, nil
	}
	g, err := s.Cgroups.Stats(spec.CgroupsPath(rec, s.Host))
	if err != nil {
		return out, err
	}
	out.CPUStats = container.CPUStats{
		CPUUsage:       container.CPUUsage{TotalUsage: g.CPU, UsageInUsermode: g.CPUUser, UsageInKernelmode: g.CPUSystem},
		SystemUsage:    systemCPU(),
		OnlineCPUs:     uint32(runtime.NumCPU()),
		ThrottlingData: container.ThrottlingData{Periods: g.Periods, ThrottledPeriods: g.Throttled, ThrottledTime: g.ThrottledTime},
	}
	out.MemoryStats = container.MemoryStats{Usage: g.Memory, MaxUsage: g.MemoryPeak, Failcnt: g.MemoryFailures, Limit: memoryLimit(g.MemoryLimit), Stats: g.MemoryStat}
	out.PidsStats = container.PidsStats{Current: g.Pids, Limit: g.PidsLimit}
	out.BlkioStats.IoServiceBytesRecursive = []container.BlkioStatEntry{{Op: "read", Value: g.ReadBytes}, {Op: "write", Value: g.WriteBytes}}
	out.BlkioStats.IoServicedRecursive = []container.BlkioStatEntry{{Op: "read", Value: g.Reads}, {Op: "write", Value: g.Writes}}
	if !rec.HostConfig.NetworkMode.IsHost() && !rec.HostConfig.NetworkMode.IsNone() {
		out.Networks = interfaces(rec.State.Pid)
	}
	return out, nil
}

const procLimit = 1 << 20

func readProc(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, procLimit))
	if err != nil {
		return ""
	}
	return string(b)
}

// clockTicks is USER_HZ, which Linux fixes at 100 for all that /proc shows.
const clockTicks = 100

// systemCPU is the time that all CPUs have spent since boot, in nanoseconds.
func systemCPU() uint64 {
	line, _, _ := strings.Cut(readProc("/proc/stat"), "\n")
	var sum uint64
	for i, f := range strings.Fields(line) {
		if i == 0 || i > 8 { // the guest times are in user and nice already
			continue
		}
		n, _ := strconv.ParseUint(f, 10, 64)
		sum += n
	}
	return sum * (1e9 / clockTicks)
}

// memoryLimit is the cgroup's limit, or the machine's memory where that is less.
func memoryLimit(limit uint64) uint64 {
	total := meminfo()
	if limit == 0 || limit > total {
		return total
	}
	return limit
}

func meminfo() uint64 {
	for _, l := range strings.Split(readProc("/proc/meminfo"), "\n") {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "MemTotal:" {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// interfaces reads the counters of the network namespace of a process.
func interfaces(pid int) map[string]container.NetworkStats {
	out := map[string]container.NetworkStats{}
	sc := bufio.NewScanner(strings.NewReader(readProc(fmt.Sprintf("/proc/%d/net/dev", pid))))
	for sc.Scan() {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = container.NetworkStats{RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3), TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11)}
	}
	return out
}

// Top implements api.Containers. It reads /proc itself; of ps's options it knows -ef, aux and -o with common columns.
func (s *Service) Top(_ context.Context, ref, psArgs string) (container.TopResponse, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return container.TopResponse{}, err
	}
	if _, err := u.current(); err != nil {
		return container.TopResponse{}, err
	}
	columns, err := topColumns(psArgs)
	if err != nil {
		return container.TopResponse{}, err
	}
	rec := u.rec.Load()
	pids, err := s.Cgroups.Pids(spec.CgroupsPath(rec, s.Host))
	if err != nil {
		return container.TopResponse{}, err
	}
	slices.Sort(pids)
	out := container.TopResponse{Titles: columns, Processes: [][]string{}}
	now := time.Now()
	for _, pid := range pids {
		p, ok := readProcess(pid)
		if !ok {
			continue // ended meanwhile
		}
		var row []string
		for _, c := range columns {
			row = append(row, p.column(c, now))
		}
		out.Processes = append(out.Processes, row)
	}
	s.event(rec, events.ActionTop, nil)
	return out, nil
}

func topColumns(args string) ([]string, error) {
	known := map[string]string{
		"pid": "PID", "ppid": "PPID", "user": "USER", "uid": "UID", "comm": "COMMAND", "args": "COMMAND", "cmd": "CMD", "command": "COMMAND",
		"stime": "STIME", "start": "STIME", "time": "TIME", "tty": "TTY", "rss": "RSS", "vsz": "VSZ", "stat": "STAT", "s": "S", "c": "C", "pcpu": "%CPU", "%cpu": "%CPU",
	}
	a := strings.TrimSpace(args)
	switch strings.TrimPrefix(a, "-") {
	case "", "ef":
		return []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, nil
	case "aux":
		return []string{"USER", "PID", "%CPU", "VSZ", "RSS", "TTY", "STAT", "STIME", "TIME", "COMMAND"}, nil
	}
	rest, ok := strings.CutPrefix(a, "-o")
	if !ok {
		rest, ok = strings.CutPrefix(a, "-eo")
	}
	var out []string
	for _, f := range strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ' ' }) {
		t, found := known[strings.ToLower(f)]
		if !found {
			return nil, errdef.New(errdef.NotImplemented, "top: the ps column %q is not implemented", f)
		}
		out = append(out, t)
	}
	if !ok || len(out) == 0 {
		return nil, errdef.New(errdef.NotImplemented, "top: the ps options %q are not implemented: use -ef, aux or -o COLUMN,...", args)
	}
	return out, nil
}

// process is one line of top.
type process struct {
	pid, ppid, uid      int
	state, tty, command string
	ticks               uint64
	started             time.Time
	rss, vsz            uint64 // KiB
}

func readProcess(pid int) (process, bool) {
	dir := filepath.Join("/proc", itoa(pid))
	stat := readProc(dir + "/stat")
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return process{}, false
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 22 {
		return process{}, false
	}
	n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
	p := process{pid: pid, ppid: int(n(1)), state: f[0], tty: ttyName(int(n(4))), ticks: n(11) + n(12), vsz: n(20) >> 10, rss: n(21) * uint64(os.Getpagesize()) >> 10}
	p.started = bootTime().Add(time.Duration(n(19)) * time.Second / clockTicks)
	if info, err := os.Stat(dir); err == nil {
		p.uid = owner(info)
	}
	p.command = strings.TrimRight(strings.ReplaceAll(readProc(dir+"/cmdline"), "\x00", " "), " ")
	if p.command == "" {
		p.command = "[" + stat[strings.IndexByte(stat, '(')+1:end] + "]"
	}
	return p, true
}

func bootTime() time.Time {
	up, _, _ := strings.Cut(readProc("/proc/uptime"), " ")
	s, _ := strconv.ParseFloat(up, 64)
	return time.Now().Add(-time.Duration(s * float64(time.Second)))
}

func ttyName(dev int) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	if major >= 136 && major < 144 {
		return "pts/" + itoa((major-136)<<8+minor)
	}
	return "?"
}

func (p process) column(title string, now time.Time) string {
	switch title {
	case "UID":
		return itoa(p.uid)
	case "USER":
		if p.uid == 0 {
			return "root"
		}
		return itoa(p.uid)
	case "PID":
		return itoa(p.pid)
	case "PPID":
		return itoa(p.ppid)
	case "TTY":
		return p.tty
	case "STAT", "S":
		return p.state
	case "RSS":
		return strconv.FormatUint(p.rss, 10)
	case "VSZ":
		return strconv.FormatUint(p.vsz, 10)
	case "TIME":
		sec := p.ticks / clockTicks
		return fmt.Sprintf("%02d:%02d:%02d", sec/3600, sec/60%60, sec%60)
	case "STIME":
		if now.Sub(p.started) < 24*time.Hour {
			return p.started.Format("15:04")
		}
		return p.started.Format("Jan02")
	case "C", "%CPU":
		life := now.Sub(p.started).Seconds()
		if life < 0.01 {
			life = 0.01
		}
		use := float64(p.ticks) / clockTicks / life * 100
		if title == "C" {
			return itoa(int(use))
		}
		return strconv.FormatFloat(use, 'f', 1, 64)
	}
	return p.command
}

var _ api.Containers = (*Service)(nil)
