package plan

import (
	"math"
	"path"
	"strconv"
	"strings"
)

func (p *planner) cpu() error {
	c := p.r.CPU
	if c == nil {
		return nil
	}
	if c.RealtimePeriod != nil || c.RealtimeRuntime != nil {
		if err := p.realtime(); err != nil {
			return err
		}
	}
	idle := func() error {
		if c.Idle == nil {
			return nil
		}
		if *c.Idle != 0 && *c.Idle != 1 {
			return invalid("linux.resources.cpu.idle: %d is neither 0 nor 1", *c.Idle)
		}
		d, err := p.need("cpu", "cpu.idle")
		if err == nil {
			p.write(d, "cpu.idle", strconv.FormatInt(*c.Idle, 10), "cpu.idle")
		}
		return err
	}
	// A group that is idle has no weight of its own: the kernel refuses one (EINVAL). So leave idleness before the weight
	// is set, enter it after.
	wake := c.Idle != nil && *c.Idle == 0
	if wake {
		if err := idle(); err != nil {
			return err
		}
	}
	if c.Shares != nil && *c.Shares != 0 {
		if err := p.shares(*c.Shares, c.Idle != nil && !wake); err != nil {
			return err
		}
	}
	if !wake {
		if err := idle(); err != nil {
			return err
		}
	}
	return p.bandwidth()
}

func (p *planner) realtime() error {
	d, err := p.need("cpu", "cpu.realtimeRuntime")
	if err != nil {
		return err
	}
	if d.V2 {
		return noV2("cpu.realtimeRuntime")
	}
	c := p.r.CPU
	if c.RealtimePeriod != nil {
		var tolerate []uint
		if p.update && c.RealtimeRuntime != nil {
			tolerate = []uint{einval}
		}
		p.write(d, "cpu.rt_period_us", strconv.FormatUint(*c.RealtimePeriod, 10), "cpu.realtimePeriod", tolerate...)
	}
	if c.RealtimeRuntime != nil {
		p.write(d, "cpu.rt_runtime_us", strconv.FormatInt(*c.RealtimeRuntime, 10), "cpu.realtimeRuntime")
		if p.update && c.RealtimePeriod != nil {
			p.write(d, "cpu.rt_period_us", strconv.FormatUint(*c.RealtimePeriod, 10), "cpu.realtimePeriod")
		}
	}
	return nil
}

func (p *planner) shares(shares uint64, idle bool) error {
	d, err := p.need("cpu", "cpu.shares")
	if err != nil {
		return err
	}
	var tolerate []uint
	if idle {
		tolerate = []uint{einval}
	}
	if d.V2 {
		p.write(d, "cpu.weight", strconv.FormatUint(Weight(shares), 10), "cpu.shares", tolerate...)
	} else {
		p.write(d, "cpu.shares", strconv.FormatUint(shares, 10), "cpu.shares", tolerate...)
	}
	return nil
}

// Weight converts v1 CPU shares (2 .. 262144) to a v2 weight (1 .. 10000) on the curve runc, crun and systemd-aware engines share
// since 2025: it meets (2, 1), (1024, 100) and (262144, 10000), so that the two defaults map onto each other. 0, unset, stays 0.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	exponent := (l*l+125*l)/612 - 7.0/34
	// The small term keeps 1024 at 100 where rounding errors would make it 101.
	return uint64(math.Ceil(math.Pow(10, exponent) - 1e-9))
}

func (p *planner) bandwidth() error {
	c := p.r.CPU
	if c.Quota == nil && c.Period == nil && c.Burst == nil {
		return nil
	}
	d, err := p.need("cpu", "cpu.quota")
	if err != nil {
		return err
	}
	if c.Period != nil && *c.Period != 0 && (*c.Period < 1000 || *c.Period > 1000000) {
		return invalid("linux.resources.cpu.period: %d is not between 1000 and 1000000 microseconds", *c.Period)
	}
	if c.Quota != nil && *c.Quota > 0 && *c.Quota < 1000 {
		return invalid("linux.resources.cpu.quota: %d is below the kernel's least, 1000 microseconds", *c.Quota)
	}
	if d.V2 {
		p.bandwidthV2(d)
		return nil
	}
	period := func(tolerate ...uint) {
		if c.Period != nil && *c.Period != 0 {
			p.write(d, "cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10), "cpu.period", tolerate...)
		}
	}
	burst := func(tolerate ...uint) {
		if c.Burst != nil {
			p.write(d, "cpu.cfs_burst_us", strconv.FormatUint(*c.Burst, 10), "cpu.burst", tolerate...)
		}
	}
	if c.Quota == nil || *c.Quota == 0 {
		period()
		burst()
		return nil
	}
	if p.update { // the burst may not be above the quota, nor the ratio above the parent's, at any moment
		burst(einval)
		period(einval)
	} else {
		period()
	}
	p.write(d, "cpu.cfs_quota_us", strconv.FormatInt(max(*c.Quota, -1), 10), "cpu.quota")
	if p.update {
		period()
	}
	burst()
	return nil
}

func (p *planner) bandwidthV2(d Dir) {
	c := p.r.CPU
	burst := func(tolerate ...uint) {
		if c.Burst != nil {
			p.write(d, "cpu.max.burst", strconv.FormatUint(*c.Burst, 10), "cpu.burst", tolerate...)
		}
	}
	quota, period := "max", uint64(100000)
	if c.Quota != nil && *c.Quota > 0 {
		quota = strconv.FormatInt(*c.Quota, 10)
	}
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
	}
	if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
		field := "cpu.quota"
		if c.Quota == nil {
			field = "cpu.period"
		}
		if p.update {
			burst(einval)
		}
		p.write(d, "cpu.max", quota+" "+strconv.FormatUint(period, 10), field)
	}
	burst()
}

func (p *planner) cpuset() error {
	c := p.r.CPU
	if c == nil {
		return nil
	}
	for _, f := range [...]struct{ file, value, field string }{
		{"cpuset.cpus", c.Cpus, "cpu.cpus"}, {"cpuset.mems", c.Mems, "cpu.mems"},
	} {
		if f.value == "" {
			continue
		}
		if strings.Trim(f.value, "0123456789,-") != "" {
			return invalid("linux.resources.%s: %q is no list like 0-3,7", f.field, f.value)
		}
		d, err := p.need("cpuset", f.field)
		if err != nil {
			return err
		}
		p.write(d, f.file, f.value, f.field)
	}
	return nil
}

func (p *planner) memory() error {
	m := p.r.Memory
	if m == nil {
		return nil
	}
	if m.Limit == nil && m.Swap == nil && m.Reservation == nil && m.Swappiness == nil && m.KernelTCP == nil &&
		m.DisableOOMKiller == nil && m.UseHierarchy == nil {
		return nil // kernel is obsolete since Linux 5.4, and the specification lets a runtime ignore it
	}
	d, err := p.need("memory", "memory")
	if err != nil {
		return err
	}
	if m.Limit != nil && *m.Limit > 0 && m.Swap != nil && *m.Swap > 0 && *m.Swap < *m.Limit {
		return invalid("linux.resources.memory.swap: %d is memory and swap together, so it can't be less than memory.limit, %d",
			*m.Swap, *m.Limit)
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		return invalid("linux.resources.memory.swappiness: %d is not between 0 and 100", *m.Swappiness)
	}
	if p.update && m.Limit != nil && *m.Limit > 0 && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		file := "memory.usage_in_bytes"
		if d.V2 {
			file = "memory.current"
		}
		p.add(Step{Kind: Check, Path: path.Join(d.Path, file), Value: strconv.FormatInt(*m.Limit, 10),
			Why: "linux.resources.memory.checkBeforeUpdate"})
	}
	if d.V2 {
		return p.memoryV2(d)
	}
	p.memoryV1(d)
	return nil
}

func (p *planner) memoryV1(d Dir) {
	m := p.r.Memory
	limit := func(tolerate ...uint) {
		if m.Limit != nil && *m.Limit != 0 {
			p.write(d, "memory.limit_in_bytes", strconv.FormatInt(max(*m.Limit, -1), 10), "memory.limit", tolerate...)
		}
	}
	switch {
	case m.Swap != nil && *m.Swap != 0:
		var absent []uint
		if *m.Swap < 0 { // without swap accounting nothing limits swap, as was asked
			absent = []uint{enoent}
		}
		if p.update {
			limit(einval)
		} else {
			limit()
		}
		p.write(d, "memory.memsw.limit_in_bytes", strconv.FormatInt(max(*m.Swap, -1), 10), "memory.swap", absent...)
		if p.update {
			limit()
		}
	case m.Limit != nil && *m.Limit < 0: // unlimited memory under a swap limit would be refused
		p.write(d, "memory.memsw.limit_in_bytes", "-1", "memory.limit", enoent)
		limit()
	default:
		limit()
	}
	if m.UseHierarchy != nil {
		p.write(d, "memory.use_hierarchy", bit(*m.UseHierarchy), "memory.useHierarchy")
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		p.write(d, "memory.soft_limit_in_bytes", strconv.FormatInt(max(*m.Reservation, -1), 10), "memory.reservation")
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		p.write(d, "memory.kmem.tcp.limit_in_bytes", strconv.FormatInt(max(*m.KernelTCP, -1), 10), "memory.kernelTCP")
	}
	if m.Swappiness != nil {
		p.write(d, "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10), "memory.swappiness")
	}
	if m.DisableOOMKiller != nil && (*m.DisableOOMKiller || p.update) {
		p.write(d, "memory.oom_control", bit(*m.DisableOOMKiller), "memory.disableOOMKiller")
	}
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func (p *planner) memoryV2(d Dir) error {
	m := p.r.Memory
	switch {
	case m.KernelTCP != nil && *m.KernelTCP > 0:
		return noV2("memory.kernelTCP")
	case m.Swappiness != nil:
		return noV2("memory.swappiness")
	case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		return noV2("memory.disableOOMKiller")
	case m.UseHierarchy != nil && !*m.UseHierarchy:
		return noV2("memory.useHierarchy")
	}
	if m.Swap != nil && *m.Swap != 0 {
		value := "max"
		var absent []uint
		switch {
		case *m.Swap < 0:
			absent = []uint{enoent}
		case m.Limit == nil || *m.Limit <= 0:
			return invalid("linux.resources.memory.swap: %d is memory and swap together; v2 needs memory.limit to tell swap's part", *m.Swap)
		default:
			value = strconv.FormatInt(*m.Swap-*m.Limit, 10)
			if *m.Swap == *m.Limit { // a kernel without swap gives none
				absent = []uint{enoent}
			}
		}
		p.write(d, "memory.swap.max", value, "memory.swap", absent...)
	} else if m.Limit != nil && *m.Limit < 0 {
		p.write(d, "memory.swap.max", "max", "memory.limit", enoent)
	}
	if m.Limit != nil && *m.Limit != 0 {
		p.write(d, "memory.max", orMax(*m.Limit), "memory.limit")
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		p.write(d, "memory.low", orMax(*m.Reservation), "memory.reservation")
	}
	return nil
}

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}
