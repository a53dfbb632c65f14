package compile

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// cgroups makes the container's cgroups and sets its limits in the host lane, and opens what the child joins them by.
func (c cgroupLane) cgroups() error {
	limits := DefaultRules(c.spec.Linux.Resources)
	dirs, err := c.in.CgroupDirs()
	if err != nil {
		return err
	}
	if c.in.Facts.Rootless {
		if limits, err = c.rootlessLimits(c.spec.Linux.Resources); err != nil || len(dirs) == 0 {
			return err
		}
	}
	steps, err := plan.Create(c.in.Facts.Cgroup, c.in.CgroupPath, limits)
	if err != nil {
		return err
	}
	if err := c.carryOut(steps, dirs); err != nil {
		return err
	}
	c.Why("linux.cgroupsPath")
	c.openCgroups(dirs)
	return nil
}

// unit is the host lane of a container whose cgroup systemd makes: around the child, which waits for it; then limits are set, and the
// child is moved in hierarchies of v1 that are not systemd's.
func (c cgroupLane) unit() error {
	unit, limits := c.in.Unit, DefaultRules(c.spec.Linux.Resources)
	dirs, err := c.in.CgroupDirs()
	if err == nil && c.in.Facts.Rootless {
		limits, err = c.rootlessLimits(c.spec.Linux.Resources)
	}
	if err != nil {
		return err
	}
	var steps []plan.Step
	if len(dirs) > 0 {
		if steps, err = plan.Within(c.in.Facts.Cgroup, unit, limits); err != nil {
			return err
		}
	}
	c.Lane(prog.Host)
	c.Why("linux.cgroupsPath")
	c.Emit(prog.Ins{Op: prog.Unit, Note: "StartTransientUnit " + unit.Name + " " + unit.Text()})
	if err := c.carryOut(steps, dirs); err != nil {
		return err
	}
	c.Lane(prog.Child)
	return nil
}

// carryOut turns the steps of a plan into instructions.
func (c cgroupLane) carryOut(steps []plan.Step, dirs []plan.Dir) error {
	//lint:ignore SA1019 the spec deprecates it; who sets it is told
	if r := c.spec.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Kernel != nil && *r.Memory.Kernel != 0 {
		c.Warn("linux.resources.memory.kernel: ignored, the kernel has no such limit since Linux 5.4; it counts kernel memory into memory.limit")
	}
	leaf := func(p string) bool { return slices.ContainsFunc(dirs, func(d plan.Dir) bool { return d.Path == p }) }
	w := cgroupWriter{c: c}
	var made prog.Label // bound behind the making of the hierarchy's last folder, while that is under way
	for _, s := range steps {
		c.Why(s.Why)
		if s.Kind != plan.Write || s.Else != nil {
			w.close()
		}
		switch s.Kind {
		case plan.Mkdir:
			if made == 0 && !leaf(s.Path) {
				made = c.tryLeaf(dirs, s.Path)
			}
			at := c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(0o755, "0755")).Tolerate(errnos(s.Tolerate)...)
			if s.Then != nil {
				there := c.Label()
				at.Else(there, u.EEXIST)
				c.writeFile(path.Base(s.Then.Path), 0, s.Then.Path, s.Then.Value)
				c.Bind(there)
			}
			if leaf(s.Path) {
				at.Undo(s.Path)
				if made != 0 {
					c.Bind(made)
					made = 0
				}
			}
		case plan.Write:
			w.write(s)
		case plan.Copy:
			c.copyFile(s)
		case plan.Devices:
			c.deviceProgram(s)
		case plan.Join:
			if c.in.Unit != nil { // else joined below, all at once
				fd, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(u.O_WRONLY|u.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
				c.Emit(prog.Ins{Op: prog.WritePid, Args: [6]prog.Arg{prog.R(fd)}, Note: "move the child"})
				c.Call("", prog.SysClose, prog.R(fd))
			}
		default:
			return unsupported(s.Why + " (" + s.Kind.String() + ")")
		}
	}
	w.close()
	c.own(dirs)
	return nil
}

// tryLeaf makes a v1 hierarchy's folder at once where its parents exist, as they mostly do, and returns the label to bind behind the
// steps that make them otherwise. Those are needed too where another start has made a cpuset and not yet filled it (its memory comes
// last). On v2 parents also have controllers to pass on: it returns no label.
func (c cgroupLane) tryLeaf(dirs []plan.Dir, parent string) prog.Label {
	for _, d := range dirs {
		if !strings.HasPrefix(d.Path, parent+"/") || d.V2 {
			continue
		}
		parents, made := c.Label(), c.Label()
		if d.Has("cpuset") {
			c.filled(path.Dir(d.Path)+"/cpuset.mems", parents)
		}
		c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(d.Path), prog.Imm(0o755, "0755")).Else(parents, u.ENOENT, u.EEXIST).Undo(d.Path)
		c.Jump(made)
		c.Bind(parents)
		return made
	}
	return 0
}

// filled goes on where a file exists and holds more than an empty line, else to the label.
func (c cgroupLane) filled(file string, otherwise prog.Label) {
	full, first := c.Label(), c.Bytes(make([]byte, 4), "&first")
	fd, at := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(file), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	at.Else(otherwise, u.ENOENT)
	c.Call("", prog.SysRead, prog.R(fd), first, prog.Imm(4))
	c.Call("", prog.SysClose, prog.R(fd))
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{first, prog.Imm(0), prog.Imm('\n'), prog.Imm(0xff)}, Note: "still empty"}).Otherwise(full)
	c.Jump(otherwise)
	c.Bind(full)
}

// openCgroups opens what the child joins its cgroups by. Moving a process (cgroup.procs) takes a lock of the kernel's whose first holder
// waits for an RCU grace period, 5 to 20 ms; a thread that moves itself (tasks, v1) and a child born in its cgroup (clone3, v2) do not.
func (c *compiler) openCgroups(dirs []plan.Dir) {
	for _, d := range dirs {
		file, flags, text := "/tasks", int64(u.O_WRONLY|u.O_CLOEXEC), "O_WRONLY|O_CLOEXEC"
		switch {
		case d.V2 && c.in.Facts.Clone3:
			file, flags, text = "", pathFlags, pathText
		case d.V2:
			file = "/cgroup.procs"
		}
		fd, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(d.Path+file), prog.Imm(flags, text))
		if file == "" {
			c.into = fd
			continue
		}
		c.tasks = append(c.tasks, fd)
		c.keep = append(c.keep, fd)
	}
}

// DefaultRules appends the device rules that every container needs and every runtime adds: making nodes (inert without the right to
// open them), the default devices, terminals.
func DefaultRules(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil || len(r.Devices) == 0 {
		return r
	}
	out := *r
	out.Devices = slices.Clone(r.Devices)
	add := func(kind string, major, minor int64, access string) {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			rule.Major = &major
		}
		if minor >= 0 {
			rule.Minor = &minor
		}
		out.Devices = append(out.Devices, rule)
	}
	add("c", -1, -1, "m")
	add("b", -1, -1, "m")
	for _, d := range defaultDevices() {
		add(d.Type, d.Major, d.Minor, "rwm")
	}
	add("c", 136, -1, "rwm") // /dev/pts/*
	add("c", 5, 2, "rwm")    // /dev/ptmx
	return &out
}

// enterCgroups has the child join the cgroups that were made for it, or wait until systemd has put it into one.
func (c entry) enterCgroups() error {
	if c.in.Unit != nil {
		return cgroupLane(c).unit()
	}
	c.joinCgroups()
	return nil
}

// joinCgroups is the child's half: writing 0 moves the writer (cgroups(7)).
func (c *compiler) joinCgroups() {
	c.Why("linux.cgroupsPath")
	zero := prog.Arg{}
	for i, fd := range c.tasks {
		if i == 0 {
			zero = c.Bytes([]byte("0"), `"0"`)
		}
		c.Call("join the cgroup", prog.SysWrite, prog.R(fd), zero, prog.Imm(1))
	}
	for _, fd := range c.groups {
		c.Why("linux.intelRdt")
		c.Call("join the group", prog.SysWrite, prog.R(fd), c.Bytes([]byte("0"), `"0"`), prog.Imm(1))
	}
}

func errnos(list []uint) []u.Errno {
	out := make([]u.Errno, len(list))
	for i, e := range list {
		out[i] = u.Errno(e)
	}
	return out
}

// cgroupWriter keeps a file open over consecutive writes to it.
type cgroupWriter struct {
	c    cgroupLane
	path string
	fd   prog.Reg
}

func (w *cgroupWriter) close() {
	if w.fd != 0 {
		w.c.Call("", prog.SysClose, prog.R(w.fd))
		w.fd, w.path = 0, ""
	}
}

func (w *cgroupWriter) write(s plan.Step) {
	c := w.c
	if len(s.Tolerate) > 0 || s.Else != nil {
		w.close()
		w.alternatives(s)
		return
	}
	if w.path != s.Path {
		w.close()
		w.fd, _ = c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(u.O_WRONLY|u.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
		w.path = s.Path
	}
	c.Call(path.Base(s.Path), prog.SysWrite, prog.R(w.fd), c.Bytes([]byte(s.Value), strconv.Quote(s.Value)), prog.Imm(int64(len(s.Value))))
}

// alternatives writes to the first file that exists.
func (w *cgroupWriter) alternatives(s plan.Step) {
	c := w.c
	if s.Else == nil {
		c.writeFile(path.Base(s.Path), 0, s.Path, s.Value, errnos(s.Tolerate)...)
		return
	}
	other, done := c.Label(), c.Label()
	fd, at := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(u.O_WRONLY|u.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
	at.Else(other, u.ENOENT)
	c.Call(path.Base(s.Path), prog.SysWrite, prog.R(fd), c.Bytes([]byte(s.Value), strconv.Quote(s.Value)), prog.Imm(int64(len(s.Value)))).Tolerate(errnos(s.Tolerate)...)
	c.Call("", prog.SysClose, prog.R(fd))
	c.Jump(done)
	c.Bind(other)
	w.alternatives(*s.Else)
	c.Bind(done)
}

// copyFile fills an empty file from another one: a new v1 cpuset has no CPUs.
func (c cgroupLane) copyFile(s plan.Step) {
	const most = 4096
	done := c.Label()
	old := c.Bytes(make([]byte, 4), "&first")
	to, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(u.O_RDWR|u.O_CLOEXEC, "O_RDWR|O_CLOEXEC"))
	c.Call("", prog.SysRead, prog.R(to), old, prog.Imm(4))
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{old, prog.Imm(0), prog.Imm('\n'), prog.Imm(0xff)}, Note: "still empty"}).Otherwise(done)
	from, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.From), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	text := c.Bytes(make([]byte, most), "&value")
	n, _ := c.CallR("", prog.SysRead, prog.R(from), text, prog.Imm(most))
	c.Call("", prog.SysClose, prog.R(from))
	c.Call("", prog.SysWrite, prog.R(to), text, prog.R(n))
	c.Bind(done)
	c.Call("", prog.SysClose, prog.R(to))
}

// deviceProgram loads and attaches the eBPF program that decides about devices on cgroup v2 (bpf(2)).
func (c cgroupLane) deviceProgram(s plan.Step) {
	const progLoad, progAttach, typeCgroupDevice, attachDevice, allowMulti = 5, 8, 15, 6, 2
	insns, license := c.Bytes(s.Program, ""), c.Str("Apache-2.0")
	load := c.Pointers(append(prog.U32(typeCgroupDevice, uint32(len(s.Program)/8)), deviceProgramName()...), []int{8, 16},
		[]prog.Arg{insns, license}, "{CGROUP_DEVICE, "+strconv.Itoa(len(s.Program)/8)+" instructions}")
	fd, _ := c.CallR("device rules", prog.SysBpf, prog.Imm(progLoad, "PROG_LOAD"), load, prog.Imm(64))
	dir, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(s.Path), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	attach := c.Bytes(prog.U32(0, 0, attachDevice, allowMulti), "{CGROUP_DEVICE}")
	c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(dir), attach, prog.Imm(0)}})
	c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(fd), attach, prog.Imm(4)}})
	c.Call("", prog.SysBpf, prog.Imm(progAttach, "PROG_ATTACH"), attach, prog.Imm(16))
	c.Call("", prog.SysClose, prog.R(dir))
	c.Call("", prog.SysClose, prog.R(fd))
}

// deviceProgramName is the rest of the load's attributes: nothing, then at offset 48 the name by which an update knows the program again.
func deviceProgramName() []byte {
	rest := prog.U64(0, 0, 0, 0, 0, 0, 0)
	copy(rest[40:], plan.DeviceProgramName)
	return rest
}

// cgroupMount shows the container its own cgroups: on v2 the one hierarchy, on v1 a tmpfs with one folder a hierarchy.
func (c mounter) cgroupMount(m *specs.Mount, o options) error {
	l := c.in.Facts.Cgroup
	if c.in.noCgroups() {
		c.mountNoCgroups(m, o)
		return nil
	}
	if l.Mode == plan.V2 {
		return c.mountCgroup2(m, o)
	}
	if c.ns.fresh&u.CLONE_NEWCGROUP == 0 {
		return c.bindCgroups(m, o)
	}
	fs := c.fsopen("cgroup hierarchies on "+m.Destination, "tmpfs")
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", "tmpfs", 0)
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "mode", "755", 0)
	labeller(c).context(fs, nil)
	top := c.fsmount("", fs, o.set&^u.MOUNT_ATTR_RDONLY)
	c.attach(m, top)
	// mount(2) takes one call where the calls above take six, and there are many hierarchies. Its target is a name in the tmpfs that was
	// just made and that we stand in: nothing of the container's is resolved. The four flags have the same values in both interfaces.
	flags := int64(o.set & (u.MS_RDONLY | u.MS_NOSUID | u.MS_NODEV | u.MS_NOEXEC))
	c.stand(top)
	mount := func(kind, name, data string) {
		c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(name), prog.Imm(0o755, "0755"))
		c.Call(name, prog.SysMount, c.Str(kind), c.Str(name), c.Str(kind), prog.Imm(flags, attrText(uint64(flags))), c.Str(data))
	}
	for _, h := range l.Controllers {
		name, data := hierarchyName(h), strings.Join(h.Names, ",")
		if strings.Contains(data, "=") {
			data = "none," + data
		}
		mount("cgroup", name, data)
		for _, n := range h.Names {
			if n != name && !strings.Contains(n, "=") && len(h.Names) > 1 {
				c.Call("", prog.SysSymlinkat, c.Str(name), prog.R(top), c.Str(n))
			}
		}
	}
	if l.Unified != "" {
		mount("cgroup2", "unified", "")
	}
	if o.set&u.MOUNT_ATTR_RDONLY != 0 {
		c.setAttr(top, false, u.MOUNT_ATTR_RDONLY, 0, 0)
	}
	return nil
}

func hierarchyName(h plan.Controller) string {
	if len(h.Names) == 1 {
		return strings.TrimPrefix(h.Names[0], "name=")
	}
	return strings.Join(h.Names, ",")
}

func (c mounter) mountCgroup2(m *specs.Mount, o options) error {
	if c.ns.fresh&u.CLONE_NEWCGROUP == 0 {
		return c.bindCgroups(m, o)
	}
	fd := c.fsmount("cgroup hierarchy on "+m.Destination, c.fsopen("", "cgroup2"), o.set)
	c.attach(m, fd)
	return nil
}

// bindCgroups serves containers that share a cgroup namespace: they see their own folders only, by binds.
func (c mounter) bindCgroups(m *specs.Mount, o options) error {
	dirs, err := plan.Dirs(c.in.Facts.Cgroup, c.in.CgroupPath)
	if err != nil {
		return err
	}
	if c.in.Facts.Cgroup.Mode == plan.V2 {
		fd, _ := c.openTree("its own cgroup", 0, dirs[0].Path, false)
		c.setAttr(fd, false, o.set, 0, 0)
		c.attach(m, fd)
		return nil
	}
	fs := c.fsopen("", "tmpfs")
	labeller(c).context(fs, nil)
	top := c.fsmount("cgroup hierarchies on "+m.Destination, fs, o.set&^u.MOUNT_ATTR_RDONLY)
	c.attach(m, top)
	for _, d := range dirs {
		name := "unified"
		if !d.V2 {
			name = hierarchyName(plan.Controller{Names: d.Controllers})
		}
		c.Call("", prog.SysMkdirat, prog.R(top), c.Str(name), prog.Imm(0o755, "0755"))
		fd, _ := c.openTree("its own cgroup", 0, d.Path, false)
		c.setAttr(fd, false, o.set, 0, 0)
		c.Call("", prog.SysMoveMount, prog.R(fd), c.Str(""), prog.R(top), c.Str(name), prog.Imm(u.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
	}
	if o.set&u.MOUNT_ATTR_RDONLY != 0 {
		c.setAttr(top, false, u.MOUNT_ATTR_RDONLY, 0, 0)
	}
	return nil
}
