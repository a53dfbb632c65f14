package runtime

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// updateFlags are given as text: an option that is not given leaves its limit alone.
type updateFlags struct {
	resources              string
	l3CacheSchema, memBwSc string
	limits                 specs.LinuxResources
}

func (f *updateFlags) define(fs *flag.FlagSet) {
	f.limits = specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, BlockIO: &specs.LinuxBlockIO{}}
	both(fs.StringVar, &f.resources, "resources", "r", "", "file with limits as config.json's linux.resources has them (- for standard input); other options are ignored")
	cpu, mem := f.limits.CPU, f.limits.Memory
	number(fs, "cpu-period", "period of the CPU quota in microseconds", &cpu.Period, strconv.ParseUint)
	number(fs, "cpu-quota", "CPU time in a period, in microseconds; -1 for no limit", &cpu.Quota, strconv.ParseInt)
	number(fs, "cpu-burst", "CPU time that may be saved up over periods, in microseconds", &cpu.Burst, strconv.ParseUint)
	number(fs, "cpu-share", "weight against other containers", &cpu.Shares, strconv.ParseUint)
	number(fs, "cpu-rt-period", "period of the real-time quota in microseconds", &cpu.RealtimePeriod, strconv.ParseUint)
	number(fs, "cpu-rt-runtime", "real-time CPU time in a period, in microseconds", &cpu.RealtimeRuntime, strconv.ParseInt)
	number(fs, "cpu-idle", "1: run only when nobody else does (SCHED_IDLE), 0: as usual", &cpu.Idle, strconv.ParseInt)
	fs.StringVar(&cpu.Cpus, "cpuset-cpus", "", "CPUs to use")
	fs.StringVar(&cpu.Mems, "cpuset-mems", "", "memory nodes to use")
	size := func(s string, _, _ int) (int64, error) { return parseSize(s) }
	number(fs, "memory", "memory in bytes, or with a unit (64m); -1 for no limit", &mem.Limit, size)
	number(fs, "memory-reservation", "memory that is left to it when memory is scarce", &mem.Reservation, size)
	number(fs, "memory-swap", "memory and swap together; -1 for no limit", &mem.Swap, size)
	//lint:ignore SA1019 accepted for old callers, as runc does
	number(fs, "kernel-memory", "ignored: the kernel has no such limit any more", &mem.Kernel, size)
	number(fs, "kernel-memory-tcp", "ignored, as kernel-memory", &mem.KernelTCP, size)
	number(fs, "blkio-weight", "weight of block I/O, 10 to 1000", &f.limits.BlockIO.Weight, func(s string, _, _ int) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err
	})
	fs.Func("pids-limit", "number of tasks; -1 for no limit", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		f.limits.Pids = &specs.LinuxPids{Limit: &n}
		return err
	})
	fs.StringVar(&f.l3CacheSchema, "l3-cache-schema", "", "Intel RDT: schema of the L3 cache")
	fs.StringVar(&f.memBwSc, "mem-bw-schema", "", "Intel RDT: schema of the memory bandwidth")
}

// number declares an option whose value is a pointer: nil where it is not given. An empty value gives nothing, as with runc.
func number[T any](fs *flag.FlagSet, name, help string, to **T, parse func(string, int, int) (T, error)) {
	fs.Func(name, help, func(s string) error {
		if s == "" {
			return nil
		}
		n, err := parse(s, 10, 64)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %w", name, err)
		}
		*to = &n
		return nil
	})
}

// parseSize reads an amount of memory: a number that may have a fraction, and a unit of powers of 1024 (k, m, g, t, p; b and ib may follow).
func parseSize(s string) (int64, error) {
	bad := errdef.New(errdef.InvalidArgument, "%q is no size: write bytes or a number with k, m, g, t or p", s)
	if s == "-1" {
		return -1, nil
	}
	text := strings.TrimSuffix(strings.ToLower(s), "b")
	factor := 1.0
	if n := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }); n > 0 {
		unit := strings.TrimSuffix(strings.TrimLeft(text[n:], " "), "i")
		power := strings.Index("kmgtp", unit)
		if len(unit) != 1 || power < 0 {
			return 0, bad
		}
		factor, text = math.Pow(1024, float64(power+1)), text[:n]
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0) || n*factor >= math.MaxInt64 {
		return 0, bad
	}
	return int64(n * factor), nil
}

func (a *app) update(fs *flag.FlagSet, argv []string) (int, error) {
	var f updateFlags
	f.define(fs)
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, status, err := a.loadStatus(args[0])
	if err != nil {
		return 1, err
	}
	if status == state.Stopped {
		return 1, errdef.New(errdef.Conflict, "container not running: %q", args[0])
	}
	if f.resources != "" {
		if err := f.read(os.Stdin); err != nil {
			return 1, err
		}
	}
	for _, schema := range []string{f.l3CacheSchema, f.memBwSc} {
		if schema == "" {
			continue
		}
		if err := oci.UpdateSchemata(c, schema); err != nil {
			return 1, err
		}
	}
	r := f.settled()
	//lint:ignore SA1019 see define
	if m := r.Memory; m.Kernel != nil || m.KernelTCP != nil {
		a.warn("kernel memory settings are ignored: the kernel has no such limits any more")
		//lint:ignore SA1019 see define
		m.Kernel, m.KernelTCP = nil, nil
	}
	return 0, c.Update(r)
}

// read takes the limits from a file.
func (f *updateFlags) read(stdin io.Reader) error {
	in := stdin
	if f.resources != "-" {
		file, err := os.Open(f.resources)
		if err != nil {
			return fmt.Errorf("--resources: %w", err)
		}
		defer file.Close()
		in = file
	}
	f.limits = specs.LinuxResources{}
	if err := json.NewDecoder(io.LimitReader(in, bundle.MaxConfig)).Decode(&f.limits); err != nil {
		return errdef.New(errdef.InvalidArgument, "--resources %s: %w", f.resources, err)
	}
	return nil
}

// settled fills in what follows from what was given: no limit of memory is none of swap either, and an idle container has no weight.
func (f *updateFlags) settled() *specs.LinuxResources {
	r := f.limits
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	if m := r.Memory; m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		m.Swap = m.Limit
	}
	r.Devices = nil // what others set since (a GPU's plugin) stays
	return &r
}
