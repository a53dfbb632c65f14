package compile

import (
	"math/bits"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// scheduling sets what execve(2) keeps: scheduler, I/O priority, personality, memory policy.
func (c process) scheduling() error {
	if err := c.scheduler(); err != nil {
		return err
	}
	if io := c.spec.Process.IOPriority; io != nil {
		c.Why("process.ioPriority")
		c.Call("", prog.SysIoprioSet, prog.Imm(u.IOPRIO_WHO_PROCESS, "WHO_PROCESS"), prog.Imm(0), prog.Imm(ioClass(io.Class)<<13|int64(io.Priority),
			string(io.Class)+"|"+strconv.Itoa(io.Priority)))
	}
	if per := c.spec.Linux.Personality; per != nil {
		c.Why("linux.personality")
		v := int64(0)
		if per.Domain == specs.PerLinux32 {
			v = 8
		}
		c.Call("", prog.SysPersonality, prog.Imm(v, string(per.Domain)))
	}
	return c.memoryPolicy()
}

// ioClass is the kernel's number of a class (ioprio_set(2)), 0 for an unknown one.
func ioClass(c specs.IOPriorityClass) int64 {
	return map[specs.IOPriorityClass]int64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[c]
}

// schedPolicy is the kernel's number of a policy (sched_setattr(2)), -1 for an unknown one.
func schedPolicy(p specs.LinuxSchedulerPolicy) int {
	for n, name := range []specs.LinuxSchedulerPolicy{specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, specs.SchedISO, specs.SchedIdle,
		specs.SchedDeadline} {
		if p == name {
			return n
		}
	}
	return -1
}

// schedFlag is the kernel's bit of a flag, 0 for an unknown one.
func schedFlag(f specs.LinuxSchedulerFlag) uint64 {
	for n, name := range []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
		specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax} {
		if f == name {
			return 1 << n
		}
	}
	return 0
}

func validateScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	const name = "process.scheduler"
	policy := s.Policy
	switch {
	case policy == "":
		return invalid(name+".policy", "is missing")
	case schedPolicy(policy) < 0:
		return invalid(name+".policy", "unknown policy %q", policy)
	case policy == specs.SchedISO:
		return invalid(name+".policy", "SCHED_ISO is reserved: no kernel has it")
	case s.Nice < -20 || s.Nice > 19:
		return invalid(name+".nice", "%d is not between -20 and 19", s.Nice)
	case s.Nice != 0 && policy != specs.SchedOther && policy != specs.SchedBatch:
		return invalid(name+".nice", "%s has no nice value", policy)
	case s.Priority != 0 && policy != specs.SchedFIFO && policy != specs.SchedRR:
		return invalid(name+".priority", "only SCHED_FIFO and SCHED_RR have priorities")
	case (policy == specs.SchedFIFO || policy == specs.SchedRR) && (s.Priority < 1 || s.Priority > 99):
		return invalid(name+".priority", "%d is not between 1 and 99", s.Priority)
	case policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return invalid(name+".runtime", "runtime, deadline and period are SCHED_DEADLINE's")
	case policy == specs.SchedDeadline && (s.Runtime == 0 || s.Runtime > s.Deadline || s.Period != 0 && s.Deadline > s.Period):
		return invalid(name+".runtime", "SCHED_DEADLINE needs 0 < runtime <= deadline <= period; they are %d, %d, %d", s.Runtime, s.Deadline, s.Period)
	}
	for i, f := range s.Flags {
		if schedFlag(f) == 0 {
			return invalid(field(name+".flags", i, ""), "unknown flag %q", f)
		}
	}
	return nil
}

func (c process) scheduler() error {
	s := c.spec.Process.Scheduler
	if s == nil {
		return nil
	}
	c.Why("process.scheduler")
	flags, text := uint64(0), string(s.Policy)
	for _, f := range s.Flags {
		flags |= schedFlag(f)
		text += "|" + string(f)
	}
	// struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
	const size = 56
	attr := prog.U32(size, uint32(schedPolicy(s.Policy)))
	attr = append(attr, prog.U64(flags)...)
	attr = append(attr, prog.U32(uint32(s.Nice), uint32(s.Priority))...)
	attr = append(attr, prog.U64(s.Runtime, s.Deadline, s.Period)...)
	attr = append(attr, prog.U32(0, 0)...)
	c.Call(string(s.Policy), prog.SysSchedSetattr, prog.Imm(0), c.Bytes(attr, "{"+text+", nice "+strconv.Itoa(int(s.Nice))+", priority "+strconv.Itoa(int(s.Priority))+"}"), prog.Imm(0))
	return nil
}

// memoryModes is indexed by the number of the mode (set_mempolicy(2)).
func memoryModes() []specs.MemoryPolicyModeType {
	return []specs.MemoryPolicyModeType{specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal, specs.MpolPreferredMany,
		specs.MpolWeightedInterleave}
}

func (c process) memoryPolicy() error {
	m := c.spec.Linux.MemoryPolicy
	if m == nil {
		return nil
	}
	const name, mostNodes = "linux.memoryPolicy", 1024
	c.Why(name)
	mode := int64(-1)
	for n, s := range memoryModes() {
		if s == m.Mode {
			mode = int64(n)
		}
	}
	mask, err := bitList(m.Nodes, mostNodes)
	switch {
	case mode < 0:
		return invalid(name+".mode", "unknown mode %q", m.Mode)
	case err != nil:
		return invalid(name+".nodes", "%w", err)
	case len(mask) > 0 && (m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal):
		return invalid(name+".nodes", "%s takes no nodes", m.Mode)
	case len(mask) == 0 && m.Mode != specs.MpolDefault && m.Mode != specs.MpolLocal && m.Mode != specs.MpolPreferred:
		return invalid(name+".nodes", "%s needs at least one node", m.Mode)
	case m.Mode == specs.MpolPreferredMany && !c.in.Facts.atLeast(5, 15):
		return c.tooOld(name+".mode: MPOL_PREFERRED_MANY", 5, 15)
	case m.Mode == specs.MpolWeightedInterleave && !c.in.Facts.atLeast(6, 9):
		return c.tooOld(name+".mode: MPOL_WEIGHTED_INTERLEAVE", 6, 9)
	}
	text := string(m.Mode)
	for i, f := range m.Flags {
		switch f {
		case specs.MpolFStaticNodes:
			mode |= 1 << 15
		case specs.MpolFRelativeNodes:
			mode |= 1 << 14
		case specs.MpolFNumaBalancing:
			mode |= 1 << 13
		default:
			return invalid(field(name+".flags", i, ""), "unknown flag %q", f)
		}
		text += "|" + string(f)
	}
	nodes, count := prog.Imm(0), int64(0)
	if len(mask) > 0 {
		nodes, count = c.Bytes(prog.U64(mask...), "{"+m.Nodes+"}"), int64(64*len(mask)+1) // the kernel takes one bit less than it is told
	}
	c.Call(text, prog.SysSetMempolicy, prog.Imm(mode, text), nodes, prog.Imm(count))
	return nil
}

// affinity puts the process on CPUs, given as a list of numbers and ranges.
func (c *compiler) affinity(why, list string) error {
	mask, err := bitList(list, mostCPUs)
	if err != nil {
		return invalid(why, "%w", err)
	}
	if len(mask) > 0 {
		c.Why(why)
		c.Call("on CPUs "+list, prog.SysSchedSetaffinity, prog.Imm(0), prog.Imm(int64(8*len(mask))), c.Bytes(prog.U64(mask...), "{"+list+"}"))
	}
	return nil
}

const mostCPUs = 8192 // the kernel's greatest CONFIG_NR_CPUS

type listError string

func (e listError) Error() string { return string(e) }

// bitList parses the kernel's format of sets, "0-3,7", into a bit mask of as many words as it needs; most bounds the numbers.
func bitList(s string, most int) ([]uint64, error) {
	var mask []uint64
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	for _, part := range strings.Split(s, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err != nil || err2 != nil || a > b {
			return nil, listError(strconv.Quote(s) + " is not a list of numbers and ranges such as 0-3,7")
		}
		if b >= uint64(most) {
			return nil, listError(strconv.Quote(s) + ": numbers end at " + strconv.Itoa(most-1))
		}
		for ; a <= b; a++ {
			for uint64(len(mask)) <= a/bits.UintSize {
				mask = append(mask, 0)
			}
			mask[a/64] |= 1 << (a % 64)
		}
	}
	return mask, nil
}
