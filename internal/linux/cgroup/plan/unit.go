package plan

import (
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Unit is a transient scope that systemd makes for a container.
type Unit struct {
	Name       string // PREFIX-NAME.scope
	Slice      string // the unit it lies in
	User       bool   // the user's own instance of systemd
	Path       string // its cgroup, absolute, from the root of each hierarchy
	Properties []Property
}

// Property is one property of a unit. Type is its D-Bus signature: one of b, y, n, q, i, u, x, t, d, s, an array of one, or a(ss).
// The Go types are bool, byte, int16, uint16, int32, uint32, int64, uint64, float64, string, and Array, []byte, []uint32, [][2]string.
type Property struct {
	Name, Type string
	Value      any
}

// infinity is systemd's word for no limit.
const infinity = uint64(1<<64 - 1)

// NewUnit reads linux.cgroupsPath as systemd's drivers have it, "slice:prefix:name" (empty: the container's ID), and says where the
// scope's cgroup will be. uid is who calls; not root, the user's own instance of systemd is asked.
func NewUnit(l Layout, cgroupsPath, id string, uid int) (*Unit, error) {
	slice, prefix, name := "", "dhow", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return nil, invalid("linux.cgroupsPath: %q: with --systemd-cgroup write it as \"slice:prefix:name\", like system.slice:dhow:web", cgroupsPath)
		}
		slice, prefix, name = parts[0], parts[1], parts[2]
	}
	u := &Unit{Name: prefix + "-" + name + ".scope", Slice: slice, User: uid != 0}
	if strings.HasSuffix(name, ".slice") {
		return nil, invalid("linux.cgroupsPath: %q is a slice; a container needs a scope, give a name without .slice", name)
	}
	if u.Slice == "" {
		u.Slice = "system.slice"
		if u.User && l.Mode == V2 {
			u.Slice = "user.slice"
		}
	}
	if !isUnitName(u.Name) {
		return nil, invalid("linux.cgroupsPath: %q is no name of a unit: at most 255 letters, digits and : _ . - @ \\", u.Name)
	}
	below, err := expandSlice(u.Slice)
	if err != nil {
		return nil, err
	}
	if u.Slice == "-" {
		u.Slice = "-.slice"
	}
	root := "/"
	if u.User {
		root = managerPath(l.SelfUnified, uid)
	}
	u.Path = path.Join(root, below, u.Name)
	return u, nil
}

// Text lists the properties on one line.
func (u *Unit) Text() string {
	var b strings.Builder
	for i, p := range u.Properties {
		b.WriteString([]string{"{", ", "}[min(i, 1)] + p.Name + "=" + p.text())
	}
	b.WriteString("}")
	return b.String()
}

func (p *Property) text() string {
	switch v := p.Value.(type) {
	case bool:
		return strconv.FormatBool(v)
	case uint64:
		if v == infinity {
			return "infinity"
		}
		return strconv.FormatUint(v, 10)
	case string:
		return strconv.Quote(v)
	case []byte:
		return "0x" + hex.EncodeToString(v)
	}
	return fmt.Sprintf("%v", p.Value)
}

func isUnitName(s string) bool {
	if len(s) > 255 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(`:_.-@\`, rune(c)) {
			return false
		}
	}
	return true
}

// expandSlice turns a-b.slice into /a.slice/a-b.slice (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	if slice == "-" || slice == "-.slice" {
		return "/", nil
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || !isUnitName(slice) {
		return "", invalid("linux.cgroupsPath: slice %q is not the name of a slice, like system.slice", slice)
	}
	at, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		if part == "" {
			return "", invalid("linux.cgroupsPath: slice %q has a dash at an end or two in a row", slice)
		}
		prefix += part
		at = path.Join(at, prefix+".slice")
		prefix += "-"
	}
	return at, nil
}

// managerPath is the cgroup of a user's systemd: we are below it, or it is where logind puts it.
func managerPath(self string, uid int) string {
	service := "user@" + strconv.Itoa(uid) + ".service"
	parts := strings.Split(self, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "user@") && strings.HasSuffix(p, ".service") {
			return strings.Join(parts[:i+1], "/")
		}
	}
	return path.Join("/user.slice", "user-"+strconv.Itoa(uid)+".slice", service)
}

// Describe fills in the properties of a new unit. annotations may add some, by the prefix org.systemd.property.
func (u *Unit) Describe(l Layout, id string, r *specs.LinuxResources, annotations map[string]string) error {
	io := "IOAccounting"
	if l.Mode != V2 {
		io = "BlockIOAccounting"
	}
	u.Properties = []Property{
		{"Description", "s", "container " + id},
		{"Slice", "s", u.Slice},
		{"Delegate", "b", true},
		{"DefaultDependencies", "b", false},
		{"MemoryAccounting", "b", true}, {"CPUAccounting", "b", true}, {io, "b", true}, {"TasksAccounting", "b", true},
	}
	limits, err := UnitLimits(l, r)
	if err != nil {
		return err
	}
	u.Properties = append(u.Properties, limits...)
	more, err := annotated(annotations)
	if err != nil {
		return err
	}
	for _, p := range more { // what limits set is the config's alone; a Scale is the same limit by another name
		if slices.ContainsFunc(limits, func(q Property) bool { return q.Name == strings.TrimSuffix(p.Name, "Scale") }) {
			return invalid("annotations[%s%s]: linux.resources sets this limit", annotationPrefix, p.Name)
		}
		if i := slices.IndexFunc(u.Properties, func(q Property) bool { return q.Name == p.Name }); i >= 0 {
			u.Properties[i] = p
			continue
		}
		u.Properties = append(u.Properties, p)
	}
	return nil
}

// UnitLimits translates resources into what systemd keeps of them, so that it does not write something else (at daemon-reload, say)
// over what the plan's own steps wrote. What it has no word for, only those steps set.
func UnitLimits(l Layout, r *specs.LinuxResources) ([]Property, error) {
	if r == nil {
		return nil, nil
	}
	p := &unitPlanner{v2: l.Mode == V2, r: r}
	p.cpu()
	if err := p.cpuset(); err != nil {
		return nil, err
	}
	p.memory()
	if r.Pids != nil && r.Pids.Limit != nil {
		p.number("TasksMax", max(*r.Pids.Limit, -1), 1)
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if p.v2 {
			p.add("IOWeight", "t", uint64(1+(max(int(*b.Weight), 10)-10)*9999/990))
		} else {
			p.add("BlockIOWeight", "t", uint64(*b.Weight))
		}
	}
	return p.out, p.devices()
}

type unitPlanner struct {
	v2  bool
	r   *specs.LinuxResources
	out []Property
}

func (p *unitPlanner) add(name, sig string, value any) {
	p.out = append(p.out, Property{name, sig, value})
}

// number adds a limit: negative is none, and least what systemd takes in place of less.
func (p *unitPlanner) number(name string, n int64, least uint64) {
	value := infinity
	if n >= 0 {
		value = max(uint64(n), least)
	}
	p.add(name, "t", value)
}

func (p *unitPlanner) cpu() {
	c := p.r.CPU
	if c == nil {
		return
	}
	idle := c.Idle != nil && *c.Idle == 1
	switch {
	case p.v2 && idle:
		p.add("CPUWeight", "t", uint64(0)) // systemd 252's word for idle
	case c.Shares != nil && *c.Shares != 0 && p.v2:
		p.add("CPUWeight", "t", Weight(*c.Shares))
	case c.Shares != nil && *c.Shares != 0:
		p.add("CPUShares", "t", min(max(*c.Shares, 2), 262144))
	}
	period := uint64(100000)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
		p.add("CPUQuotaPeriodUSec", "t", period)
	}
	if c.Quota == nil || *c.Quota == 0 {
		return
	}
	perSecond := infinity
	if *c.Quota > 0 && uint64(*c.Quota) < 1<<40 {
		perSecond = uint64(*c.Quota) * 1_000_000 / period
		// systemd keeps whole per cents; more must not become less.
		perSecond = (perSecond + 9_999) / 10_000 * 10_000
	}
	p.add("CPUQuotaPerSecUSec", "t", perSecond)
}

// cpuset: bit n%8 of byte n/8 stands for CPU n. v1's cpuset is none of systemd's business.
func (p *unitPlanner) cpuset() error {
	c := p.r.CPU
	if c == nil || !p.v2 {
		return nil
	}
	for _, f := range [...]struct{ property, list, field string }{{"AllowedCPUs", c.Cpus, "cpus"}, {"AllowedMemoryNodes", c.Mems, "mems"}} {
		if f.list == "" {
			continue
		}
		bits, ok := listBits(f.list)
		if !ok {
			return invalid("linux.resources.cpu.%s: %q is no list like 0-3,7", f.field, f.list)
		}
		p.add(f.property, "ay", bits)
	}
	return nil
}

func listBits(list string) ([]byte, bool) {
	const most = 1 << 13
	var bits []byte
	for _, part := range strings.Split(list, ",") {
		if part == "" { // the kernel takes "0,"
			continue
		}
		a, b, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(a)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(b)
		}
		if err != nil || from < 0 || to < from || to >= most {
			return nil, false
		}
		for n := from; n <= to; n++ {
			for len(bits) <= n/8 {
				bits = append(bits, 0)
			}
			bits[n/8] |= 1 << (n % 8)
		}
	}
	return bits, len(bits) > 0
}

func (p *unitPlanner) memory() {
	m := p.r.Memory
	if m == nil {
		return
	}
	set := func(n *int64) bool { return n != nil && *n != 0 }
	if !p.v2 {
		if set(m.Limit) {
			p.number("MemoryLimit", *m.Limit, 0)
		}
		return
	}
	if set(m.Limit) {
		p.number("MemoryMax", *m.Limit, 0)
	}
	if set(m.Reservation) {
		p.number("MemoryLow", *m.Reservation, 0)
	}
	switch {
	case set(m.Swap) && *m.Swap < 0, m.Limit != nil && *m.Limit < 0 && !set(m.Swap):
		p.add("MemorySwapMax", "t", infinity)
	case set(m.Swap) && set(m.Limit) && *m.Swap >= *m.Limit:
		p.add("MemorySwapMax", "t", uint64(*m.Swap-*m.Limit))
	}
}

// devices: systemd knows a list of what is allowed, by number or, for all of a driver, by its name, which we do not know; what it can't
// say it must not forbid, so it is told of no rules then. On v2 the plan's program decides beside systemd's.
func (p *unitPlanner) devices() error {
	if len(p.r.Devices) == 0 {
		return nil
	}
	l, err := ListDevices(p.r.Devices)
	if err != nil && p.v2 { // v1's limits are not ours here
		p.add("DevicePolicy", "s", "auto")
		p.add("DeviceAllow", "a(ss)", [][2]string{})
		return nil
	}
	if err != nil {
		return err
	}
	var allow [][2]string
	said := !l.AllowAll
	for _, e := range l.exceptions {
		kind := "char"
		if e.block {
			kind = "block"
		}
		switch {
		case e.major >= 0 && e.minor >= 0:
			allow = append(allow, [2]string{"/dev/" + kind + "/" + device(e.major, e.minor), e.letters()})
		case e.major < 0 && e.minor < 0:
			allow = append(allow, [2]string{kind + "-*", e.letters()})
		case e.major == 136 && !e.block:
			allow = append(allow, [2]string{"char-pts", e.letters()})
		default:
			said = false
		}
	}
	policy := "strict"
	if !said {
		policy, allow = "auto", nil
	}
	p.add("DevicePolicy", "s", policy)
	p.add("DeviceAllow", "a(ss)", append([][2]string{}, allow...))
	return nil
}
