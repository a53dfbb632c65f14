package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// lives are the cases about whole lives of containers.
type lives struct {
	*bench
	list []*runner
}

// cycle measures what an engine has a runtime do for a container that it stops: create, start, kill and delete, without a pause in between.
func (b lives) cycle() {
	const id = "bench-cycle"
	t := trial{name: "runtime-cycle", what: "OCI runtime: create, start, kill KILL, delete --force, one after the other", unit: "ms", n: 50,
		targets: []Target{{Peer: "crun", Ratio: 0.5}}}
	for _, r := range b.list {
		dir := filepath.Join(b.dir, "cycle-"+r.name)
		err := b.bundleAt(dir, []string{"/bin/sleep", "3600"})
		t.contenders = append(t.contenders, contender{r.name, func() (float64, error) {
			if err != nil {
				return 0, err
			}
			sum := 0.0
			for _, args := range [][]string{{"create", "--bundle", dir, id}, {"start", id}, {"kill", id, "KILL"}, {"delete", "--force", id}} {
				o, err := r.spawn(job{Args: append([]string{r.path, "--root", r.root}, args...), Quiet: true}) // a pipe would stay open as long as the container
				if err != nil {
					r.do("delete", "--force", id)
					return 0, err
				}
				sum += milliseconds(o.Took)
			}
			return sum, nil
		}})
	}
	b.try(t)
}

// loop measures runs of one runtime alone, each right behind the one before: what the kernel clears up late is paid by the next.
func (b lives) loop() {
	const rounds = 20
	t := trial{name: "runtime-loop", what: fmt.Sprintf("OCI runtime: run true %d times in a row, per run", rounds), unit: "ms", n: 10, targets: []Target{{Peer: "crun", Ratio: 1}}}
	for _, r := range b.list {
		t.contenders = append(t.contenders, contender{r.name, func() (float64, error) {
			sum := 0.0
			for range rounds {
				o, err := r.do("run", "--bundle", r.bundle, "bench-run")
				if err != nil {
					return 0, err
				}
				sum += milliseconds(o.Took)
			}
			return sum / rounds, nil
		}})
	}
	b.try(t)
}

// counts has strace count the system calls of a run and the tasks that make them, the container's own included.
func (b lives) counts() {
	strace, err := exec.LookPath("strace")
	if err != nil {
		b.absent("system calls: strace is not installed")
		return
	}
	calls := trial{name: "runtime-calls", what: "OCI runtime: system calls of run true", unit: "calls", n: 1, targets: []Target{{Most: 400}}}
	tasks := trial{name: "runtime-tasks", what: "OCI runtime: tasks of run true, the container's included", unit: "tasks", n: 1, targets: []Target{{Most: 3}}}
	for _, r := range b.list {
		log := filepath.Join(b.dir, "strace-"+r.name)
		counted := func(pick func(calls, tasks int) int) func() (float64, error) {
			return func() (float64, error) {
				if _, err := r.spawn(job{Args: []string{strace, "-f", "-o", log, r.path, "--root", r.root, "run", "--bundle", r.bundle, "bench-run"}}); err != nil {
					return 0, err
				}
				raw, err := os.ReadFile(log)
				return float64(pick(countCalls(string(raw)))), err
			}
		}
		calls.contenders = append(calls.contenders, contender{r.name, counted(func(calls, _ int) int { return calls })})
		tasks.contenders = append(tasks.contenders, contender{r.name, counted(func(_, tasks int) int { return tasks })})
	}
	b.try(calls)
	b.try(tasks)
}

// countCalls counts the calls in what strace -f -o wrote, and who made them. A call that was interrupted by another task's is one.
func countCalls(log string) (calls, tasks int) {
	call := regexp.MustCompile(`^(\d+) +\w+\(`)
	who := map[string]bool{}
	for line := range strings.Lines(log) {
		if m := call.FindStringSubmatch(line); m != nil {
			calls++
			who[m[1]] = true
		}
	}
	return calls, len(who)
}

// leastMemory searches for the smallest memory limit with which a container runs to its end.
func (b lives) leastMemory() {
	const step, most = 64 << 10, 64 << 20
	t := trial{name: "runtime-memory", what: "OCI runtime: the least memory limit with which run true succeeds", unit: "KiB", n: 1, targets: []Target{{Most: 1024}}}
	for _, r := range b.list {
		dir := filepath.Join(b.dir, "memory-"+r.name)
		err := b.bundleAt(dir, []string{"/bin/true"})
		t.contenders = append(t.contenders, contender{r.name, func() (float64, error) {
			if err != nil {
				return 0, err
			}
			low, high := 0, most/step // steps; low fails, high succeeds
			for high-low > 1 {
				mid := (low + high) / 2
				ok, err := b.runsWithin(r, dir, int64(mid)*step)
				if err != nil {
					return 0, err
				}
				if ok {
					high = mid
				} else {
					low = mid
				}
			}
			if high == most/step {
				return 0, errors.New("does not run with 64 MiB")
			}
			return float64(high * step >> 10), nil
		}})
	}
	b.try(t)
}

func (b lives) runsWithin(r *runner, dir string, limit int64) (bool, error) {
	file := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		return false, err
	}
	c["linux"].(map[string]any)["resources"].(map[string]any)["memory"] = map[string]any{"limit": limit}
	if raw, err = json.Marshal(c); err != nil {
		return false, err
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return false, err
	}
	if _, err = r.do("run", "--bundle", dir, "bench-memory"); err != nil {
		r.do("delete", "--force", "bench-memory")
	}
	return err == nil, nil
}
