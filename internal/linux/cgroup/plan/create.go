package plan

import (
	"path"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Create plans a new container's cgroups: directories, then limits, then Join steps, in an order that works: a process joins only
// once its cpuset has CPUs and its limits stand. r may be nil.
func Create(l Layout, cgroupsPath string, r *specs.LinuxResources) ([]Step, error) {
	p, err := newPlanner(l, cgroupsPath, r)
	if err != nil {
		return nil, err
	}
	if err := p.limits(); err != nil {
		return nil, err
	}
	limits := p.steps
	p.steps = nil
	for _, d := range p.dirs {
		p.mkdirs(d)
	}
	p.steps = append(p.steps, limits...)
	for _, d := range p.dirs {
		p.add(Step{Kind: Join, Path: path.Join(d.Path, "cgroup.procs"), Why: "linux.cgroupsPath"})
	}
	return p.steps, nil
}

// Within plans what is left to do once systemd has made a unit around the process: limits, Join steps for hierarchies of v1, whose
// directories systemd makes in part, and no handing down of controllers.
func Within(l Layout, u *Unit, r *specs.LinuxResources) ([]Step, error) {
	p, err := newPlanner(l, u.Path, r)
	if err != nil {
		return nil, err
	}
	if err := p.limits(); err != nil {
		return nil, err
	}
	limits := p.steps
	p.steps = nil
	for _, d := range p.dirs {
		if !d.V2 {
			p.mkdirs(d)
		}
	}
	p.steps = append(p.steps, limits...)
	for _, d := range p.dirs {
		if !d.V2 {
			p.add(Step{Kind: Join, Path: path.Join(d.Path, "cgroup.procs"), Why: "linux.cgroupsPath"})
		}
	}
	return p.steps, nil
}

// Update plans new limits for a container that runs. Fields that are nil stay as they are; but linux.resources.cpu quota and period
// belong together on v2 (one file), so give both, and on v2 memory.swap needs memory.limit beside it (cgroup.Complete asks the kernel).
//
// v1's memory limit and swap limit must keep limit <= swap at every moment and period and quota their ratio, so that the right order
// depends on the values in force. The plan does not know them: it writes the first, tolerating EINVAL, then the second, then the
// first again, which is right for both orders.
func Update(l Layout, cgroupsPath string, r *specs.LinuxResources) ([]Step, error) {
	p, err := newPlanner(l, cgroupsPath, r)
	if err != nil {
		return nil, err
	}
	p.update = true
	if err := p.limits(); err != nil {
		return nil, err
	}
	return p.steps, nil
}

// planner collects the steps of one plan.
type planner struct {
	dirs     []Dir
	r        *specs.LinuxResources
	update   bool
	steps    []Step
	required []string // v2 controllers a limit needs
	// unifiedOnly: the hierarchy is the whole of it. On a hybrid machine its root belongs to somebody else, and only what a limit
	// needs is opened there.
	unifiedOnly bool
	ours        string // Layout.UnifiedOurs
}

func newPlanner(l Layout, cgroupsPath string, r *specs.LinuxResources) (*planner, error) {
	dirs, err := Dirs(l, cgroupsPath)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	return &planner{dirs: dirs, r: r, unifiedOnly: l.Mode == V2, ours: l.UnifiedOurs}, nil
}

func (p *planner) add(s Step) { p.steps = append(p.steps, s) }

// mkdirs makes a directory with its parents. On v1 a new cpuset has neither CPUs nor memory unless its parent's
// cgroup.clone_children is 1 (cpuset(7)), and nobody can join it. That is set on the parents that are made here alone: one that was
// there may be another engine's or systemd's. On v2 a controller exists in a directory when every ancestor's cgroup.subtree_control
// names it.
func (p *planner) mkdirs(d Dir) {
	const why = "linux.cgroupsPath"
	parent := d.Mount
	for _, dir := range d.Parents() {
		if d.V2 && (p.ours == "" || parent == p.ours || strings.HasPrefix(parent, p.ours+"/")) {
			p.delegate(d, parent)
		}
		mkdir := Step{Kind: Mkdir, Path: dir, Tolerate: []uint{eexist}, Why: why}
		if !d.V2 && d.Has("cpuset") && dir != d.Path { // the next container's copies are made by the kernel
			mkdir.Then = &Step{Kind: Write, Path: path.Join(dir, "cgroup.clone_children"), Value: "1", Why: why}
		}
		p.add(mkdir)
		if !d.V2 && d.Has("cpuset") {
			for _, file := range [...]string{"cpuset.cpus", "cpuset.mems"} {
				p.add(Step{Kind: Copy, Path: path.Join(dir, file), From: path.Join(parent, file), Why: why})
			}
		}
		parent = dir
	}
}

// delegate opens the controllers to the children of a v2 directory: those a limit needs in one write that must succeed, the others
// in one each, since one that can't be had (cpu with realtime tasks about, a cgroup with processes) would spoil the rest.
func (p *planner) delegate(d Dir, dir string) {
	file := path.Join(dir, "cgroup.subtree_control")
	var must []string
	for _, c := range d.Controllers {
		if contains(p.required, c) {
			must = append(must, "+"+c)
		}
	}
	if len(must) > 0 {
		p.add(Step{Kind: Write, Path: file, Value: strings.Join(must, " "), Why: "linux.resources"})
	}
	for _, c := range d.Controllers {
		if p.unifiedOnly && !contains(p.required, c) {
			p.add(Step{Kind: Write, Path: file, Value: d.opening(c), Tolerate: []uint{enoent, ebusy, einval, eopnotsupp},
				Why: "linux.cgroupsPath"})
		}
	}
}

// opening is how a controller is opened that threads may have apart. Alone, the kernel would open it even in a cgroup with processes, and
// make that the root of a threaded domain, below which no container can be; together with one that is for processes only it refuses.
func (d Dir) opening(controller string) string {
	switch controller {
	case "cpu", "cpuset", "pids", "perf_event":
		for _, whole := range [...]string{"memory", "io"} {
			if d.Has(whole) {
				return "+" + controller + " +" + whole
			}
		}
	}
	return "+" + controller
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// need returns the hierarchy that carries a controller, v1 before v2.
func (p *planner) need(controller, field string) (Dir, error) {
	for _, d := range p.dirs {
		if d.Has(controller) {
			if d.V2 && !contains(p.required, controller) {
				p.required = append(p.required, controller)
			}
			return d, nil
		}
	}
	return Dir{}, invalid("linux.resources.%s: the kernel offers no %s cgroup controller here; enable it or leave the limit out",
		field, controller)
}

// noV2 is the error for a field only v1 knows.
func noV2(field string) error {
	return invalid("linux.resources.%s: cgroup v2 has no such setting; leave it out", field)
}

// write plans one value for a file of d.
func (p *planner) write(d Dir, file, value, field string, tolerate ...uint) {
	p.add(Step{Kind: Write, Path: path.Join(d.Path, file), Value: value, Tolerate: tolerate, Why: "linux.resources." + field})
}

// writeOr plans a value for a file, and another for a second file should the kernel not have the first.
func (p *planner) writeOr(d Dir, file, value, file2, value2, field string) {
	why := "linux.resources." + field
	p.add(Step{Kind: Write, Path: path.Join(d.Path, file), Value: value, Why: why,
		Else: &Step{Kind: Write, Path: path.Join(d.Path, file2), Value: value2, Why: why}})
}

func (p *planner) limits() error {
	for _, part := range [...]func() error{p.cpu, p.cpuset, p.memory, p.pids, ioPlanner{p}.blockIO, p.hugepages, p.rdma, p.network, p.unified,
		p.devices} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) pids() error {
	if p.r.Pids == nil || p.r.Pids.Limit == nil {
		return nil
	}
	d, err := p.need("pids", "pids.limit")
	if err != nil {
		return err
	}
	value := "max"
	if n := *p.r.Pids.Limit; n >= 0 { // 0 lets nothing fork, as 1 does for one task; systemd knows no 0
		value = strconv.FormatInt(max(n, 1), 10)
	}
	p.write(d, "pids.max", value, "pids.limit")
	return nil
}

func (p *planner) hugepages() error {
	for i, h := range p.r.HugepageLimits {
		field := "hugepageLimits[" + strconv.Itoa(i) + "]"
		if !isName(h.Pagesize) {
			return invalid("linux.resources.%s.pageSize: %q is no page size; write it like 2MB", field, h.Pagesize)
		}
		d, err := p.need("hugetlb", field)
		if err != nil {
			return err
		}
		file, value := ".limit_in_bytes", strconv.FormatUint(h.Limit, 10)
		if d.V2 {
			file = ".max"
		}
		// The reservation limit (Linux 5.7) stops at mmap what the other one would punish with SIGBUS at the first access.
		p.write(d, "hugetlb."+h.Pagesize+".rsvd"+file, value, field, enoent)
		p.write(d, "hugetlb."+h.Pagesize+file, value, field)
	}
	return nil
}

func (p *planner) rdma() error {
	devices := make([]string, 0, len(p.r.Rdma))
	for dev := range p.r.Rdma {
		devices = append(devices, dev)
	}
	sort.Strings(devices)
	for _, dev := range devices {
		field := "rdma[" + dev + "]"
		if !isName(dev) {
			return invalid("linux.resources.rdma: %q is no device name", dev)
		}
		d, err := p.need("rdma", field)
		if err != nil {
			return err
		}
		value := dev
		if n := p.r.Rdma[dev].HcaHandles; n != nil {
			value += " hca_handle=" + strconv.FormatUint(uint64(*n), 10)
		}
		if n := p.r.Rdma[dev].HcaObjects; n != nil {
			value += " hca_object=" + strconv.FormatUint(uint64(*n), 10)
		}
		if value != dev {
			p.write(d, "rdma.max", value, field)
		}
	}
	return nil
}

func (p *planner) network() error {
	n := p.r.Network
	if n == nil {
		return nil
	}
	if n.ClassID != nil {
		d, err := p.need("net_cls", "network.classID")
		if err != nil {
			return err
		}
		p.write(d, "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10), "network.classID")
	}
	for i, prio := range n.Priorities {
		field := "network.priorities[" + strconv.Itoa(i) + "]"
		d, err := p.need("net_prio", field)
		if err != nil {
			return err
		}
		if !isName(prio.Name) {
			return invalid("linux.resources.%s.name: %q is no interface name", field, prio.Name)
		}
		p.write(d, "net_prio.ifpriomap", prio.Name+" "+strconv.FormatUint(uint64(prio.Priority), 10), field)
	}
	return nil
}

// unified passes v2 files on as they are written, but not those that would move processes or change what the hierarchy is.
func (p *planner) unified() error {
	files := make([]string, 0, len(p.r.Unified))
	for f := range p.r.Unified {
		files = append(files, f)
	}
	sort.Strings(files)
	for _, f := range files {
		field := "unified[" + f + "]"
		controller, _, dot := strings.Cut(f, ".")
		if !dot || !isName(f) {
			return invalid("linux.resources.unified: %q is no cgroup v2 file name", f)
		}
		switch f {
		case "cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control":
			return invalid("linux.resources.%s: this file is the runtime's own", field)
		}
		d, ok := p.unifiedDir()
		if !ok {
			return invalid("linux.resources.%s: no cgroup v2 hierarchy is mounted", field)
		}
		if controller != "cgroup" {
			if !d.Has(controller) {
				return invalid("linux.resources.%s: the v2 hierarchy has no %s controller", field, controller)
			}
			if _, err := p.need(controller, field); err != nil {
				return err
			}
			if !contains(p.required, controller) {
				p.required = append(p.required, controller)
			}
		}
		for _, line := range strings.Split(strings.TrimRight(p.r.Unified[f], "\n"), "\n") {
			p.write(d, f, line, field)
		}
	}
	return nil
}

func (p *planner) unifiedDir() (Dir, bool) {
	for _, d := range p.dirs {
		if d.V2 {
			return d, true
		}
	}
	return Dir{}, false
}

// isName reports whether s can be part of a file name or of one field of a line: no slash, blank or control character.
func isName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 255 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == '/' || c == 0x7f {
			return false
		}
	}
	return true
}
