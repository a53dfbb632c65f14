package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DeviceList is what v1's devices controller can hold: everything is allowed or nothing is, and exceptions to that.
type DeviceList struct {
	AllowAll   bool
	exceptions []deviceRule // of one type each, in the order they were first named
}

// ListDevices merges rules, the last that matches deciding, into such a list. Rules for one device inside a wildcard of the other kind
// can't be said to v1; they are refused, where the kernel would take them and do nothing.
func ListDevices(rules []specs.LinuxDeviceCgroup) (DeviceList, error) {
	var l DeviceList
	for i, raw := range rules {
		field := "devices[" + strconv.Itoa(i) + "]"
		r, err := parseRule(raw, field)
		if err != nil {
			return l, err
		}
		if r.everything() {
			l = DeviceList{AllowAll: r.allow}
			continue
		}
		for _, one := range r.types() {
			if r.allow == l.AllowAll {
				if err := l.remove(one, field); err != nil {
					return l, err
				}
			} else {
				l.add(one)
			}
		}
	}
	return l, nil
}

// types splits a rule for both types in two: the kernel takes "a" for everything whatever follows it.
func (r deviceRule) types() []deviceRule {
	b, c := r, r
	b.char, c.block = false, false
	switch {
	case r.block && r.char:
		return []deviceRule{b, c}
	case r.block:
		return []deviceRule{b}
	}
	return []deviceRule{c}
}

func (r deviceRule) same(o deviceRule) bool {
	return r.block == o.block && r.major == o.major && r.minor == o.minor
}

// covers tells whether r is about all devices that o is about.
func (r deviceRule) covers(o deviceRule) bool {
	return r.block == o.block && (r.major < 0 || r.major == o.major) && (r.minor < 0 || r.minor == o.minor)
}

func (r deviceRule) overlaps(o deviceRule) bool {
	return r.block == o.block && (r.major < 0 || o.major < 0 || r.major == o.major) && (r.minor < 0 || o.minor < 0 || r.minor == o.minor)
}

func (l *DeviceList) add(r deviceRule) {
	for i := range l.exceptions {
		if e := &l.exceptions[i]; e.same(r) {
			e.access |= r.access
			return
		}
	}
	l.exceptions = append(l.exceptions, r)
}

func (l *DeviceList) remove(r deviceRule, field string) error {
	for i := range l.exceptions {
		e := &l.exceptions[i]
		if e.access&r.access == 0 || !e.overlaps(r) {
			continue
		}
		if !r.covers(*e) {
			return invalid("linux.resources.%s: %s is part of %s, ruled before; v1's devices controller can't take a part out of a wildcard: "+
				"list the other devices one by one", field, r.line(), e.line())
		}
		e.access &^= r.access
	}
	l.exceptions = slices.DeleteFunc(l.exceptions, func(e deviceRule) bool { return e.access == 0 })
	return nil
}

// line is the rule as the kernel's files say it.
func (r deviceRule) line() string {
	t := "c"
	if r.block {
		t = "b"
	}
	return t + " " + wild(r.major) + ":" + wild(r.minor) + " " + r.letters()
}

// Lines are the exceptions as devices.allow or devices.deny take them.
func (l DeviceList) Lines() []string {
	out := make([]string, len(l.exceptions))
	for i, e := range l.exceptions {
		out[i] = e.line()
	}
	return out
}

// String is the list as devices.list shows it, but for exceptions to everything, which that file keeps to itself.
func (l DeviceList) String() string {
	lines := l.Lines()
	if l.AllowAll {
		lines = append([]string{"a *:* rwm"}, lines...)
	}
	return strings.Join(lines, "\n")
}

// Change is one write that brings a devices controller nearer to a list.
type Change struct{ File, Value string }

// Changes leads from what devices.list says to l. Where both allow nothing but exceptions, what stays allowed is so all the time, since
// the new is allowed before the old is denied.
func (l DeviceList) Changes(devicesList string) []Change {
	now := map[string]bool{}
	for line := range strings.Lines(devicesList) {
		now[strings.TrimSpace(line)] = true
	}
	var out []Change
	switch {
	case l.AllowAll:
		out = append(out, Change{"devices.allow", "a"})
		for _, line := range l.Lines() {
			out = append(out, Change{"devices.deny", line})
		}
		return out
	case now["a *:* rwm"]:
		out = append(out, Change{"devices.deny", "a"})
		now = nil
	}
	wanted := map[string]deviceRule{}
	for _, e := range l.exceptions {
		wanted[e.device()] = e
		if !now[e.line()] {
			out = append(out, Change{"devices.allow", e.line()})
		}
	}
	var old []string
	for line := range now {
		old = append(old, line)
	}
	slices.Sort(old)
	for _, line := range old {
		w := strings.Fields(line)
		if len(w) != 3 {
			continue
		}
		access := w[2]
		if e, ok := wanted[w[0]+" "+w[1]]; ok {
			access = strings.Trim(strings.Map(func(r rune) rune {
				if strings.ContainsRune(e.letters(), r) {
					return -1
				}
				return r
			}, access), " ")
		}
		if access != "" {
			out = append(out, Change{"devices.deny", w[0] + " " + w[1] + " " + access})
		}
	}
	return out
}

func (r deviceRule) device() string {
	return strings.TrimSuffix(r.line(), " "+r.letters())
}

// devicesV1 plans the writes of a new cgroup, or for one in use a comparison with what it holds.
func (p *planner) devicesV1(d Dir) error {
	l, err := ListDevices(p.r.Devices)
	if err != nil {
		return err
	}
	if p.update {
		p.add(Step{Kind: DeviceRules, Path: d.Path, Rules: &l, Why: "linux.resources.devices"})
		return nil
	}
	file := "devices.allow"
	if l.AllowAll {
		p.write(d, "devices.allow", "a", "devices")
		file = "devices.deny"
	} else {
		p.write(d, "devices.deny", "a", "devices")
	}
	for _, line := range l.Lines() {
		p.write(d, file, line, "devices")
	}
	return nil
}
