package compile

import (
	"path"
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
	if c.devIsBound() {
		return nil // somebody else's /dev: nothing is written into it
	}
	c.Why("")
	c.Call("device modes as given", prog.SysUmask, prog.Imm(0))
	listed := map[string]bool{}
	for i, d := range c.spec.Linux.Devices {
		name := field("linux.devices", i, "")
		if d.Path == "" || !strings.HasPrefix(path.Clean(d.Path), "/") || strings.ContainsRune(d.Path, 0) {
			return invalid(name+".path", "%q is not an absolute path", d.Path)
		}
		listed[path.Clean(d.Path)] = true
	}
	c.Why("default device")
	dev := c.ensure("/dev", true)
	for _, d := range defaultDevices() {
		if !listed[d.Path] {
			if err := c.device("default device", dev, d); err != nil {
				return err
			}
		}
	}
	for i, d := range c.spec.Linux.Devices {
		name := field("linux.devices", i, "")
		c.Why(name)
		parent := dev
		if path.Dir(path.Clean(d.Path)) != "/dev" {
			parent = c.ensure(path.Dir(path.Clean(d.Path)), true)
		}
		if err := c.device(name, parent, d); err != nil {
			return err
		}
	}
	c.Why("default device")
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}} {
		c.Call("", prog.SysSymlinkat, c.Str(l[1]), prog.R(dev), c.Str(l[0])).Tolerate(u.EEXIST, u.EROFS)
	}
	return nil
}

func (c nodes) devIsBound() bool {
	for _, m := range c.spec.Mounts {
		if path.Clean(m.Destination) == "/dev" {
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

func (c nodes) device(name string, dir prog.Reg, d specs.LinuxDevice) error {
	var kind int64
	switch d.Type {
	case "c", "u":
		kind = u.S_IFCHR
	case "b":
		kind = u.S_IFBLK
	case "p":
		kind = u.S_IFIFO
	default:
		return invalid(name+".type", "%q is none of c, b, u, p", d.Type)
	}
	if d.Major < 0 || d.Minor < 0 || d.Major >= 1<<12 || d.Minor >= 1<<20 {
		return invalid(name, "device number %d:%d is out of range", d.Major, d.Minor)
	}
	base := path.Base(path.Clean(d.Path))
	if c.ns.user || c.ns.enters { // no mknod in a user namespace: the host's node is bound
		c.create(dir, base, false)
		fd, _ := c.openTree("bind the host's node", 0, path.Clean(d.Path), false)
		c.move(fd, c.ensure(d.Path, false))
		return nil
	}
	mode := int64(0o666)
	if d.FileMode != nil {
		mode = int64(d.FileMode.Perm())
	}
	c.Call("node "+d.Path, prog.SysMknodat, prog.R(dir), c.Str(base), prog.Imm(kind|mode, d.Type+"|0"+strconv.FormatInt(mode, 8)),
		prog.Imm(devNumber(d.Major, d.Minor), strconv.FormatInt(d.Major, 10)+":"+strconv.FormatInt(d.Minor, 10))).Tolerate(u.EEXIST)
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
	return nil
}

// devNumber packs a device number as the kernel's new_encode_dev does.
func devNumber(major, minor int64) int64 { return minor&0xff | major<<8 | (minor&^0xff)<<12 }

// expectNull fails the program unless fd is the character device 1:3. struct stat differs between architectures.
func (c nodes) expectNull(fd prog.Reg) {
	modeAt, rdevAt := int64(24), int64(40)
	if c.in.Facts.Arch == "arm64" {
		modeAt, rdevAt = 16, 32
	}
	st := c.Bytes(make([]byte, 144), "&stat")
	c.Call("", prog.SysFstat, prog.R(fd), st)
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(modeAt), prog.Imm(u.S_IFCHR), prog.Imm(0xf000)}, Errno: u.ENODEV,
		Note: "/dev/null is a character device"})
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(rdevAt), prog.Imm(devNumber(1, 3)), prog.Imm(0xffffffff)}, Errno: u.ENODEV,
		Note: "/dev/null is 1:3"})
}

// terminal makes a pseudo-terminal in the container's own devpts, gives the slave to the process and the master to the host.
func (c nodes) terminal() error {
	if !c.spec.Process.Terminal {
		return nil
	}
	c.Why("process.terminal")
	slave := c.openTerminal(c.root, "/dev/pts/ptmx")
	console := c.ensure("/dev/console", false)
	fd, _ := c.openTree("the terminal is also /dev/console", slave, "", false)
	c.move(fd, console)
	return nil
}

// openTerminal opens a pair below a handle, makes the slave 0, 1, 2 and the controlling terminal, and hands the master over.
func (c nodes) openTerminal(root prog.Reg, ptmx string) prog.Reg {
	p := c.spec.Process
	master, _ := c.openIn("", root, ptmx, u.O_RDWR|u.O_NOCTTY|u.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC")
	c.Call("unlock", prog.SysIoctl, prog.R(master), prog.Imm(u.TIOCSPTLCK, "TIOCSPTLCK"), c.Bytes(make([]byte, 4), "&0"))
	slave, _ := c.CallR("", prog.SysIoctl, prog.R(master), prog.Imm(u.TIOCGPTPEER, "TIOCGPTPEER"),
		prog.Imm(u.O_RDWR|u.O_NOCTTY|u.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC"))
	if p.User.UID != 0 {
		c.Call("the user owns the terminal", prog.SysFchownat, prog.R(slave), c.Str(""), prog.Imm(int64(p.User.UID)), prog.Imm(nobodyChange),
			prog.Imm(u.AT_EMPTY_PATH, "EMPTY_PATH"))
	}
	if s := p.ConsoleSize; s != nil {
		ws := uint64(uint16(s.Height)) | uint64(uint16(s.Width))<<16
		c.Call("", prog.SysIoctl, prog.R(slave), prog.Imm(u.TIOCSWINSZ, "TIOCSWINSZ"), c.Bytes(prog.U64(ws), strconv.Itoa(int(s.Height))+"x"+strconv.Itoa(int(s.Width))))
	}
	for k := range 3 {
		c.Call([3]string{"stdin", "stdout", "stderr"}[k], prog.SysDup3, prog.R(slave), prog.Imm(int64(k)), prog.Imm(0))
	}
	c.Call("", prog.SysIoctl, prog.Imm(0), prog.Imm(u.TIOCSCTTY, "TIOCSCTTY"), prog.Imm(0))
	c.sendMaster(master)
	return slave
}

// sendMaster passes the terminal's master to the host lane.
func (c nodes) sendMaster(master prog.Reg) {
	c.sendFiles(c.sock[1], master)
	c.Lane(prog.Host)
	c.Emit(prog.Ins{Op: prog.Terminal, Args: [6]prog.Arg{prog.R(c.sock[0])}, Note: "take the terminal's master"})
	c.Lane(prog.Child)
}

// sendFiles passes descriptors through a socket by SCM_RIGHTS (cmsg(3): length, level, type, descriptors).
func (c *emitter) sendFiles(sock prog.Reg, files ...prog.Reg) {
	size := uint64(16 + 4*len(files))
	space := (size + 7) &^ 7
	cmsg := c.Bytes(append(prog.U64(size), append(prog.U32(u.SOL_SOCKET, u.SCM_RIGHTS), make([]byte, space-16)...)...), "&cmsg")
	for k, f := range files {
		c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(f), cmsg, prog.Imm(int64(16 + 4*k))}})
	}
	iov := c.Pointers(prog.U64(0, 1), []int{0}, []prog.Arg{c.Bytes([]byte{1}, "")}, "&iov")
	// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
	msg := c.Pointers(prog.U64(0, 0, 0, 1, 0, space, 0), []int{16, 32}, []prog.Arg{iov, cmsg}, "&msg{SCM_RIGHTS}")
	c.Call("", prog.SysSendmsg, prog.R(sock), msg, prog.Imm(0))
}
