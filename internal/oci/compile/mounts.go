package compile

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// mounts emits config.json's mounts in their order.
func (c mounter) mounts() error {
	c.wanted = map[string]bool{"/dev": true}
	for i := range c.spec.Mounts {
		if m := &c.spec.Mounts[i]; slices.Contains(m.Options, "remount") {
			c.wanted[path.Clean("/"+m.Destination)] = true
		}
	}
	for i := range c.spec.Mounts {
		m, name := &c.spec.Mounts[i], field("mounts", i, "")
		c.Why(name)
		if m.Destination == "" {
			return invalid(name+".destination", "is empty")
		}
		if err := plainString(name, append([]string{m.Destination, m.Source, m.Type}, m.Options...)...); err != nil {
			return err
		}
		o, err := parseOptions(m.Options)
		if err != nil {
			return invalid(name+".options", "%w", err)
		}
		if (o.set|o.rset)&u.MOUNT_ATTR_NOSYMFOLLOW != 0 && !c.in.Facts.atLeast(5, 14) {
			return c.tooOld(name+".options: nosymfollow", 5, 14)
		}
		if !o.remount && path.Clean("/"+m.Destination) == "/" {
			return invalid(name+".destination", "%q is the root file system itself, which root.path names", m.Destination)
		}
		if isBind(m, &o) {
			err = binder(c).bindMount(name, i, o)
		} else {
			err = c.mount(name, m, o)
		}
		if err != nil {
			return err
		}
		c.noteDev(m, &o)
	}
	return nil
}

func (c mounter) mount(name string, m *specs.Mount, o options) error {
	o.set, o.clear = o.set|o.rset, o.clear|o.rclear // a new file system has no mounts below
	switch {
	case o.remount:
		return c.remount(name, m, o)
	case o.copyUp && m.Type != "tmpfs":
		return invalid(name+".options", "tmpcopyup is tmpfs'")
	case m.Type == "cgroup" || m.Type == "cgroup2":
		if len(o.data) > 0 {
			return invalid(name+".options", "%q is no option of a cgroup mount", o.data[0])
		}
		return c.cgroupMount(m, o)
	case m.Type != "proc" && insideProc(m.Destination):
		return errOverProc(name, m.Destination)
	case m.Type == "" || m.Type == "none":
		return invalid(name+".type", "%q is no file system, and no bind option is given", m.Type)
	}
	if c.belowNewDev(m, &o) {
		return nil
	}
	now := o.set
	late := o.set&u.MOUNT_ATTR_RDONLY != 0 && (m.Type == "tmpfs" || path.Clean("/"+m.Destination) == "/dev")
	if late { // folders, devices and mounts are still to come into it
		now &^= u.MOUNT_ATTR_RDONLY
	}
	newMount := c.newMount
	if o.classic() {
		newMount = c.classic
	}
	fd := newMount(m, o, now)
	target, mode := c.cover(m, o, fd)
	if m.Type != "proc" && !overProc(m.Destination) {
		binder(c).expectNotProc(m.Destination, target)
	}
	c.move(fd, target)
	c.mounted(m, fd)
	if mode != 0 {
		c.Call("as the folder below", prog.SysFchmodat, prog.R(fd), c.Str("."), prog.R(mode))
	}
	if o.propagation != 0 {
		c.setAttr(fd, o.recursive, 0, 0, o.propagation)
	}
	letGo(c.compiler, len(c.spec.Mounts), target)
	switch {
	case late:
		c.late = append(c.late, fd)
	case !c.wanted[path.Clean("/"+m.Destination)]:
		letGo(c.compiler, len(c.spec.Mounts), fd)
	}
	return nil
}

// newMount makes a file system and a mount of it. In a user namespace that does not own the network namespace sysfs cannot be mounted
// (sysfs is its view of network devices); then the host's is bound.
func (c mounter) newMount(m *specs.Mount, o options, attr uint64) prog.Reg {
	bound, done := c.Label(), c.Label()
	fallback := m.Type == "sysfs" && (c.ns.user || c.ns.enters || c.in.Facts.Nested)
	fs, at := c.CallR("mount "+m.Type+" on "+m.Destination, prog.SysFsopen, c.Str(m.Type), prog.Imm(u.FSOPEN_CLOEXEC, "CLOEXEC"))
	if fallback {
		at.Else(bound, u.EPERM)
	}
	if m.Source != "" {
		c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", m.Source, 0)
	}
	c.configure(fs, o)
	switch m.Type {
	case "proc", "sysfs", "mqueue": // labelled by the policy, or below
	default:
		labeller(c).context(fs, o.data)
	}
	fd := c.fsmount("", fs, attr)
	letGo(c.compiler, len(c.spec.Mounts), fs)
	if m.Type == "mqueue" {
		labeller(c).folder(fd)
	}
	if fallback {
		c.Jump(done)
		c.Bind(bound)
		_, at := c.openTree("bind the host's /sys instead", 0, "/sys", true)
		at.To(fd)
		c.setAttr(fd, true, attr, 0, 0)
		c.Bind(done)
	}
	return fd
}

// configure passes options to a file system: those of every one by their names, then its own.
func (c mounter) configure(fs prog.Reg, o options) {
	for _, f := range superFlags() {
		if o.super&f.Bit != 0 && !f.Old {
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, f.Name, "", 0)
		}
	}
	for _, d := range o.data {
		if k, v, ok := strings.Cut(d, "="); ok {
			c.fsconfig(fs, u.FSCONFIG_SET_STRING, k, contextValue(k, v), 0)
		} else {
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, d, "", 0)
		}
	}
}

// cover returns the folder to be mounted on, and for a tmpfs whose options do not tell its mode a register with the one of that folder: a
// /tmp that everybody may write to should stay one. With tmpcopyup what the folder holds is copied before it is covered.
func (c mounter) cover(m *specs.Mount, o options, fd prog.Reg) (target, mode prog.Reg) {
	told := slices.ContainsFunc(o.data, func(d string) bool { return strings.HasPrefix(d, "mode=") })
	if m.Type != "tmpfs" || told && !o.copyUp {
		return c.ensure(m.Destination, true), 0
	}
	const anybody = 0o1777 // the kernel's own, for a folder that had to be made
	stat := make([]byte, statxSize)
	stat[statxMode], stat[statxMode+1] = anybody&0xff, anybody>>8
	covered := c.Bytes(stat, "&statx")
	target = c.ensureThen(m.Destination, true, func(found prog.Reg) {
		c.statx(found, "", covered)
		if o.copyUp {
			c.copyUp(m.Destination, fd)
		}
	})
	if told {
		return target, 0
	}
	mode = c.Reg()
	c.Emit(prog.Ins{Op: prog.Load, Args: [6]prog.Arg{covered, prog.Imm(statxMode)}, Out: mode})
	return target, mode
}

// copyUp has the host lane copy a folder of the root file system into a mount that nobody sees yet.
func (c mounter) copyUp(dest string, fd prog.Reg) {
	from, _ := c.openIn("", c.root, dest, u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC")
	to, _ := c.CallR("", prog.SysOpenat, prog.R(fd), c.Str("."), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	c.sendFiles(c.copy[1], from, to)
	c.Lane(prog.Host)
	c.Emit(prog.Ins{Op: prog.CopyUp, Args: [6]prog.Arg{prog.R(c.copy[0])}, Note: "copy what " + dest + " holds"})
	c.Lane(prog.Child)
	c.Call("", prog.SysClose, prog.R(from))
	c.Call("", prog.SysClose, prog.R(to))
}

// classic makes a mount by mount(2), for what the newer calls cannot say: two flags, and values of 256 bytes and more. It needs a place to
// be taken from: a folder over the root that nobody else sees, so that no name of the container's is resolved.
func (c mounter) classic(m *specs.Mount, o options, attr uint64) prog.Reg {
	place := c.fsmount("a place nobody else sees", c.fsopen("", "tmpfs"), 0)
	c.move(place, c.root)
	c.stand(place)
	c.Call("", prog.SysMkdirat, prog.R(place), c.Str("m"), prog.Imm(0o700, "0700"))
	labelled := slices.ContainsFunc(o.data, func(d string) bool { return strings.HasPrefix(d, "context=") })
	if l := mountLabel(c.compiler); l != "" && !labelled && m.Type != "proc" && m.Type != "sysfs" && m.Type != "mqueue" {
		o.data = append(o.data, `context="`+l+`"`)
	}
	c.mountHere(m, &o, attr, "m")
	fd, _ := c.openTree("", place, "m", false)
	c.Call("", prog.SysUmount2, c.Str("."), prog.Imm(u.MNT_DETACH, "MNT_DETACH"))
	return fd
}

// mountHere makes a mount on a name in the folder where we stand.
func (c mounter) mountHere(m *specs.Mount, o *options, attr uint64, name string) {
	flags := int64(o.super | mountFlags(attr))
	c.Call("mount "+m.Type+" on "+m.Destination, prog.SysMount, c.Str(m.Source), c.Str(name), c.Str(m.Type), prog.Imm(flags, mountText(uint64(flags))),
		c.Str(strings.Join(o.data, ",")))
}

// attach moves a detached mount of a folder to its destination, making the path where it is missing.
func (c mounter) attach(m *specs.Mount, fd prog.Reg) {
	c.move(fd, c.ensure(m.Destination, true))
	c.mounted(m, fd)
}

// mounted notes what was mounted for a destination, for those who change it later. What it covers is out of sight.
func (c *compiler) mounted(m *specs.Mount, fd prog.Reg) {
	dest := path.Clean("/" + m.Destination)
	for d := range c.placed {
		if dest == "/" || strings.HasPrefix(d, dest+"/") {
			delete(c.placed, d)
		}
	}
	if c.wanted[dest] {
		c.placed[dest] = fd
	}
}

// remount changes a mount that is there: what is the mount's own by mount_setattr(2), with bind nothing else, the rest by telling the file
// system (fspick(2)). What the options do not name stays. A mount of the config's is known by its handle; another one is looked up, through
// no link, and its file system, which may be the host's, stays as it is.
func (c mounter) remount(name string, m *specs.Mount, o options) error {
	dest := path.Clean("/" + m.Destination)
	target := c.placed[dest]
	if dest == "/" {
		target = c.root
	}
	super := !o.bind && (len(o.data) > 0 || o.super|o.superClear != 0 || (o.set|o.clear)&u.MOUNT_ATTR_RDONLY != 0)
	switch {
	case target != 0:
	case super:
		return invalid(name+".options", "remount without bind changes the file system itself, and no mount before this one is at %s", dest)
	default:
		how := c.Bytes(prog.U64(pathFlags, 0, inRoot|u.RESOLVE_NO_SYMLINKS), "{"+pathText+", "+inRootText+"|NO_SYMLINKS}")
		target, _ = c.CallR("remount "+dest, prog.SysOpenat2, prog.R(c.root), c.Str(rel(dest)), how, prog.Imm(24))
	}
	if super {
		fs, _ := c.CallR("remount "+dest, prog.SysFspick, prog.R(target), c.Str(""), prog.Imm(u.FSPICK_CLOEXEC|u.FSPICK_EMPTY_PATH, "CLOEXEC|EMPTY_PATH"))
		switch {
		case o.set&u.MOUNT_ATTR_RDONLY != 0:
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "ro", "", 0)
		case o.clear&u.MOUNT_ATTR_RDONLY != 0:
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "rw", "", 0)
		}
		for _, f := range superFlags() {
			if o.superClear&f.Bit != 0 && !f.Old {
				c.fsconfig(fs, u.FSCONFIG_SET_FLAG, f.Off, "", 0)
			}
		}
		c.configure(fs, o)
		c.Call("", prog.SysFsconfig, prog.R(fs), prog.Imm(u.FSCONFIG_CMD_RECONFIGURE, "CMD_RECONFIGURE"), prog.Imm(0), prog.Imm(0), prog.Imm(0))
		c.Call("", prog.SysClose, prog.R(fs))
	}
	if o.set|o.clear != 0 {
		c.setAttr(target, o.rset|o.rclear != 0, o.set, o.clear, 0)
	}
	if o.propagation != 0 {
		c.setAttr(target, o.recursive, 0, 0, o.propagation)
	}
	return nil
}
