package create

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/spf13/pflag"
)

// resources are the cgroup limits, rlimits and sysctls.
type resources struct {
	memory      memory
	cpu         cpu
	blkio       blkio
	pids        int64
	oomKillOff  bool
	oomScoreAdj int
	ulimits     ulimits
	sysctls     []string
	parent      string
	shm         byteSize
	kernelMem   byteSize
}

type memory struct {
	limit, reservation byteSize
	swap               swapSize
	swappiness         int64
}

type cpu struct {
	shares, period, quota, rtPeriod, rtRuntime int64
	cpus                                       nanoCPUs
	set, mems                                  string
}

type blkio struct {
	weight                                 uint16
	weights                                weightDevices
	readBps, writeBps, readIOps, writeIOps throttles
}

func (r *resources) add(fs *pflag.FlagSet) {
	fs.VarP(&r.memory.limit, "memory", "m", "Memory limit")
	fs.Var(&r.memory.reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&r.memory.swap, "memory-swap", "Limit of memory plus swap; -1 for unlimited swap")
	fs.Int64Var(&r.memory.swappiness, "memory-swappiness", -1, "Swappiness of the container, 0 to 100")
	fs.Var(&r.kernelMem, "kernel-memory", "Kernel memory limit")
	fs.MarkHidden("kernel-memory")
	fs.Int64VarP(&r.cpu.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&r.cpu.period, "cpu-period", 0, "CFS period in microseconds")
	fs.Int64Var(&r.cpu.quota, "cpu-quota", 0, "CFS quota in microseconds")
	fs.Int64Var(&r.cpu.rtPeriod, "cpu-rt-period", 0, "Real-time period in microseconds")
	fs.Int64Var(&r.cpu.rtRuntime, "cpu-rt-runtime", 0, "Real-time runtime in microseconds")
	fs.Var(&r.cpu.cpus, "cpus", "Number of CPUs, e.g. 1.5")
	fs.StringVar(&r.cpu.set, "cpuset-cpus", "", "CPUs to run on (0-3, 0,1)")
	fs.StringVar(&r.cpu.mems, "cpuset-mems", "", "Memory nodes to use (0-3, 0,1)")
	fs.Uint16Var(&r.blkio.weight, "blkio-weight", 0, "Block I/O weight, 10 to 1000, or 0 for none")
	fs.Var(&r.blkio.weights, "blkio-weight-device", "Block I/O weight of one device (path:weight)")
	r.blkio.readBps.bytes, r.blkio.writeBps.bytes = true, true
	fs.Var(&r.blkio.readBps, "device-read-bps", "Limit reads from a device (path:bytes per second)")
	fs.Var(&r.blkio.writeBps, "device-write-bps", "Limit writes to a device (path:bytes per second)")
	fs.Var(&r.blkio.readIOps, "device-read-iops", "Limit reads from a device (path:operations per second)")
	fs.Var(&r.blkio.writeIOps, "device-write-iops", "Limit writes to a device (path:operations per second)")
	fs.Int64Var(&r.pids, "pids-limit", 0, "Limit of processes; -1 for unlimited")
	fs.BoolVar(&r.oomKillOff, "oom-kill-disable", false, "Do not kill processes of the container when memory runs out")
	fs.IntVar(&r.oomScoreAdj, "oom-score-adj", 0, "OOM preference of the container, -1000 to 1000")
	fs.Var(&r.ulimits, "ulimit", "Resource limits (name=soft[:hard])")
	fs.StringArrayVar(&r.sysctls, "sysctl", nil, "Kernel parameters of the container's namespaces (K=V)")
	fs.StringVar(&r.parent, "cgroup-parent", "", "Parent cgroup of the container")
	fs.Var(&r.shm, "shm-size", "Size of /dev/shm")
	fs.Int64("cpu-count", 0, "CPU count (Windows only)")
	fs.Int64("cpu-percent", 0, "CPU percent (Windows only)")
	fs.String("io-maxbandwidth", "", "I/O bandwidth limit (Windows only)")
	fs.Uint64("io-maxiops", 0, "I/O operations limit (Windows only)")
	for _, n := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		fs.MarkHidden(n)
	}
}

func (r *resources) apply(b *request) error {
	if err := b.onlyWindows("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"); err != nil {
		return err
	}
	if b.fs.Changed("kernel-memory") {
		return fmt.Errorf("--kernel-memory: Linux 6.1 and later have no such limit; use --memory")
	}
	h := b.host
	if s := r.memory.swappiness; s != -1 {
		if s < 0 || s > 100 {
			return fmt.Errorf("--memory-swappiness %d: want 0 to 100", s)
		}
		h.MemorySwappiness = &s
	}
	for _, s := range r.sysctls {
		if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
			return fmt.Errorf("--sysctl %q: want name=value", s)
		}
	}
	h.Memory, h.MemoryReservation, h.MemorySwap = int64(r.memory.limit), int64(r.memory.reservation), int64(r.memory.swap)
	h.CPUShares, h.CPUPeriod, h.CPUQuota = r.cpu.shares, r.cpu.period, r.cpu.quota
	h.CPURealtimePeriod, h.CPURealtimeRuntime = r.cpu.rtPeriod, r.cpu.rtRuntime
	h.NanoCPUs, h.CpusetCpus, h.CpusetMems = int64(r.cpu.cpus), r.cpu.set, r.cpu.mems
	h.BlkioWeight, h.BlkioWeightDevice = r.blkio.weight, r.blkio.weights
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = r.blkio.readBps.list, r.blkio.writeBps.list
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = r.blkio.readIOps.list, r.blkio.writeIOps.list
	if b.fs.Changed("pids-limit") {
		h.PidsLimit = &r.pids
	}
	if b.fs.Changed("oom-kill-disable") {
		h.OomKillDisable = &r.oomKillOff
	}
	h.OomScoreAdj = r.oomScoreAdj
	h.Ulimits = r.ulimits
	h.Sysctls = pairs(r.sysctls)
	h.CgroupParent = r.parent
	h.ShmSize = int64(r.shm)
	return nil
}

// byteSize is a size with an optional unit: 64m, 1g.
type byteSize int64

func (v *byteSize) Type() string { return "bytes" }
func (v *byteSize) String() string {
	if *v == 0 {
		return ""
	}
	return units.BytesSize(float64(*v))
}
func (v *byteSize) Set(s string) error {
	n, err := units.RAMInBytes(s)
	*v = byteSize(n)
	return err
}

type swapSize int64

func (v *swapSize) Type() string   { return "bytes" }
func (v *swapSize) String() string { return "" }
func (v *swapSize) Set(s string) error {
	if s == "-1" {
		*v = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	*v = swapSize(n)
	return err
}

type nanoCPUs int64

func (v *nanoCPUs) Type() string   { return "decimal" }
func (v *nanoCPUs) String() string { return "" }
func (v *nanoCPUs) Set(s string) error {
	n, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("not a number")
	}
	n.Mul(n, big.NewRat(1e9, 1))
	if !n.IsInt() || !n.Num().IsInt64() {
		return fmt.Errorf("more than nine digits after the point, or too large")
	}
	*v = nanoCPUs(n.Num().Int64())
	return nil
}

type weightDevices []*blkiodev.WeightDevice

func (v *weightDevices) Type() string   { return "list" }
func (v *weightDevices) String() string { return "" }
func (v *weightDevices) Set(s string) error {
	dev, w, ok := strings.Cut(s, ":")
	if !ok || !strings.HasPrefix(dev, "/dev/") {
		return fmt.Errorf("want /dev/NAME:WEIGHT")
	}
	n, err := strconv.ParseUint(w, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return fmt.Errorf("weight %q: want 10 to 1000, or 0", w)
	}
	*v = append(*v, &blkiodev.WeightDevice{Path: dev, Weight: uint16(n)})
	return nil
}

type throttles struct {
	bytes bool
	list  []*blkiodev.ThrottleDevice
}

func (v *throttles) Type() string   { return "list" }
func (v *throttles) String() string { return "" }
func (v *throttles) Set(s string) error {
	dev, rate, ok := strings.Cut(s, ":")
	if !ok || !strings.HasPrefix(dev, "/dev/") {
		return fmt.Errorf("want /dev/NAME:RATE")
	}
	var n uint64
	if v.bytes {
		i, err := units.RAMInBytes(rate)
		if err != nil || i < 0 {
			return fmt.Errorf("rate %q: want a number with an optional unit (kb, mb, gb)", rate)
		}
		n = uint64(i)
	} else {
		i, err := strconv.ParseUint(rate, 10, 64)
		if err != nil {
			return fmt.Errorf("rate %q: want a positive integer", rate)
		}
		n = i
	}
	v.list = append(v.list, &blkiodev.ThrottleDevice{Path: dev, Rate: n})
	return nil
}

type ulimits []*units.Ulimit

func (v *ulimits) Type() string   { return "ulimit" }
func (v *ulimits) String() string { return "" }
func (v *ulimits) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	for i, old := range *v {
		if old.Name == u.Name {
			(*v)[i] = u
			return nil
		}
	}
	*v = append(*v, u)
	return nil
}
