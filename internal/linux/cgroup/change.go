package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Change carries out the steps of an update all or none: where one fails, what those before it changed is set back, in reverse order.
// An error says so, and names what could not be set back.
func Change(steps []plan.Step) error {
	var undo []undone
	for i := range steps {
		s := &steps[i]
		if s.Kind == plan.Mkdir || s.Kind == plan.Join {
			return errdef.New(errdef.InvalidArgument, "update: step %q makes a cgroup", s)
		}
		old := before(s)
		if err := step(s, 0); err != nil {
			failed := setBack(undo)
			switch {
			case len(undo) == 0:
			case len(failed) == 0:
				err = fmt.Errorf("%w (what was changed before is as it was)", err)
			default:
				err = fmt.Errorf("%w (and not set back: %s)", err, strings.Join(failed, ", "))
			}
			return err
		}
		undo = append(undo, old...)
	}
	return nil
}

// undone is what a file held before it was written to.
type undone struct {
	file, value string
	device      bool // file is a folder, value its v1 device list
}

// before reads what a step is going to change. What can't be read can't have been changed either, or has no state (device programs are
// the last step of an update).
func before(s *plan.Step) []undone {
	switch s.Kind {
	case plan.DeviceRules:
		b, err := read(path.Join(s.Path, "devices.list"), maxFile)
		if err != nil {
			return nil
		}
		return []undone{{file: s.Path, value: string(b), device: true}}
	case plan.Write:
		for ; s != nil; s = s.Else {
			if b, err := read(s.Path, maxFile); err == nil {
				return []undone{{file: s.Path, value: previous(path.Base(s.Path), string(b), s.Value)}}
			}
		}
	}
	return nil
}

// previous says what to write to a file to have again what it held, where written is about to be written. Files of one value take their
// own text; those with a line a device take the device's line, or the word for none.
func previous(file, text, written string) string {
	key, rest, keyed := strings.Cut(written, " ")
	if !keyed || file == "cpu.max" {
		text = strings.TrimSpace(text)
		if file == "memory.oom_control" { // reads as "oom_kill_disable 0" and more
			first, _, _ := strings.Cut(text, "\n")
			_, text, _ = strings.Cut(first, " ")
		}
		if (file == "io.weight" || file == "io.bfq.weight") && strings.Contains(text, "\n") { // the devices' own lines follow
			text, _, _ = strings.Cut(text, "\n")
		}
		if text == "" {
			return "\n" // a cpuset of v2 that was never set
		}
		return text
	}
	for line := range strings.Lines(text) {
		if k, _, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			return strings.TrimSpace(line)
		}
	}
	switch file {
	case "io.max", "rdma.max":
		for _, word := range strings.Fields(rest) {
			name, _, _ := strings.Cut(word, "=")
			key += " " + name + "=max"
		}
		return key
	case "io.weight", "io.bfq.weight":
		return key + " default"
	}
	return key + " 0"
}

// setBack restores in reverse order. Of limits that must keep an order among them (memory and swap, quota and period) each stands in the
// list as often as it was written, so that a write which comes too early is made up for; what counts is what the files say in the end.
func setBack(undo []undone) (failed []string) {
	last := map[string]error{}
	var order []string
	for _, u := range slices.Backward(undo) {
		if _, seen := last[u.file]; !seen {
			order = append(order, u.file)
		}
		if u.device {
			last[u.file] = restoreDevices(u.file, u.value)
			continue
		}
		last[u.file] = write(u.file, u.value)
	}
	for _, file := range order {
		if err := last[file]; err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, fmt.Sprintf("%s: %v", file, err))
		}
	}
	return failed
}

// changeDevices brings a v1 devices controller to a list by as few writes as there are.
func changeDevices(dir string, l *plan.DeviceList) error {
	b, err := read(path.Join(dir, "devices.list"), maxFile)
	if err != nil {
		return err
	}
	for _, c := range l.Changes(string(b)) {
		if err := write(path.Join(dir, c.File), c.Value); err != nil {
			if back := restoreDevices(dir, string(b)); back != nil {
				return fmt.Errorf("%s %q: %w (and not set back: %v)", c.File, c.Value, err, back)
			}
			return fmt.Errorf("%s %q: %w", c.File, c.Value, err)
		}
	}
	return nil
}

// restoreDevices writes a device list as it was read. Exceptions to "everything" can't be read, so those stay as they are.
func restoreDevices(dir, list string) error {
	if strings.TrimSpace(list) == "a *:* rwm" {
		return write(path.Join(dir, "devices.allow"), "a")
	}
	if err := write(path.Join(dir, "devices.deny"), "a"); err != nil && err != unix.EINVAL { // EINVAL: it has cgroups below
		return err
	}
	for line := range strings.Lines(list) {
		if err := write(path.Join(dir, "devices.allow"), strings.TrimSpace(line)); err != nil {
			return err
		}
	}
	return nil
}

// Complete returns resources with what v2 keeps in one file together and an update gave half of, taken from the kernel: the quota's
// period or the period's quota, and the memory limit that tells swap's part of a sum. r itself stays as it is.
func Complete(dirs []plan.Dir, r *specs.LinuxResources) (*specs.LinuxResources, error) {
	i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.V2 })
	if i < 0 || r == nil {
		return r, nil
	}
	out := *r
	if c := r.CPU; c != nil && (c.Quota == nil) != (c.Period == nil) && dirs[i].Has("cpu") {
		b, err := read(path.Join(dirs[i].Path, "cpu.max"), maxFile)
		if err != nil && !absent(err) {
			return nil, err
		}
		cpu := *c
		if w := strings.Fields(string(b)); len(w) == 2 {
			quota, period := int64(-1), parseNumber(w[1])
			if w[0] != "max" {
				quota = int64(parseNumber(w[0]))
			}
			if cpu.Quota == nil {
				cpu.Quota = &quota
			} else {
				cpu.Period = &period
			}
		}
		out.CPU = &cpu
	}
	if m := r.Memory; m != nil && m.Swap != nil && *m.Swap > 0 && (m.Limit == nil || *m.Limit == 0) && dirs[i].Has("memory") {
		limit, err := readLimit(dirs[i].Path, "memory.max")
		if err != nil {
			return nil, err
		}
		if limit > 0 {
			memory, n := *m, int64(limit)
			memory.Limit = &n
			out.Memory = &memory
		}
	}
	return &out, nil
}
