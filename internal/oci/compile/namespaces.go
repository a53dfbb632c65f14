package compile

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

type namespaces struct {
	fresh  uint64 // clone flags of the namespaces to be made
	joined []join
	user   bool // a user namespace is made
	enters bool // a user namespace is joined
}

type join struct {
	flag uint64
	path string
	why  string
	reg  prog.Reg
}

func nsFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.UserNamespace:
		return u.CLONE_NEWUSER
	case specs.MountNamespace:
		return u.CLONE_NEWNS
	case specs.PIDNamespace:
		return u.CLONE_NEWPID
	case specs.NetworkNamespace:
		return u.CLONE_NEWNET
	case specs.IPCNamespace:
		return u.CLONE_NEWIPC
	case specs.UTSNamespace:
		return u.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return u.CLONE_NEWCGROUP
	case specs.TimeNamespace:
		return u.CLONE_NEWTIME
	}
	return 0
}

func (c *compiler) parseNamespaces() error {
	var seen uint64
	for i, n := range c.spec.Linux.Namespaces {
		name := field("linux.namespaces", i, "")
		f := nsFlag(n.Type)
		if f == 0 {
			return invalid(name+".type", "unknown namespace %q", n.Type)
		}
		if seen&f != 0 {
			return invalid(name, "namespace %q is listed twice", n.Type)
		}
		seen |= f
		if f == u.CLONE_NEWTIME {
			return unsupported(name + " (time)")
		}
		if n.Path == "" {
			c.ns.fresh |= f
			c.ns.user = c.ns.user || f == u.CLONE_NEWUSER
			continue
		}
		if !strings.HasPrefix(n.Path, "/") || strings.ContainsRune(n.Path, 0) {
			return invalid(name+".path", "%q is not an absolute path", n.Path)
		}
		j := join{flag: f, path: n.Path, why: name + ".path"}
		if f == u.CLONE_NEWUSER { // first: it gives the rights to join the others
			c.ns.enters = true
			c.ns.joined = append([]join{j}, c.ns.joined...)
		} else {
			c.ns.joined = append(c.ns.joined, j)
		}
	}
	if seen&u.CLONE_NEWNS == 0 || c.ns.fresh&u.CLONE_NEWNS == 0 {
		return invalid("linux.namespaces", "a new mount namespace is required")
	}
	if c.ns.enters && len(c.spec.Linux.UIDMappings) > 0 {
		return invalid("linux.uidMappings", "a joined user namespace has its mappings already")
	}
	if c.ns.user && (len(c.spec.Linux.UIDMappings) == 0 || len(c.spec.Linux.GIDMappings) == 0) {
		return invalid("linux.uidMappings", "a new user namespace needs linux.uidMappings and linux.gidMappings")
	}
	if c.ns.user && c.in.Rootfs != nil && len(c.in.Rootfs.Lower) > 0 {
		return unsupported("a new user namespace over an image's layers")
	}
	return nil
}

// cloneFlags are made by the clone itself: all but the cgroup namespace (its root is where the child is when it is made), and
// nothing at all when a user namespace is joined, which must own the others.
func (n *namespaces) cloneFlags() uint64 {
	if n.enters {
		return 0
	}
	return n.fresh &^ u.CLONE_NEWCGROUP
}

// forks tells whether a second clone is needed to be inside the PID namespace.
func (n *namespaces) forks() bool {
	for _, j := range n.joined {
		if j.flag == u.CLONE_NEWPID {
			return true
		}
	}
	return n.enters && n.fresh&u.CLONE_NEWPID != 0
}

func (c *compiler) openNamespaces() {
	for i := range c.ns.joined {
		j := &c.ns.joined[i]
		c.Why(j.why)
		j.reg, _ = c.CallR("namespace to join", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(j.path),
			prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
		c.keep = append(c.keep, j.reg)
	}
}

// enter is the child's way from its first instruction to being inside all namespaces and cgroups.
func (c *compiler) enter() {
	c.Why("")
	c.Call("nobody may trace us, and /proc/PID is root's", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
	if !c.spec.Process.Terminal {
		c.stdio(c.in.Facts.Stdio)
	}
	c.Why("")
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(int64(3 + c.in.Facts.Preserve))}, Keep: c.keep, Note: "close what is not ours"})
	c.oomScore()
	c.joinCgroups()
	for _, j := range c.ns.joined {
		c.Why(j.why)
		c.Call("join "+prog.NamespaceFlags(j.flag), prog.SysSetns, prog.R(j.reg), prog.Imm(int64(j.flag), prog.NamespaceFlags(j.flag)))
	}
	if c.ns.enters {
		c.becomeRoot("linux.namespaces")
		if f := c.ns.fresh &^ (u.CLONE_NEWCGROUP | u.CLONE_NEWPID); f != 0 {
			c.Call("the other namespaces, owned by the joined user namespace", prog.SysUnshare, prog.Imm(int64(f), prog.NamespaceFlags(f)))
		}
	}
	if c.ns.user {
		c.mapIDs()
	}
	if c.ns.forks() {
		flags := uint64(u.CLONE_PARENT | u.SIGCHLD)
		if c.ns.enters {
			flags |= c.ns.fresh & u.CLONE_NEWPID
		}
		c.Why("linux.namespaces")
		c.Emit(prog.Ins{Op: prog.Fork, Flags: flags, Note: "into the PID namespace"})
	}
	if c.ns.fresh&u.CLONE_NEWCGROUP != 0 {
		c.Why("linux.namespaces")
		c.Call("its root is the cgroup we are in now", prog.SysUnshare, prog.Imm(u.CLONE_NEWCGROUP, "NEWCGROUP"))
	}
	c.Why("")
	c.Call("", prog.SysSetsid)
	labeller{c}.keyring()
	c.Why("")
	c.Call("a session keyring of its own", prog.SysKeyctl, prog.Imm(u.KEYCTL_JOIN_SESSION, "KEYCTL_JOIN_SESSION_KEYRING"),
		c.Str("_ses."+c.in.ID)).Tolerate(u.ENOSYS, u.EPERM, 122) // EDQUOT: as without
}

func (c *compiler) becomeRoot(why string) {
	c.Why(why)
	c.Call("root of the user namespace", prog.SysSetresgid, prog.Imm(0), prog.Imm(0), prog.Imm(0))
	c.Call("", prog.SysSetresuid, prog.Imm(0), prog.Imm(0), prog.Imm(0))
}

// mapIDs has the host lane write the ID maps while the child waits (user_namespaces(7)).
func (c *compiler) mapIDs() {
	c.Lane(prog.Host)
	c.Why("linux.uidMappings")
	proc := c.Reg()
	c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
	c.writeFile("", proc, "uid_map", idMap(c.spec.Linux.UIDMappings))
	c.Why("linux.gidMappings")
	c.writeFile("", proc, "gid_map", idMap(c.spec.Linux.GIDMappings))
	c.Call("", prog.SysClose, prog.R(proc))
	c.Lane(prog.Child)
	c.becomeRoot("linux.uidMappings")
	c.Call("changing IDs must not have made us traceable", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
}

func idMap(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}

// stdio makes three descriptors 0, 1 and 2, whatever numbers they have.
func (c *compiler) stdio(from [3]int) {
	c.Why("")
	var reg [3]prog.Reg
	for k, fd := range from { // first out of the way of each other
		if fd <= 2 && fd != k {
			reg[k], _ = c.CallR("", prog.SysFcntl, prog.Imm(int64(fd)), prog.Imm(u.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), prog.Imm(10))
		}
	}
	for k, fd := range from {
		note := [3]string{"stdin", "stdout", "stderr"}[k]
		switch {
		case reg[k] != 0:
			c.Call(note, prog.SysDup3, prog.R(reg[k]), prog.Imm(int64(k)), prog.Imm(0))
		case fd == k:
			c.Call(note, prog.SysFcntl, prog.Imm(int64(fd)), prog.Imm(u.F_SETFD, "F_SETFD"), prog.Imm(0))
		default:
			c.Call(note, prog.SysDup3, prog.Imm(int64(fd)), prog.Imm(int64(k)), prog.Imm(0))
		}
	}
}
