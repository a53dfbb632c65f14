// Package bench owns the comparison of dhow with the engines and runtimes that a machine has: cases, contenders, figures.
//
// It promises that contenders take turns (A B C A B C ...), so that what else the machine does falls on all alike, that what is not
// there is named, and that everything it started or made is gone when it ends. It must never be linked into a shipped program, nor
// measure a contender through a program that the others do not pay for.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to measure.
type Options struct {
	Bin   string   // folder of dhow, dhowd, dhow-shim, dhow-runtime
	Cache string   // folder in which peers that are no installed packages lie unpacked, below root/
	Only  []string // cases whose name begins so; none means all
	N     int      // measurements of each contender; 0: the case's own number
	// ImageMiB is the size of the large image of the cases images-*, uncompressed; 0: 1536.
	ImageMiB int
	Log      io.Writer
}

// Sample is one contender's figures in a case, in the unit of the case.
type Sample struct {
	Contender string    `json:"contender"`
	Values    []float64 `json:"values"`
	Median    float64   `json:"median"`
	P90       float64   `json:"p90"`
	Note      string    `json:"note,omitempty"` // why there are no values
}

// Target is what dhow promises: its median is at most Most, or at most Ratio of Peer's.
type Target struct {
	Peer  string  `json:"peer,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	Most  float64 `json:"most,omitempty"`
	Is    float64 `json:"is"`
	State string  `json:"state"` // "met", "missed" or "unknown"
}

// Result is one case.
type Result struct {
	Case    string   `json:"case"`
	What    string   `json:"what"`
	Unit    string   `json:"unit"`
	Samples []Sample `json:"samples"`
	Targets []Target `json:"targets,omitempty"`
}

// Report is everything.
type Report struct {
	Machine  string    `json:"machine"`
	Load     [2]string `json:"load"` // before and after
	Programs []string  `json:"programs"`
	Absent   []string  `json:"absent,omitempty"`
	Results  []Result  `json:"results"`
}

// contender is one of those that take turns. Measure returns a figure in the case's unit. The first one of a case is dhow.
type contender struct {
	name    string
	measure func() (float64, error)
}

// trial is a case before it is measured.
type trial struct {
	name, what, unit string
	n                int
	contenders       []contender
	targets          []Target
}

// turn is a contender that gives a figure for each of several trials at once; none where it has no such figure.
type turn struct {
	name    string
	measure func() ([]float64, error)
}

const none = -1

// bench is one run.
type bench struct {
	Options
	ctx    context.Context
	dir    string
	report Report
	undo   []func()
	fleet  []*client // once clients has started them
}

// Run measures until ctx ends, and then only removes what it made. What could not be measured stands in the report as a note; an error
// means that dhow itself could not be, or not in time.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("measure containers: needs root")
	}
	for _, p := range []*string{&o.Bin, &o.Cache} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "dhow-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{Options: o, ctx: ctx, dir: dir}
	b.onEnd(func() { os.RemoveAll(dir) })
	b.onEnd(func() { removeCgroups(cgroupTop) })
	defer b.end()
	if err := b.keepPrograms(); err != nil {
		return nil, err
	}
	b.report.Machine, b.report.Load[0] = machine(), load()
	for _, part := range []struct {
		cases []string
		do    func() error
	}{
		{[]string{"runtime-run", "runtime-loop", "runtime-cycle", "runtime-calls", "runtime-tasks", "runtime-memory", "runtime-exec"}, b.runtimes},
		{[]string{"engine-bridge", "engine-host", "engine-none", "engine-100", "engine-exec", "engine-stop", "engine-rm", "memory-engine", "memory-shim", "memory-shim-used"}, engines{b}.measure},
		{[]string{"disk"}, b.disk},
		{[]string{"images-pull", "images-memory", "images-disk", "images-read-cold", "images-read-warm", "images-remove", "images-run"}, images{bench: b}.measure},
	} {
		if !slices.ContainsFunc(part.cases, b.wanted) || ctx.Err() != nil {
			continue
		}
		if err := part.do(); err != nil {
			return &b.report, err
		}
	}
	b.report.Load[1] = load()
	if err := context.Cause(ctx); err != nil {
		return &b.report, fmt.Errorf("not all was measured: %w", err)
	}
	return &b.report, nil
}

// keepPrograms copies dhow's programs: an engine must not meet another build's shim because somebody builds meanwhile.
func (b *bench) keepPrograms() error {
	bin := filepath.Join(b.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	for _, p := range programs() {
		raw, err := os.ReadFile(filepath.Join(b.Bin, p))
		if err != nil {
			return fmt.Errorf("find dhow's programs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(bin, p), raw, 0o700); err != nil {
			return err
		}
	}
	b.Bin = bin
	return nil
}

func programs() []string { return []string{"dhow", "dhowd", "dhow-shim", "dhow-runtime"} }

func (b *bench) wanted(name string) bool {
	return len(b.Only) == 0 || slices.ContainsFunc(b.Only, func(o string) bool { return strings.HasPrefix(name, o) })
}

func (b *bench) onEnd(f func()) { b.undo = append(b.undo, f) }

// end undoes in the opposite order.
func (b *bench) end() {
	for _, f := range slices.Backward(b.undo) {
		f()
	}
}

func (b *bench) absent(format string, args ...any) {
	b.report.Absent = append(b.report.Absent, fmt.Sprintf(format, args...))
}

// try measures a case: one round that does not count, then n rounds in which every contender has its turn.
func (b *bench) try(t trial) {
	var turns []turn
	for _, c := range t.contenders {
		turns = append(turns, turn{c.name, func() ([]float64, error) { v, err := c.measure(); return []float64{v}, err }})
	}
	b.take([]trial{t}, turns, t.n, 1)
}

// take measures cases that the same turns give figures for: warm rounds that do not count, then n.
func (b *bench) take(trials []trial, turns []turn, n, warm int) {
	if !slices.ContainsFunc(trials, func(t trial) bool { return b.wanted(t.name) }) || b.ctx.Err() != nil {
		return
	}
	if b.N > 0 {
		n = b.N
	}
	began := time.Now()
	samples := make([][]Sample, len(trials))
	for i := range trials {
		samples[i] = make([]Sample, len(turns))
	}
	// What one leaves the kernel to clear up (cgroups, network namespaces) runs into the turn of the next: the order changes with every
	// round, the same way in every run, so that each follows each.
	order := rand.New(rand.NewPCG(1, 1))
	broken := make([]error, len(turns))
	for round := range n + warm {
		for _, who := range order.Perm(len(turns)) {
			if broken[who] != nil {
				continue
			}
			if b.ctx.Err() != nil {
				return
			}
			var v []float64
			v, broken[who] = turns[who].measure()
			for i := range trials {
				s := &samples[i][who]
				s.Contender = turns[who].name
				switch {
				case broken[who] != nil:
					s.Note, s.Values = broken[who].Error(), nil
				case round >= warm && i < len(v) && v[i] != none:
					s.Values = append(s.Values, v[i])
				}
			}
		}
	}
	for i, t := range trials {
		if !b.wanted(t.name) {
			continue
		}
		b.report.conclude(t, samples[i])
		fmt.Fprintf(b.Log, "%s: %d rounds in %.1f s\n", t.name, n, time.Since(began).Seconds())
	}
}

// conclude reports a case. Whose turns give no figures for it is not of it.
func (r *Report) conclude(t trial, all []Sample) {
	samples := slices.DeleteFunc(all, func(s Sample) bool { return s.Note == "" && len(s.Values) == 0 })
	for i := range samples {
		samples[i].Median, samples[i].P90 = quantile(samples[i].Values, 0.5), quantile(samples[i].Values, 0.9)
	}
	if len(samples) > 0 {
		r.Results = append(r.Results, Result{Case: t.name, What: t.what, Unit: t.unit, Samples: samples, Targets: judge(t.targets, samples)})
	}
}

func judge(targets []Target, samples []Sample) []Target {
	var out []Target
	for _, t := range targets {
		t.State = "unknown"
		ours, limit := samples[0].Median, t.Most
		t.Is = ours
		if t.Peer != "" {
			i := slices.IndexFunc(samples, func(s Sample) bool { return s.Contender == t.Peer && len(s.Values) > 0 })
			if i < 0 {
				out = append(out, t)
				continue
			}
			t.Is, limit = ours/samples[i].Median, t.Ratio
		}
		if len(samples[0].Values) > 0 {
			if t.State = "missed"; t.Is <= limit {
				t.State = "met"
			}
		}
		out = append(out, t)
	}
	return out
}

// quantile interpolates between the two nearest values.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
