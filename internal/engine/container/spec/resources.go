package spec

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// MinMemory is the least limit that lets a runtime set a container up.
const MinMemory = 6 << 20

// DefaultPids bounds a container that asked for no limit.
const DefaultPids = 4096

func ptr[T any](v T) *T { return &v }

// resources sets what the cgroup holds the container to.
func (b *builder) resources() error {
	r := &b.in.Container.HostConfig.Resources
	out := b.s.Linux.Resources
	if err := Resources(r, b.in.Host, out); err != nil {
		return err
	}
	if out.Pids == nil {
		out.Pids = &specs.LinuxPids{Limit: ptr(int64(DefaultPids))}
		b.because("linux.resources.pids.limit", Default)
	} else {
		b.because("linux.resources.pids.limit", "flag --pids-limit "+strconv.FormatInt(*r.PidsLimit, 10))
	}
	b.resourcesWhy(r)
	return b.blockIO(r, out)
}

// Resources translates limits as Docker words them; unset ones stay unset. It serves create and update.
func Resources(r *container.Resources, h Host, out *specs.LinuxResources) error {
	if err := memory(r, h, out); err != nil {
		return err
	}
	if err := cpu(r, h, out); err != nil {
		return err
	}
	// Docker's client sends 0 when nothing was asked; -1 is how to ask for no limit.
	if r.PidsLimit != nil && *r.PidsLimit != 0 {
		out.Pids = &specs.LinuxPids{Limit: ptr(max(*r.PidsLimit, -1))}
	}
	return nil
}

func memory(r *container.Resources, h Host, out *specs.LinuxResources) error {
	bad := func(format string, a ...any) error { return errdef.New(errdef.InvalidArgument, format, a...) }
	switch {
	case r.Memory < 0 || r.Memory > 0 && r.Memory < MinMemory:
		return bad("HostConfig.Memory %d: the minimum memory limit is 6MB", r.Memory)
	case r.MemorySwap > 0 && r.Memory == 0:
		return bad("HostConfig.MemorySwap: set the memory limit as well, the swap limit includes it")
	case r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return bad("HostConfig.MemorySwap %d: must be at least the memory limit %d, which it includes", r.MemorySwap, r.Memory)
	case r.MemoryReservation > 0 && r.Memory > 0 && r.Memory < r.MemoryReservation:
		return bad("HostConfig.MemoryReservation %d: must not exceed the memory limit %d", r.MemoryReservation, r.Memory)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return bad("HostConfig.MemorySwappiness %d: must be between 0 and 100", *r.MemorySwappiness)
	}
	m := &specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = ptr(r.Memory)
		swap := r.MemorySwap
		if swap == 0 {
			swap = 2 * r.Memory
		}
		if h.SwapLimit {
			m.Swap = &swap
		}
	} else if r.MemorySwap == -1 && h.SwapLimit {
		m.Swap = ptr(int64(-1))
	}
	if r.MemoryReservation > 0 {
		m.Reservation = ptr(r.MemoryReservation)
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		m.Swappiness = ptr(uint64(*r.MemorySwappiness))
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = ptr(true)
	}
	if *m != (specs.LinuxMemory{}) {
		out.Memory = m
	}
	return nil
}

func cpu(r *container.Resources, h Host, out *specs.LinuxResources) error {
	bad := func(format string, a ...any) error { return errdef.New(errdef.InvalidArgument, format, a...) }
	switch {
	case r.NanoCPUs < 0 || h.NCPU > 0 && r.NanoCPUs > int64(h.NCPU)*1e9:
		return bad("HostConfig.NanoCpus: range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", h.NCPU, h.NCPU)
	case r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return bad("HostConfig.NanoCpus: range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", h.NCPU, h.NCPU)
	case r.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0):
		return bad("conflicting options: --cpus and --cpu-period or --cpu-quota cannot both be set")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return bad("HostConfig.CpuPeriod %d: must be between 1ms (1000) and 1s (1000000)", r.CPUPeriod)
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return bad("HostConfig.CpuQuota %d: must be at least 1ms (1000)", r.CPUQuota)
	case r.CPUShares < 0:
		return bad("HostConfig.CpuShares %d: must not be negative", r.CPUShares)
	}
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		c.Shares = ptr(uint64(r.CPUShares))
	}
	if r.NanoCPUs > 0 {
		c.Period, c.Quota = ptr(uint64(100000)), ptr(r.NanoCPUs/10000)
	}
	if r.CPUPeriod > 0 {
		c.Period = ptr(uint64(r.CPUPeriod))
	}
	if r.CPUQuota != 0 {
		c.Quota = ptr(r.CPUQuota)
	}
	if r.CPURealtimePeriod > 0 {
		c.RealtimePeriod = ptr(uint64(r.CPURealtimePeriod))
	}
	if r.CPURealtimeRuntime > 0 {
		c.RealtimeRuntime = ptr(r.CPURealtimeRuntime)
	}
	if *c != (specs.LinuxCPU{}) {
		out.CPU = c
	}
	return nil
}

func (b *builder) resourcesWhy(r *container.Resources) {
	set := func(on bool, path, flag string, value any) {
		if on {
			b.because("linux.resources."+path, fmt.Sprintf("flag %s %v", flag, value))
		}
	}
	size := func(n int64) string { return units.BytesSize(float64(n)) }
	set(r.Memory > 0, "memory.limit", "--memory", size(r.Memory))
	set(r.Memory > 0 && r.MemorySwap == 0 && b.in.Host.SwapLimit, "memory.swap", "--memory", size(r.Memory)+" (twice)")
	set(r.MemorySwap > 0, "memory.swap", "--memory-swap", size(r.MemorySwap))
	set(r.MemorySwap < 0, "memory.swap", "--memory-swap", r.MemorySwap)
	set(r.MemoryReservation > 0, "memory.reservation", "--memory-reservation", size(r.MemoryReservation))
	if r.MemorySwappiness != nil {
		set(*r.MemorySwappiness >= 0, "memory.swappiness", "--memory-swappiness", *r.MemorySwappiness)
	}
	set(r.OomKillDisable != nil && *r.OomKillDisable, "memory.disableOOMKiller", "--oom-kill-disable", true)
	set(r.NanoCPUs > 0, "cpu.quota", "--cpus", float64(r.NanoCPUs)/1e9)
	set(r.NanoCPUs > 0, "cpu.period", "--cpus", float64(r.NanoCPUs)/1e9)
	set(r.CPUPeriod > 0, "cpu.period", "--cpu-period", r.CPUPeriod)
	set(r.CPUQuota != 0, "cpu.quota", "--cpu-quota", r.CPUQuota)
	set(r.CPUShares > 0, "cpu.shares", "--cpu-shares", r.CPUShares)
	set(r.CpusetCpus != "", "cpu.cpus", "--cpuset-cpus", r.CpusetCpus)
	set(r.CpusetMems != "", "cpu.mems", "--cpuset-mems", r.CpusetMems)
	set(r.CPURealtimePeriod > 0, "cpu.realtimePeriod", "--cpu-rt-period", r.CPURealtimePeriod)
	set(r.CPURealtimeRuntime > 0, "cpu.realtimeRuntime", "--cpu-rt-runtime", r.CPURealtimeRuntime)
	set(r.BlkioWeight > 0, "blockIO.weight", "--blkio-weight", r.BlkioWeight)
	if r.Memory > 0 && !b.in.Host.SwapLimit {
		b.warn = append(b.warn, "the kernel does not limit swap per cgroup: memory is limited without swap")
	}
}
