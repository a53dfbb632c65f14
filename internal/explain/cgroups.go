package explain

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// pageSize is what the kernel rounds memory limits down to on most machines; a larger page only makes a rounded value a difference.
const pageSize = 4096

// cgroupsSection compares the limits that were planned with the files that hold them.
func cgroupsSection(v *view) Section {
	s := Section{Name: "cgroups", Title: "Cgroups"}
	if v.Spec.Linux == nil {
		return s
	}
	dirs, err := plan.Dirs(v.Layout, v.Spec.Linux.CgroupsPath)
	if v.State != nil && len(v.State.Cgroups) > 0 {
		dirs, err = v.State.Cgroups, nil
	}
	if err != nil {
		s.unread("path", v.why("linux.cgroupsPath"), v.Spec.Linux.CgroupsPath, err)
		return s
	}
	v.cgroupPath(&s, dirs)
	steps, err := plan.Create(v.Layout, v.Spec.Linux.CgroupsPath, v.Spec.Linux.Resources)
	if err != nil {
		s.unread("limits", v.why("linux.resources"), "", err)
	}
	var values map[string]string
	if v.Pid > 0 {
		values = cgroup.Values(dirs)
	}
	v.cgroupLimits(&s, steps, values)
	v.deviceRules(&s, steps, values)
	for _, p := range sortedKeys(values) {
		s.add(Row{What: path.Base(p), Kernel: pretty(path.Base(p), values[p])})
	}
	return s
}

// cgroupPath checks that the first process is where it was put, in every hierarchy.
func (v *view) cgroupPath(s *Section, dirs []plan.Dir) {
	asked := v.why("linux.cgroupsPath")
	b, err := v.proc("cgroup")
	if err != nil {
		s.add(Row{What: "path", Asked: asked, Planned: v.Spec.Linux.CgroupsPath})
		return
	}
	have := map[string]string{} // by controllers, as /proc/PID/cgroup writes them
	for l := range bytes.Lines(b) {
		if f := strings.SplitN(strings.TrimSpace(string(l)), ":", 3); len(f) == 3 {
			have[f[1]] = f[2]
		}
	}
	var elsewhere []string
	for _, d := range dirs {
		key := strings.Join(d.Controllers, ",")
		if d.V2 {
			key = ""
		}
		if got, ok := have[key]; ok && path.Join(d.Mount, got) != path.Clean(d.Path) {
			elsewhere = append(elsewhere, key+":"+got)
		}
	}
	row := Row{What: "path", Asked: asked, Planned: v.Spec.Linux.CgroupsPath, Kernel: fmt.Sprintf("%s in %d hierarchies", v.Spec.Linux.CgroupsPath, len(dirs))}
	if len(elsewhere) > 0 {
		row.Kernel, row.Differs = short(strings.Join(elsewhere, " ")), true
	}
	s.add(row)
}

// cgroupLimits pairs each file that is written with what it holds, and takes it from values.
func (v *view) cgroupLimits(s *Section, steps []plan.Step, values map[string]string) {
	planned := map[string]plan.Step{}
	var order []string
	for _, st := range steps {
		if st.Kind != plan.Write || strings.HasPrefix(path.Base(st.Path), "devices.") || path.Base(st.Path) == "cgroup.subtree_control" {
			continue
		}
		if _, ok := planned[st.Path]; !ok {
			order = append(order, st.Path)
		}
		planned[st.Path] = st // the last one stands
	}
	for _, p := range order {
		st, name := planned[p], path.Base(p)
		row := Row{What: name, Asked: v.why(st.Why), Planned: pretty(name, st.Value)}
		if v.Pid > 0 {
			now, ok := values[p]
			if !ok {
				if b, err := read(p, maxProc); err != nil {
					row.Note = fmt.Sprintf("not read: %v", err)
				} else {
					now, ok = strings.TrimSpace(string(b)), true
				}
			}
			if ok {
				row.Kernel, row.Differs = pretty(name, now), !holds(name, st.Value, now)
			}
		}
		delete(values, p)
		s.add(row)
	}
}

// holds tells whether a cgroup file's content means the value that was written.
func holds(file, planned, now string) bool {
	if planned == now {
		return true
	}
	for l := range strings.Lines(now) { // memory.oom_control: "oom_kill_disable 1"; io.max: one line a device
		if l = strings.TrimSpace(l); l == planned || strings.HasSuffix(l, " "+planned) && !strings.Contains(planned, " ") && strings.Count(l, " ") == 1 {
			return true
		}
	}
	n, ok1 := number(planned)
	m, ok2 := number(now)
	if !ok1 || !ok2 {
		return false
	}
	return n == m || strings.HasPrefix(file, "memory.") && n/pageSize == m/pageSize
}

// number reads a limit; the ways to say "none" are one number.
func number(s string) (uint64, bool) {
	const unlimited = 1<<63 - pageSize // v1's largest memory limit
	if s == "max" || s == "-1" {
		return unlimited, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return min(n, unlimited), err == nil
}

// pretty is a value on one line, with a size in words behind bytes.
func pretty(file, value string) string {
	if strings.HasPrefix(file, "memory.") && (value == "-1" || value == "max") {
		return "unlimited"
	}
	if n, err := strconv.ParseUint(value, 10, 64); err == nil && strings.HasPrefix(file, "memory.") && strings.Contains(file+".", "_bytes.") || err == nil && v2bytes(file) {
		if n >= 1<<62 {
			return "unlimited"
		}
		return fmt.Sprintf("%d (%s)", n, units.BytesSize(float64(n)))
	}
	return short(strings.ReplaceAll(value, "\n", "; "))
}

func v2bytes(file string) bool {
	return slices.Contains([]string{"memory.current", "memory.peak", "memory.max", "memory.high", "memory.low", "memory.swap.max", "memory.swap.current"}, file)
}

// deviceRules compares v1's list of allowed devices. (v2's is a program in the kernel, which does not print.)
func (v *view) deviceRules(s *Section, steps []plan.Step, values map[string]string) {
	want := rules{}
	var file string
	for _, st := range steps {
		switch path.Base(st.Path) {
		case "devices.allow":
			want.allow(st.Value)
		case "devices.deny":
			want.deny(st.Value)
		default:
			if st.Kind == plan.Devices {
				s.add(Row{What: "device program", Asked: v.why("linux.resources.devices"), Planned: fmt.Sprintf("%d instructions of eBPF", len(st.Program)/8), Note: "the kernel does not print it"})
			}
			continue
		}
		file = path.Join(path.Dir(st.Path), "devices.list")
	}
	now, ok := values[file]
	delete(values, file)
	if file == "" {
		return
	}
	row := Row{What: "devices.list", Asked: devicesWhy(v), Planned: strings.Join(want.list(), "; ")}
	if ok {
		have := rules{}
		for l := range strings.Lines(now) {
			have.allow(strings.TrimSpace(l))
		}
		row.Kernel = short(strings.Join(have.list(), "; "))
		row.Differs = !slices.Equal(want.list(), have.list())
	}
	s.add(row)
}

// devicesWhy names the flags that opened devices beside those that every container may use.
func devicesWhy(v *view) string {
	list := []string{}
	for k, why := range v.Why {
		if strings.HasPrefix(k, "linux.devices ") || strings.HasPrefix(k, "linux.resources.devices ") {
			list = append(list, why)
		}
	}
	slices.Sort(list)
	return strings.Join(append([]string{v.why("linux.resources.devices")}, slices.Compact(list)...), " + ")
}

// rules is v1's list of allowed devices as the kernel keeps it: the letters of "rwm" by "TYPE MAJOR:MINOR".
type rules map[string]string

const allDevices = "a *:*"

func splitRule(r string) (device, letters string) {
	if r == "a" {
		return allDevices, "rwm"
	}
	i := strings.LastIndexByte(r, ' ')
	return r[:max(i, 0)], r[i+1:]
}

// allow adds letters to those that a device has already.
func (r rules) allow(rule string) {
	device, letters := splitRule(rule)
	if device == allDevices {
		clear(r)
	}
	r.set(device, func(l rune) bool { return strings.ContainsRune(letters+r[device], l) })
}

// deny takes letters away.
func (r rules) deny(rule string) {
	device, letters := splitRule(rule)
	if device == allDevices {
		clear(r)
		return
	}
	r.set(device, func(l rune) bool { return strings.ContainsRune(r[device], l) && !strings.ContainsRune(letters, l) })
}

func (r rules) set(device string, has func(rune) bool) {
	out := ""
	for _, l := range "rwm" {
		if has(l) {
			out += string(l)
		}
	}
	if r[device] = out; out == "" {
		delete(r, device)
	}
}

func (r rules) list() []string {
	out := sortedKeys(r)
	for i, d := range out {
		out[i] = d + " " + r[d]
	}
	return out
}

func sortedKeys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
