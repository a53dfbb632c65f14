package compile

import (
	"fmt"
	"slices"
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
	// inherits: the process shall be in our mount namespace, of which home is a descriptor.
	inherits bool
	home     prog.Reg
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

func (c entry) parseNamespaces() error {
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
		if n.Path == "" {
			c.ns.fresh |= f
			c.ns.user = c.ns.user || f == u.CLONE_NEWUSER
			continue
		}
		if !strings.HasPrefix(n.Path, "/") || strings.ContainsRune(n.Path, 0) {
			return invalid(name+".path", "%q is not an absolute path", n.Path)
		}
		c.ns.joined = append(c.ns.joined, join{flag: f, path: n.Path, why: name + ".path"})
	}
	if InheritsMounts(&c.in) {
		c.ns.inherits, c.ns.fresh = true, c.ns.fresh|u.CLONE_NEWNS
		c.ns.joined = slices.DeleteFunc(c.ns.joined, func(j join) bool { return j.flag == u.CLONE_NEWNS })
	}
	c.ns.sort(c.in.Facts.Shared)
	if c.ns.user && c.in.Rootfs != nil && (len(c.in.Rootfs.Lower) > 0 || c.in.Rootfs.Folder != "") {
		return unsupported("a new user namespace over an image's layers")
	}
	if err := c.validateRootless(); err != nil {
		return err
	}
	if c.ns.inherits && (c.ns.user || c.ns.enters) {
		return invalid("linux.namespaces", "a user namespace needs a mount namespace: it has no rights in the host's")
	}
	if err := c.validateMaps(); err != nil {
		return err
	}
	return c.validateOffsets(seen)
}

// sort brings the joined namespaces into the order of joining: the user namespace first, which gives the rights to join the others, and the
// mount namespace last, which takes the host's files out of sight. To join the user namespace that one is in is an error (setns(2)).
func (n *namespaces) sort(shared map[string]bool) {
	n.joined = slices.DeleteFunc(n.joined, func(j join) bool { return j.flag == u.CLONE_NEWUSER && shared[j.path] })
	rank := func(j join) int {
		switch j.flag {
		case u.CLONE_NEWUSER:
			return 0
		case u.CLONE_NEWNS:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(n.joined, func(a, b join) int { return rank(a) - rank(b) })
	n.enters = n.joins(u.CLONE_NEWUSER)
}

// InheritsMounts tells whether the container shall be in our mount namespace (runtime-spec, config-linux.md, Namespaces: a type that is
// not listed is inherited). Its mounts are made in a namespace of their own all the same, so that the host's mount table stays as it is
// but for the entries of a file that holds that namespace; the process then goes back into ours, with its root in the other.
func InheritsMounts(in *Input) bool {
	for _, n := range in.Spec.Linux.Namespaces {
		if n.Type == specs.MountNamespace {
			return n.Path != "" && in.Facts.Shared[n.Path]
		}
	}
	return true
}

// backToOurMounts has the host lane hold the container's mounts, and brings the child back into our mount namespace.
func (c entry) backToOurMounts() error {
	if !c.ns.inherits {
		return nil
	}
	c.Why("linux.namespaces")
	c.Lane(prog.Host)
	proc := c.Reg()
	c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
	// The kernel refuses copies of what holds a mount namespace, which a shared mount below it would make wherever it is shared.
	file, _ := c.openTree("a mount that is shared with nobody", 0, c.in.MountsFile, false)
	c.attachAt(file, c.in.MountsFile)
	c.setAttr(file, false, 0, 0, u.MS_PRIVATE)
	ns, _ := c.openTree("hold the container's mounts", proc, "ns/mnt", false)
	c.attachAt(ns, c.in.MountsFile)
	c.Call("", prog.SysClose, prog.R(ns))
	c.Call("", prog.SysClose, prog.R(file))
	c.Call("", prog.SysClose, prog.R(proc))
	c.Lane(prog.Child)
	c.Call("back into our own mount namespace", prog.SysSetns, prog.R(c.ns.home), prog.Imm(u.CLONE_NEWNS, "NEWNS"))
	c.rootAt(c.root)
	return nil
}

// rootAt makes a folder the root.
func (e *emitter) rootAt(root prog.Reg) {
	e.Call("", prog.SysFchdir, prog.R(root))
	e.Call("", prog.SysChroot, e.Str("."))
}

func (n *namespaces) joins(flag uint64) bool {
	return slices.ContainsFunc(n.joined, func(j join) bool { return j.flag == flag })
}

func (c entry) validateOffsets(seen uint64) error {
	offsets := c.spec.Linux.TimeOffsets
	switch {
	case len(offsets) == 0:
		return nil
	case seen&u.CLONE_NEWTIME == 0:
		return invalid("linux.timeOffsets", "there is no time namespace in linux.namespaces")
	case c.ns.fresh&u.CLONE_NEWTIME == 0:
		return invalid("linux.timeOffsets", "a joined time namespace has its offsets already")
	}
	for name, o := range offsets {
		if name != "monotonic" && name != "boottime" {
			return invalid("linux.timeOffsets["+name+"]", "the clocks of a time namespace are monotonic and boottime")
		}
		if o.Nanosecs >= 1e9 {
			return invalid("linux.timeOffsets["+name+"].nanosecs", "%d is a second or more", o.Nanosecs)
		}
	}
	return nil
}

// cloneFlags are made by the clone itself: all but the cgroup namespace (its root is where the child is when it is made) and the time
// namespace (clone(2) has no bit for it, and its offsets are set before anybody is in it), and nothing at all when a user namespace is
// joined, which must own the others.
func (n *namespaces) cloneFlags() uint64 {
	if n.enters {
		return 0
	}
	return n.fresh &^ (u.CLONE_NEWCGROUP | u.CLONE_NEWTIME)
}

// forks tells whether a second clone is needed to be inside the PID namespace.
func (n *namespaces) forks() bool {
	return n.joins(u.CLONE_NEWPID) || n.enters && n.fresh&u.CLONE_NEWPID != 0
}

// private tells whether a namespace is the container's own, or at least not ours.
func (c *compiler) private(flag uint64) bool {
	for _, j := range c.ns.joined {
		if j.flag == flag {
			return !c.in.Facts.Shared[j.path]
		}
	}
	return c.ns.fresh&flag != 0
}

func (c entry) openNamespaces() {
	if c.ns.inherits {
		c.Why("linux.namespaces")
		c.ns.home, _ = c.CallR("our mount namespace", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/proc/thread-self/ns/mnt"), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
		c.keep = append(c.keep, c.ns.home)
	}
	for i := range c.ns.joined {
		j := &c.ns.joined[i]
		c.Why(j.why)
		j.reg, _ = c.CallR("namespace to join", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(j.path),
			prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
		c.keep = append(c.keep, j.reg)
	}
}

// enter is the child's way from its first instruction to being inside all namespaces and cgroups. What the host's paths name is opened
// before the child changes its identity: as the root of a user namespace it may be unable to reach them.
func (c entry) enter() error {
	c.Why("")
	if !c.ns.user || !c.ordinary() { // else our user must reach /proc/PID to write the maps; until then nobody else is where we are
		c.Call("nobody may trace us, and /proc/PID is root's", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
	}
	c.hugePages()
	if err := c.affinity("linux.namespaces", c.in.Processors); err != nil {
		return err
	}
	if !c.spec.Process.Terminal {
		c.stdio(c.in.Facts.Stdio)
	}
	c.Why("")
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(int64(3 + c.in.Facts.Preserve))}, Keep: c.keep, Note: "close what is not ours"})
	if !c.ns.user {
		c.ownOOMScore()
	}
	if err := c.enterCgroups(); err != nil {
		return err
	}
	c.join(func(flag uint64) bool { return flag != u.CLONE_NEWNS })
	if f := c.ns.fresh &^ (u.CLONE_NEWCGROUP | u.CLONE_NEWPID | u.CLONE_NEWTIME); c.ns.enters && f != 0 {
		c.Why("linux.namespaces")
		c.Call("the other namespaces, owned by the joined user namespace", prog.SysUnshare, prog.Imm(int64(f), prog.NamespaceFlags(f)))
	}
	c.timeNamespace()
	r := rooter(c)
	if err := r.takeFromHost(); err != nil {
		return err
	}
	c.join(func(flag uint64) bool { return flag == u.CLONE_NEWNS })
	if err := r.place(); err != nil {
		return err
	}
	switch {
	case c.ns.user:
		c.mapIDs()
	case c.ns.enters:
		c.checkMaps()
		c.becomeRoot("linux.namespaces")
	}
	c.insideNamespaces()
	return nil
}

func (c entry) join(which func(flag uint64) bool) {
	for _, j := range c.ns.joined {
		if which(j.flag) {
			c.Why(j.why)
			c.Call("join "+prog.NamespaceFlags(j.flag), prog.SysSetns, prog.R(j.reg), prog.Imm(int64(j.flag), prog.NamespaceFlags(j.flag)))
		}
	}
}

func (c entry) insideNamespaces() {
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
	c.keyring("a session keyring of its own")
}

// keyring joins the container's session keyring, or makes it. Who may search it may join it by name (keyctl(2)), and that is every process
// of its user, other containers' too: so nobody but processes inside sees it, and its name cannot be guessed.
func (c entry) keyring(note string) {
	if c.in.Keyring == "" {
		return
	}
	labeller(c).keyring()
	c.Why("")
	const edquot = 122 // as without
	ring, at := c.CallR(note, prog.SysKeyctl, prog.Imm(u.KEYCTL_JOIN_SESSION, "KEYCTL_JOIN_SESSION_KEYRING"), c.Str(c.in.Keyring))
	at.Tolerate(u.ENOSYS, u.EPERM, u.EACCES, edquot)
	c.Call("processes started later may join it", prog.SysKeyctl, prog.Imm(u.KEYCTL_SETPERM, "KEYCTL_SETPERM"), prog.R(ring),
		prog.Imm(0x3f080000, "possessor all, user search")).Tolerate(u.ENOSYS, u.EPERM, u.EACCES, u.EINVAL)
}

// timeNamespace makes one and goes into it (time_namespaces(7)): unshare(2) makes it for children, the host sets the offsets, which is
// possible while nobody is inside, and setns(2) enters it.
func (c entry) timeNamespace() {
	if c.ns.fresh&u.CLONE_NEWTIME == 0 {
		return
	}
	c.Why("linux.namespaces")
	c.Call("a time namespace for children", prog.SysUnshare, prog.Imm(u.CLONE_NEWTIME, "NEWTIME"))
	if offsets := c.spec.Linux.TimeOffsets; len(offsets) > 0 {
		c.Why("linux.timeOffsets")
		text := ""
		for _, clock := range []string{"monotonic", "boottime"} {
			if o, ok := offsets[clock]; ok {
				text += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
			}
		}
		c.Lane(prog.Host)
		proc := c.Reg()
		c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
		c.writeFile("offsets of the clocks", proc, "timens_offsets", text)
		c.Call("", prog.SysClose, prog.R(proc))
		c.Lane(prog.Child)
	}
	c.Why("linux.namespaces")
	ns, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/proc/self/ns/time_for_children"), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	c.Call("enter it", prog.SysSetns, prog.R(ns), prog.Imm(u.CLONE_NEWTIME, "NEWTIME"))
}

// stdio makes three descriptors 0, 1 and 2, whatever numbers they have.
func (c *compiler) stdio(from [3]int) {
	c.Why("")
	var reg [3]prog.Reg
	for k, fd := range from { // first out of the way of each other
		if fd >= 0 && fd <= 2 && fd != k {
			reg[k], _ = c.CallR("", prog.SysFcntl, prog.Imm(int64(fd)), prog.Imm(u.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), prog.Imm(10))
		}
	}
	for k, fd := range from {
		note := [3]string{"stdin", "stdout", "stderr"}[k]
		switch {
		case fd == AsInherited:
		case reg[k] != 0:
			c.Call(note, prog.SysDup3, prog.R(reg[k]), prog.Imm(int64(k)), prog.Imm(0))
		case fd == k:
			c.Call(note, prog.SysFcntl, prog.Imm(int64(fd)), prog.Imm(u.F_SETFD, "F_SETFD"), prog.Imm(0))
		default:
			c.Call(note, prog.SysDup3, prog.Imm(int64(fd)), prog.Imm(int64(k)), prog.Imm(0))
		}
	}
}
