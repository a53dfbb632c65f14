package compile

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// defaultDevices are the nodes every container gets (runtime-spec, config-linux.md, Default Devices).
func defaultDevices() []specs.LinuxDevice {
	list := []specs.LinuxDevice{
		{Path: "/dev/null", Major: 1, Minor: 3}, {Path: "/dev/zero", Major: 1, Minor: 5}, {Path: "/dev/full", Major: 1, Minor: 7},
		{Path: "/dev/random", Major: 1, Minor: 8}, {Path: "/dev/urandom", Major: 1, Minor: 9}, {Path: "/dev/tty", Major: 5, Minor: 0},
	}
	for i := range list {
		list[i].Type = "c"
	}
	return list
}

// devices makes the device nodes and the usual symbolic links, all by handles.
func (c nodes) devices() error {
	listed, err := c.validate()
	if err != nil {
		return err
	}
	bound := c.devIsBound() // somebody else's /dev: nothing is written into it
	if bound && len(c.spec.Linux.Devices) == 0 {
		return nil
	}
	c.Why("")
	c.Call("device modes as given", prog.SysUmask, prog.Imm(0))
	dev := prog.Reg(0)
	if !bound {
		c.Why("default device")
		if dev = c.dev.folder; dev == 0 {
			dev = c.ensure("/dev", true)
		}
		for _, d := range defaultDevices() {
			if _, ok := listed[d.Path]; !ok {
				c.device(dev, d)
			}
		}
	}
	for i, d := range c.spec.Linux.Devices {
		dir := path.Dir(path.Clean(d.Path))
		inDev := strings.HasPrefix(dir+"/", "/dev/")
		if bound && inDev || listed[path.Clean(d.Path)] != i {
			continue
		}
		c.Why(field("linux.devices", i, ""))
		parent := dev
		if dir != "/dev" {
			parent = c.ensure(dir, true)
		}
		c.device(parent, d)
	}
	if !bound {
		c.links(dev)
	}
	return nil
}

// validate checks the listed devices and returns where in the list each path stands first.
func (c nodes) validate() (map[string]int, error) {
	listed := map[string]int{}
	for i, d := range c.spec.Linux.Devices {
		name := field("linux.devices", i, "")
		if d.Path == "" || !strings.HasPrefix(path.Clean(d.Path), "/") || path.Clean(d.Path) == "/" || strings.ContainsRune(d.Path, 0) {
			return nil, invalid(name+".path", "%q is no absolute path of a node", d.Path)
		}
		switch {
		case nodeType(d.Type) == 0:
			return nil, invalid(name+".type", "%q is none of c, b, u, p", d.Type)
		case d.Type != "p" && (d.Major < 0 || d.Minor < 0 || d.Major >= 1<<12 || d.Minor >= 1<<20):
			return nil, invalid(name, "device number %d:%d is out of range", d.Major, d.Minor)
		}
		first, ok := listed[path.Clean(d.Path)]
		if !ok {
			listed[path.Clean(d.Path)] = i
			continue
		}
		if other := c.spec.Linux.Devices[first]; nodeType(other.Type) != nodeType(d.Type) || other.Major != d.Major || other.Minor != d.Minor {
			return nil, invalid(name+".path", "%s is another device already, linux.devices[%d]", d.Path, first)
		}
	}
	return listed, nil
}

func nodeType(t string) int64 {
	switch t {
	case "c", "u":
		return u.S_IFCHR
	case "b":
		return u.S_IFBLK
	case "p":
		return u.S_IFIFO
	}
	return 0
}

// links makes the usual symbolic links (runtime-spec, runtime-linux.md, Dev symbolic links). An image's own /dev/ptmx would be the host's.
func (c nodes) links(dev prog.Reg) {
	c.Why("default device")
	if !c.fresh("/dev/ptmx") {
		c.Call("the image's own", prog.SysUnlinkat, prog.R(dev), c.Str("ptmx"), prog.Imm(0)).Tolerate(u.ENOENT, u.EROFS, u.EBUSY)
	}
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
		{"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}} {
		c.Call("", prog.SysSymlinkat, c.Str(l[1]), prog.R(dev), c.Str(l[0])).Tolerate(u.EEXIST, u.EROFS)
	}
}

func (c nodes) devIsBound() bool {
	for _, m := range c.spec.Mounts {
		if path.Clean("/"+m.Destination) == "/dev" {
			for _, o := range m.Options {
				if o == "bind" || o == "rbind" {
					return true
				}
			}
			return m.Type == "bind" || m.Type == "devtmpfs"
		}
	}
	return false
}

// fresh tells whether nothing can be at a path of /dev yet: it is an empty tmpfs, and no mount has made this mount point.
func (c nodes) fresh(p string) bool {
	empty := false
	for _, m := range c.spec.Mounts {
		switch path.Clean("/" + m.Destination) {
		case "/dev":
			empty = m.Type == "tmpfs" && !slices.Contains(m.Options, "tmpcopyup")
		case p:
			return false
		}
	}
	return empty && path.Dir(p) == "/dev"
}

// bindsNodes tells whether nodes cannot be made, and the host's are bound in their place.
func (c nodes) bindsNodes() bool { return c.ns.user || c.ns.enters || c.in.Facts.Nested }

// device makes a node by the handle of its folder; what is there already must be it. In a user namespace only pipes can be made; then the
// host's node of that path is bound.
func (c nodes) device(dir prog.Reg, d specs.LinuxDevice) {
	p := path.Clean(d.Path)
	kind, base := nodeType(d.Type), path.Base(p)
	number := strconv.FormatInt(d.Major, 10) + ":" + strconv.FormatInt(d.Minor, 10)
	if kind == u.S_IFIFO {
		number, d.Major, d.Minor = "0", 0, 0
	} else if c.bindsNodes() {
		fd, _ := c.openTree("bind the host's node "+p, 0, p, false)
		c.expectNode(fd, "", d, "the host's "+p+" is the device "+number)
		c.move(fd, c.ensure(p, false))
		return
	}
	mode := int64(0o666)
	if d.FileMode != nil {
		mode = int64(d.FileMode.Perm())
	}
	at := c.Call("node "+p, prog.SysMknodat, prog.R(dir), c.Str(base), prog.Imm(kind|mode, d.Type+"|0"+strconv.FormatInt(mode, 8)),
		prog.Imm(devNumber(d.Major, d.Minor), number))
	if !c.fresh(p) {
		exists, done := c.Label(), c.Label()
		at.Else(exists, u.EEXIST)
		c.Jump(done)
		c.Bind(exists)
		c.expectNode(dir, base, d, "what is at "+p+" is the device "+number)
		if d.FileMode != nil { // never through a link that has taken its place meanwhile: the host's files are still in sight
			again := c.Label()
			c.Call("", prog.SysFchmodat2, prog.R(dir), c.Str(base), prog.Imm(mode, "0"+strconv.FormatInt(mode, 8)), prog.Imm(u.AT_SYMLINK_NOFOLLOW, "NOFOLLOW")).Else(again, u.ENOSYS)
			c.Jump(done)
			c.Bind(again) // before Linux 6.6
			c.Call("in place of the one that is there", prog.SysUnlinkat, prog.R(dir), c.Str(base), prog.Imm(0))
			c.Call("", prog.SysMknodat, prog.R(dir), c.Str(base), prog.Imm(kind|mode, d.Type+"|0"+strconv.FormatInt(mode, 8)), prog.Imm(devNumber(d.Major, d.Minor), number))
		}
		c.Bind(done)
	}
	if d.UID != nil || d.GID != nil {
		uid, gid := int64(nobodyChange), int64(nobodyChange)
		if d.UID != nil {
			uid = int64(*d.UID)
		}
		if d.GID != nil {
			gid = int64(*d.GID)
		}
		c.Call("", prog.SysFchownat, prog.R(dir), c.Str(base), prog.Imm(uid), prog.Imm(gid), prog.Imm(u.AT_SYMLINK_NOFOLLOW, "NOFOLLOW"))
	}
}

// expectNode fails the program unless a path below a handle, or the handle itself, is a certain device (runtime-spec, config-linux.md,
// Devices: another file there is an error).
func (c nodes) expectNode(dir prog.Reg, base string, d specs.LinuxDevice, note string) {
	c.isNode(dir, base, d, note, func(prog.At) {})
}

// isNode is the same; otherwise says what else happens than failing.
func (c nodes) isNode(dir prog.Reg, base string, d specs.LinuxDevice, note string, otherwise func(prog.At)) {
	st := c.Bytes(make([]byte, statxSize), "&statx")
	c.statx(dir, base, st)
	expect := func(at, want, mask int64) {
		otherwise(c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(at), prog.Imm(want), prog.Imm(mask)}, Errno: u.EEXIST, Note: note}))
	}
	expect(statxMode, nodeType(d.Type), 0xf000)
	if d.Type != "p" {
		expect(statxMajor, d.Major, 0xffffffff)
		expect(statxMinor, d.Minor, 0xffffffff)
	}
}

// devNumber packs a device number as the kernel's new_encode_dev does.
func devNumber(major, minor int64) int64 { return minor&0xff | major<<8 | (minor&^0xff)<<12 }

// expectNull fails the program unless fd is the character device 1:3.
func (c nodes) expectNull(fd prog.Reg) {
	c.isNull(fd, func(prog.At) {})
}
