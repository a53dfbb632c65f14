package compile

import (
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// rootfs makes the container's root a mount of its own and leaves a handle to it in c.root.
func (c mounter) rootfs() error {
	c.Why("linux.rootfsPropagation")
	prop, text := int64(u.MS_REC|u.MS_SLAVE), "MS_REC|MS_SLAVE"
	switch c.spec.Linux.RootfsPropagation {
	case "", "slave", "rslave":
	case "private", "rprivate":
		prop, text = u.MS_REC|u.MS_PRIVATE, "MS_REC|MS_PRIVATE"
	case "shared", "rshared", "unbindable", "runbindable":
		return unsupported("linux.rootfsPropagation: " + c.spec.Linux.RootfsPropagation)
	default:
		return invalid("linux.rootfsPropagation", "unknown mode %q", c.spec.Linux.RootfsPropagation)
	}
	c.Call("what we mount stays here", prog.SysMount, prog.Imm(0), c.Str("/"), prog.Imm(0), prog.Imm(prop, text), prog.Imm(0))
	if c.in.Rootfs != nil {
		return c.overlay()
	}
	dir := c.spec.Root.Path
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(c.in.Bundle, dir)
	}
	c.Why("root.path")
	at, _ := c.CallR("root file system", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(dir), prog.Imm(pathFlags, pathText))
	c.root, _ = c.openTree("a mount of its own", at, "", true)
	c.setAttr(c.root, true, 0, 0, u.MS_PRIVATE)
	c.move(c.root, at)
	return nil
}

// overlay mounts the layers and, over them, the writable layer (overlayfs, Documentation/filesystems/overlayfs.rst).
func (c mounter) overlay() error {
	r := c.in.Rootfs
	c.Why("rootfs.json")
	if !c.in.Facts.atLeast(6, 15) { // detached layers in overlayfs; before that each needs a place
		return c.overlayByPath()
	}
	var lower []prog.Reg
	for i, l := range r.Lower {
		fd, err := c.layer(i, l)
		if err != nil {
			return err
		}
		lower = append(lower, fd)
	}
	fs := c.fsopen("root file system", "overlay")
	for _, fd := range lower {
		c.fsconfig(fs, u.FSCONFIG_SET_FD, "lowerdir+", "", fd)
	}
	for _, p := range [][2]string{{"upperdir", r.Upper}, {"workdir", r.Work}} {
		if p[1] != "" {
			fd, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(p[1]), prog.Imm(pathFlags, pathText))
			c.fsconfig(fs, u.FSCONFIG_SET_FD, p[0], "", fd)
		}
	}
	if r.Volatile && r.Upper != "" {
		c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "volatile", "", 0)
	}
	labeller{c.compiler}.context(fs, nil)
	c.root = c.fsmount("", fs, 0)
	c.attachAt(c.root, r.Scratch)
	return nil
}

func (c mounter) layer(i int, l bundle.Layer) (prog.Reg, error) {
	note := "layer " + strconv.Itoa(i)
	switch l.Type {
	case "dir":
		fd, _ := c.openTree(note, 0, l.Source, false)
		return fd, nil
	case "erofs":
		if l.Loop {
			return 0, unsupported("an EROFS layer through a loop device (rootfs.json: lower[" + strconv.Itoa(i) + "].loop)")
		}
		fs := c.fsopen(note, "erofs")
		c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", l.Source, 0)
		for _, d := range l.Devices {
			c.fsconfig(fs, u.FSCONFIG_SET_STRING, "device", d, 0)
		}
		if l.Direct && c.in.Facts.atLeast(6, 13) {
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "directio", "", 0)
		}
		return c.fsmount(note, fs, u.MOUNT_ATTR_RDONLY), nil
	}
	return 0, invalid(field("rootfs.json: lower", i, ".type"), "%q is neither dir nor erofs", l.Type)
}

// overlayByPath serves kernels before 6.15: the layers are attached below a tmpfs of our own on the scratch folder.
func (c mounter) overlayByPath() error {
	r := c.in.Rootfs
	if len(r.Lower) == 0 {
		return invalid("rootfs.json: lower", "at least one layer is needed before Linux 6.15")
	}
	var lower []string
	c.Call("a place for the layers", prog.SysMount, c.Str("tmpfs"), c.Str(r.Scratch), c.Str("tmpfs"), prog.Imm(0), c.Str("mode=700,size=1m"))
	for i, l := range r.Lower {
		if l.Type == "dir" {
			lower = append(lower, l.Source)
			continue
		}
		fd, err := c.layer(i, l)
		if err != nil {
			return err
		}
		p := r.Scratch + "/" + strconv.Itoa(i)
		c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(p), prog.Imm(0o700, "0700"))
		c.attachAt(fd, p)
		lower = append(lower, p)
	}
	esc := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	for i := range lower {
		lower[i] = esc.Replace(lower[i])
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if r.Upper != "" {
		data += ",upperdir=" + esc.Replace(r.Upper) + ",workdir=" + esc.Replace(r.Work)
		if r.Volatile {
			data += ",volatile"
		}
	}
	if l := c.spec.Linux.MountLabel; l != "" {
		data += `,context="` + l + `"`
	}
	if len(data) >= 4096 {
		return invalid("rootfs.json: lower", "%d layers do not fit into the 4096 bytes that mount(2) takes on this kernel", len(lower))
	}
	at := r.Scratch + "/root"
	c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(at), prog.Imm(0o700, "0700"))
	c.Call("root file system", prog.SysMount, c.Str("overlay"), c.Str(at), c.Str("overlay"), prog.Imm(0), c.Str(data))
	c.root, _ = c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(at), prog.Imm(pathFlags, pathText))
	return nil
}

// mounts emits config.json's mounts in their order.
func (c mounter) mounts() error {
	for i, m := range c.spec.Mounts {
		name := field("mounts", i, "")
		c.Why(name)
		if !strings.HasPrefix(m.Destination, "/") && m.Destination == "" {
			return invalid(name+".destination", "is empty")
		}
		if err := plainString(name, m.Destination, m.Source, m.Type); err != nil {
			return err
		}
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return unsupported(name + ".uidMappings")
		}
		o, err := parseOptions(m.Options)
		if err != nil {
			return unsupported(name + ".options: " + err.Error())
		}
		if err := c.mount(name, m, o); err != nil {
			return err
		}
	}
	return nil
}

func (c mounter) mount(name string, m specs.Mount, o options) error {
	switch {
	case o.bind || m.Type == "bind":
		return c.bindMount(name, m, o)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupMount(m, o)
	case m.Type != "proc" && insideProc(m.Destination):
		return errOverProc(name, m.Destination)
	case m.Type == "":
		return invalid(name+".type", "is empty and no bind option is given")
	}
	fs := c.fsopen("mount "+m.Type+" on "+m.Destination, m.Type)
	if m.Source != "" {
		c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", m.Source, 0)
	}
	for _, d := range o.data {
		if k, v, ok := strings.Cut(d, "="); ok {
			c.fsconfig(fs, u.FSCONFIG_SET_STRING, k, contextValue(k, v), 0)
		} else {
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, d, "", 0)
		}
	}
	switch m.Type {
	case "proc", "sysfs", "mqueue": // labelled by the policy, or below
	default:
		labeller{c.compiler}.context(fs, o.data)
	}
	fd := c.fsmount("", fs, o.set)
	if m.Type == "mqueue" {
		labeller{c.compiler}.folder(fd)
	}
	if o.propagation != 0 {
		c.setAttr(fd, o.recursive, 0, 0, o.propagation)
	}
	c.attach(m.Destination, fd, true)
	return nil
}

func (c mounter) bindMount(name string, m specs.Mount, o options) error {
	src := m.Source
	if src == "" {
		return invalid(name+".source", "is empty")
	}
	if !filepath.IsAbs(src) {
		src = filepath.Join(c.in.Bundle, src)
	}
	what, ok := c.in.Facts.Sources[src]
	if !ok {
		return invalid(name+".source", "%s: no such file or directory", src)
	}
	if o.propagation == u.MS_SHARED { // our mount namespace is a slave of the host's: nothing would come back out
		return unsupported(name + ".options: shared propagation of a bind mount")
	}
	if !what.Proc && insideProc(m.Destination) {
		return errOverProc(name, m.Destination)
	}
	fd, _ := c.openTree("bind "+src+" to "+m.Destination, 0, src, o.rbind || !o.bind)
	if o.rset|o.rclear != 0 {
		c.setAttr(fd, true, o.rset, o.rclear, 0)
	}
	if o.set|o.clear != 0 {
		c.setAttr(fd, false, o.set, o.clear, 0)
	}
	if o.propagation != 0 {
		c.setAttr(fd, o.recursive, 0, 0, o.propagation)
	}
	target := c.ensure(m.Destination, what.Dir)
	if !what.Proc && !overProc(m.Destination) {
		c.expectNotProc(m.Destination, target)
	}
	c.move(fd, target)
	return nil
}

func insideProc(dest string) bool {
	return strings.HasPrefix(path.Clean("/"+dest)+"/", "/proc/") && !overProc(dest)
}

func errOverProc(name, dest string) error {
	return invalid(name+".destination", "%s lies inside the container's /proc, which nothing may cover", dest)
}

// overProc lists the files of /proc that may be covered: they only tell something, and lxcfs gives containers their own.
func overProc(dest string) bool {
	switch path.Clean("/" + dest) {
	case "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
		"/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled":
		return true
	}
	return false
}

// expectNotProc fails the program when a mount would cover procfs, by its name or by a symbolic link of the image's: what is masked and
// read-only there would come back, and writes meant for the kernel would go into a file of the container's.
func (c mounter) expectNotProc(dest string, target prog.Reg) {
	ok := c.Label()
	st := c.Bytes(make([]byte, 120), "&statfs")
	c.Call("", prog.SysFstatfs, prog.R(target), st)
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(0), prog.Imm(u.PROC_SUPER_MAGIC, "PROC_SUPER_MAGIC"), prog.Imm(0xffffffff)}}).Otherwise(ok)
	c.Emit(prog.Ins{Op: prog.Fail, Errno: u.EPERM, Note: dest + " lies inside the container's /proc, which nothing may cover"})
	c.Bind(ok)
}

// pivot makes c.root the root (pivot_root(2), the "." "." form) and lets go of the old one.
func (c *compiler) pivot() error {
	c.Why("root")
	c.Call("", prog.SysFchdir, prog.R(c.root))
	c.Call("the old root is now mounted over the new one", prog.SysPivotRoot, c.Str("."), c.Str("."))
	c.Call("take it off", prog.SysUmount2, c.Str("."), prog.Imm(u.MNT_DETACH, "MNT_DETACH"))
	c.Call("", prog.SysChdir, c.Str("/"))
	return nil
}

// maskedPaths hides files behind /dev/null and folders behind one empty read-only tmpfs.
func (c mounter) maskedPaths() error {
	if len(c.spec.Linux.MaskedPaths) == 0 {
		return nil
	}
	c.Why("linux.maskedPaths")
	null := c.verifiedNull()
	shared := c.in.Facts.atLeast(6, 15) // open_tree(2) clones a detached mount; before that each folder gets a file system of its own
	empty := prog.Reg(0)
	if shared {
		empty = c.emptyFolder()
	}
	for i, p := range c.spec.Linux.MaskedPaths {
		c.Why(field("linux.maskedPaths", i, ""))
		next, folder := c.Label(), c.Label()
		target, at := c.openIn("", c.root, p, pathFlags, pathText)
		at.Else(next, u.ENOENT, u.ENOTDIR)
		file, _ := c.openTree("mask "+p, null, "", false)
		c.Call("", prog.SysMoveMount, prog.R(file), c.Str(""), prog.R(target), c.Str(""),
			prog.Imm(u.MOVE_MOUNT_F_EMPTY_PATH|u.MOVE_MOUNT_T_EMPTY_PATH, "F_EMPTY_PATH|T_EMPTY_PATH")).Else(folder, u.ENOTDIR, u.EINVAL)
		c.Jump(next)
		c.Bind(folder)
		dir := empty
		if shared {
			dir, _ = c.openTree("mask folder "+p, empty, "", false)
		} else {
			dir = c.emptyFolder()
		}
		c.move(dir, target)
		c.Bind(next)
	}
	return nil
}

func (c mounter) emptyFolder() prog.Reg {
	fs := c.fsopen("an empty folder to hide folders behind", "tmpfs")
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", "tmpfs", 0)
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "nr_inodes", "1", 0)
	c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "ro", "", 0)
	labeller{c.compiler}.context(fs, nil)
	return c.fsmount("", fs, u.MOUNT_ATTR_RDONLY|u.MOUNT_ATTR_NOSUID|u.MOUNT_ATTR_NODEV|u.MOUNT_ATTR_NOEXEC)
}

// verifiedNull opens the container's /dev/null and checks that it is the device 1:3 and no impostor.
func (c mounter) verifiedNull() prog.Reg {
	null, _ := c.openIn("", c.root, "/dev/null", pathFlags, pathText)
	c.expectNull(null)
	return null
}

func (c mounter) readonlyPaths() error {
	for i, p := range c.spec.Linux.ReadonlyPaths {
		c.Why(field("linux.readonlyPaths", i, ""))
		next := c.Label()
		target, at := c.openIn("", c.root, p, pathFlags, pathText)
		at.Else(next, u.ENOENT, u.ENOTDIR)
		fd, _ := c.openTree("make "+p+" read-only", target, "", true)
		c.setAttr(fd, true, u.MOUNT_ATTR_RDONLY, 0, 0)
		c.move(fd, target)
		c.Bind(next)
	}
	if c.spec.Root != nil && c.spec.Root.Readonly {
		c.Why("root.readonly")
		c.setAttr(c.root, false, u.MOUNT_ATTR_RDONLY, 0, 0)
	}
	return nil
}
