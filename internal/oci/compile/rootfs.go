package compile

import (
	"path/filepath"
	"strconv"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// rootPropagation is linux.rootfsPropagation as the root mount's own flag, and whether it is meant for all mounts below too.
func (c rooter) rootPropagation() (flag uint64, recursive bool, err error) {
	switch mode := c.spec.Linux.RootfsPropagation; strings.TrimPrefix(mode, "r") {
	case "", "private":
		return u.MS_PRIVATE, true, nil
	case "slave":
		return u.MS_SLAVE, mode[0] == 'r', nil
	case "shared":
		return u.MS_SHARED, mode[0] == 'r', nil
	case "unbindable":
		return u.MS_UNBINDABLE, mode[0] == 'r', nil
	default:
		return 0, false, invalid("linux.rootfsPropagation", "unknown mode %q", mode)
	}
}

// takeFromHost takes what the config names by paths of the host: the root file system, and sources of bind mounts where later would be too
// late. Sources whose mounts shall go on hearing from the host's, or be heard there, are taken while ours are still the host's peers.
func (c rooter) takeFromHost() error {
	flag, _, err := c.rootPropagation()
	if err != nil {
		return err
	}
	private := flag == u.MS_PRIVATE && c.spec.Linux.RootfsPropagation != ""
	early := c.ns.user || c.ns.enters || c.ns.joins(u.CLONE_NEWNS)
	if err := (binder(c)).sources(func(o options) bool { return o.propagation == u.MS_SHARED || o.propagation == u.MS_SLAVE && private }); err != nil {
		return err
	}
	if !c.ns.joins(u.CLONE_NEWNS) {
		c.apart(private)
	}
	if early {
		if err := (binder(c)).sources(func(options) bool { return true }); err != nil {
			return err
		}
	}
	if c.in.Rootfs != nil {
		if c.ns.joins(u.CLONE_NEWNS) {
			return unsupported("a joined mount namespace over an image's layers")
		}
		return nil
	}
	dir := c.spec.Root.Path
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(c.in.Bundle, dir)
	}
	c.Why("root.path")
	c.host.root, _ = c.CallR("root file system", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(strings.TrimRight(dir, "/")+"/"), prog.Imm(pathFlags, pathText))
	c.root, _ = c.openTree("a mount of its own", c.host.root, "", true)
	if flag != u.MS_SLAVE {
		c.setAttr(c.root, true, 0, 0, u.MS_PRIVATE)
	} else if c.ns.joins(u.CLONE_NEWNS) {
		c.setAttr(c.root, true, 0, 0, u.MS_SLAVE)
	}
	return nil
}

// apart keeps what is mounted in our mount namespace from the host's.
func (c rooter) apart(private bool) {
	c.Why("linux.rootfsPropagation")
	prop, text := int64(u.MS_REC|u.MS_SLAVE), "MS_REC|MS_SLAVE"
	if private {
		prop, text = u.MS_REC|u.MS_PRIVATE, "MS_REC|MS_PRIVATE"
	}
	c.Call("what we mount stays here", prog.SysMount, prog.Imm(0), c.Str("/"), prog.Imm(0), prog.Imm(prop, text), prog.Imm(0))
}

// place attaches the root file system where pivot_root(2) can take it from: on itself, or in a joined mount namespace, where nothing may
// have its path, over the root.
func (c rooter) place() error {
	switch {
	case c.in.Rootfs != nil:
	case c.ns.joins(u.CLONE_NEWNS):
		c.apart(false)
		c.Why("root.path")
		c.attachAt(c.root, "/")
	default:
		c.move(c.root, c.host.root)
	}
	return nil
}

// settle is what all mounts had to be made for: what is to be read-only becomes so, and the root gets its propagation.
func (c rooter) settle() error {
	c.Why("mounts")
	for _, fd := range c.late {
		c.setAttr(fd, false, u.MOUNT_ATTR_RDONLY, 0, 0)
	}
	if c.spec.Root != nil && c.spec.Root.Readonly {
		c.Why("root.readonly")
		c.setAttr(c.root, false, u.MOUNT_ATTR_RDONLY, 0, 0)
	}
	if flag, recursive, _ := c.rootPropagation(); flag == u.MS_SHARED || flag == u.MS_UNBINDABLE {
		c.Why("linux.rootfsPropagation")
		c.setAttr(c.root, recursive, 0, 0, flag)
	}
	return nil
}

// upperPlain keeps what a container writes independent of the host's module parameters: whole files and folders that diff and commit can read
// without the layers, and no index that would tie the folder to one mount of them.
var upperPlain = [...][2]string{{"redirect_dir", "off"}, {"metacopy", "off"}, {"index", "off"}}

// layers mounts the layers and, over them, the writable layer (overlayfs, Documentation/filesystems/overlayfs.rst).
func (c rooter) layers() error {
	r := c.in.Rootfs
	if r == nil {
		return nil
	}
	c.Why("rootfs.json")
	if r.Folder != "" {
		return c.folder(r)
	}
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
	if r.Upper != "" {
		for _, o := range upperPlain {
			c.fsconfig(fs, u.FSCONFIG_SET_STRING, o[0], o[1], 0)
		}
		if r.Volatile {
			c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "volatile", "", 0)
		}
	}
	labeller(c).context(fs, nil)
	c.root = c.fsmount("", fs, 0)
	c.attachAt(c.root, r.Scratch)
	return nil
}

// folder takes a root file system that is whole as it is.
func (c rooter) folder(r *bundle.Rootfs) error {
	switch {
	case len(r.Lower) > 0 || r.Upper != "" || r.Work != "":
		return invalid("rootfs.json: folder", "is given beside lower, upper or work")
	case mountLabel(c.compiler) != "":
		return unsupported("linux.mountLabel over a folder (rootfs.json: folder): the label is an overlay's option")
	}
	c.root, _ = c.openTree("root file system", 0, r.Folder, false)
	c.setAttr(c.root, false, 0, 0, u.MS_PRIVATE)
	c.attachAt(c.root, r.Scratch)
	return nil
}

// fromLoops has the host lane mount the layers that need loop devices, before the clone: the child may not open a block device any more, its
// cgroup forbids it. A device lives as long as somebody has it open, which is the host lane until the child is there, and the mount.
func (c rooter) fromLoops() {
	if c.in.Rootfs == nil {
		return
	}
	c.Why("rootfs.json")
	for i, l := range c.in.Rootfs.Lower {
		if l.Type != "erofs" || !l.Loop {
			continue
		}
		var devices []prog.Arg // which hold the path once the device is there
		for _, file := range append([]string{l.Source}, l.Devices...) {
			device := c.Bytes(make([]byte, 32), "&loop"+strconv.Itoa(len(devices)))
			devices = append(devices, device)
			c.Emit(prog.Ins{Op: prog.Loop, Args: [6]prog.Arg{c.Str(file), device}, Out: c.Reg()})
		}
		fs := c.fsopen("layer "+strconv.Itoa(i), "erofs")
		for k, device := range devices {
			key := "device"
			if k == 0 {
				key = "source"
			}
			c.Call("", prog.SysFsconfig, prog.R(fs), prog.Imm(u.FSCONFIG_SET_STRING, "SET_STRING"), c.Str(key), device, prog.Imm(0))
		}
		c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "ro", "", 0)
		if c.layered == nil {
			c.layered = map[int]prog.Reg{}
		}
		c.layered[i] = c.fsmount("", fs, u.MOUNT_ATTR_RDONLY)
		c.keep = append(c.keep, c.layered[i])
	}
}

// shares tells whether the layer is mounted already.
func (c rooter) shares(l bundle.Layer) bool { return l.Mounted != "" && c.in.Facts.atLeast(6, 15) }

func (c rooter) layer(i int, l bundle.Layer) (prog.Reg, error) {
	note := "layer " + strconv.Itoa(i)
	if c.shares(l) {
		fd, _ := c.CallR(note+", mounted already", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(l.Mounted), prog.Imm(pathFlags, pathText))
		return fd, nil
	}
	switch l.Type {
	case "dir":
		fd, _ := c.openTree(note, 0, l.Source, false)
		return fd, nil
	case "erofs":
		if fd, ok := c.layered[i]; ok {
			return fd, nil
		}
		fs := c.fsopen(note, "erofs")
		c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", l.Source, 0)
		for _, d := range l.Devices {
			c.fsconfig(fs, u.FSCONFIG_SET_STRING, "device", d, 0)
		}
		return c.fsmount(note, fs, u.MOUNT_ATTR_RDONLY), nil
	}
	return 0, invalid(field("rootfs.json: lower", i, ".type"), "%q is neither dir nor erofs", l.Type)
}

// overlayByPath serves kernels before 6.15: the layers are attached below a tmpfs of our own on the scratch folder.
func (c rooter) overlayByPath() error {
	r := c.in.Rootfs
	if len(r.Lower) == 0 {
		return invalid("rootfs.json: lower", "at least one layer is needed before Linux 6.15")
	}
	c.Call("a place for the layers", prog.SysMount, c.Str("tmpfs"), c.Str(r.Scratch), c.Str("tmpfs"), prog.Imm(0), c.Str("mode=700,size=1m"))
	c.Call("short names: mount(2) takes one page of options", prog.SysChdir, c.Str(r.Scratch))
	link := func(path, name string) string {
		c.Call("", prog.SysSymlinkat, c.Str(path), prog.Imm(u.AT_FDCWD), c.Str(name))
		return name
	}
	var lower []string
	for i, l := range r.Lower {
		name := strconv.Itoa(i)
		lower = append(lower, name)
		if l.Type == "dir" {
			link(l.Source, name)
			continue
		}
		fd, err := c.layer(i, l)
		if err != nil {
			return err
		}
		p := r.Scratch + "/" + name
		c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(p), prog.Imm(0o700, "0700"))
		c.attachAt(fd, p)
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if r.Upper != "" {
		data += ",upperdir=" + link(r.Upper, "upper") + ",workdir=" + link(r.Work, "work")
		for _, o := range upperPlain {
			data += "," + o[0] + "=" + o[1]
		}
		if r.Volatile {
			data += ",volatile"
		}
	}
	if l := mountLabel(c.compiler); l != "" {
		data += `,context="` + l + `"`
	}
	if len(data) >= 4096 {
		return invalid("rootfs.json: lower", "%d layers do not fit into the 4096 bytes that mount(2) takes on this kernel", len(lower))
	}
	at := r.Scratch + "/root"
	c.Call("", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(at), prog.Imm(0o700, "0700"))
	c.Call("root file system", prog.SysMount, c.Str("overlay"), c.Str(at), c.Str("overlay"), prog.Imm(0), c.Str(data))
	c.root, _ = c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(at), prog.Imm(pathFlags, pathText))
	c.Call("", prog.SysChdir, c.Str("/"))
	return nil
}
