package compile

import (
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// ExecInput is a process to be started inside a running container.
type ExecInput struct {
	ID      string
	Process *specs.Process
	Spec    *bundle.Spec // the container's: its namespaces and filter
	Facts   Facts
	// Pidfd is a descriptor of the container's init; Namespaces are the clone flags of those it does not share with us.
	Pidfd      int
	Pid        int
	Namespaces uint64
	Cgroups    []plan.Dir
	Scope      string // where set, the unit into which systemd moves the process, in place of joining Cgroups
	// Keyring is the name of the container's session keyring; empty: stay in the caller's.
	Keyring string
	Resctrl []string // groups of resctrl that the container is in
}

// Exec returns the Program that enters the container: one setns(2) for all its namespaces, a second clone into its PID
// namespace, then the same last steps as for the container's own process.
func Exec(in ExecInput) (*prog.Program, error) {
	s := *in.Spec
	s.Process, s.Hooks = in.Process, nil // hooks are of the container's own life
	if err := validate(&s, &in.Facts); err != nil {
		return nil, err
	}
	c := &compiler{spec: &s, in: Input{ID: in.ID, Spec: &s, Facts: in.Facts, Keyring: in.Keyring}, exec: in.Namespaces}
	if err := c.parseFilter(); err != nil {
		return nil, err
	}
	if err := c.connectListener(); err != nil {
		return nil, err
	}
	c.ns.enters = in.Namespaces&u.CLONE_NEWUSER != 0
	if a := in.Process.ExecCPUAffinity; a != nil && a.Initial != "" {
		c.in.Facts.Clone3 = false // it counts before the child is in its cgroup, so it must not be born there
	}
	c.Why("linux.cgroupsPath")
	if in.Scope == "" {
		c.openCgroups(in.Cgroups)
	}
	c.joinResctrl(in.Resctrl)
	c.Why("")
	init, _ := c.CallR("the container's init", prog.SysFcntl, prog.Imm(int64(in.Pidfd)), prog.Imm(u.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), prog.Imm(3))
	c.keep = append(c.keep, init)
	if in.Process.Terminal {
		c.Why("process.terminal")
		c.sock = c.socketpair("through which the terminal is handed over")
		c.keep = append(c.keep, c.sock[1])
	}
	if in.Namespaces&u.CLONE_NEWUSER != 0 {
		labeller{c}.openHostProc()
	}
	if in.Namespaces&u.CLONE_NEWNS == 0 || !ownMounts(&s) { // its mount namespace is somebody else's, too: its root is not that namespace's
		c.Why("root")
		c.root, _ = c.CallR("the container's root", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/proc/"+strconv.Itoa(in.Pid)+"/root"), prog.Imm(pathFlags, pathText))
		c.keep = append(c.keep, c.root)
	}
	if in.Namespaces == 0 { // no setns(2) will find out
		c.Why("linux.namespaces")
		c.Call("the container's first process is still there", prog.SysPidfdSendSignal, prog.R(init), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
	c.clone(0)
	c.Lane(prog.Child)
	if err := c.execEnter(init, in.Namespaces, in.Scope); err != nil {
		return nil, err
	}
	if in.Process.Terminal {
		c.Why("process.terminal")
		root, _ := c.CallR("the container's root", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/"), prog.Imm(pathFlags, pathText))
		(nodes{c}).openTerminal(root, "/dev/pts/ptmx")
	}
	run := process{c}
	if err := run.scheduling(); err != nil {
		return nil, err
	}
	labeller{c}.process()
	run.lookup()
	if err := run.rlimits(); err != nil {
		return nil, err
	}
	c.Why("")
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(int64(3 + in.Facts.Preserve))}, Note: "nothing of the host's stays open"})
	if err := run.finish(); err != nil {
		return nil, err
	}
	return c.Program(), nil
}

// hugePages gives back what we have done without, and what execve would keep from the container.
func (c *compiler) hugePages() {
	if c.in.Facts.HugePages {
		c.Call("transparent huge pages are the host's to allow again", prog.SysPrctl, prog.Imm(u.PR_SET_THP_DISABLE, "PR_SET_THP_DISABLE"), prog.Imm(0), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	}
}

// ownMounts tells whether the container's mount namespace was made for it, so that the namespace's root is the container's.
func ownMounts(s *bundle.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace && n.Path == "" })
}

func (c *compiler) execEnter(init prog.Reg, flags uint64, scope string) error {
	c.Call("nobody in the container may trace us", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
	c.hugePages()
	if !c.spec.Process.Terminal {
		c.stdio(c.in.Facts.Stdio)
	}
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(int64(3 + c.in.Facts.Preserve))}, Keep: c.keep, Note: "close what is not ours"})
	c.ownOOMScore()
	cpus := c.spec.Process.ExecCPUAffinity
	if cpus == nil {
		cpus = &specs.CPUAffinity{}
	}
	if err := c.affinity("process.execCPUAffinity.initial", cpus.Initial); err != nil {
		return err
	}
	c.joinCgroups()
	if scope != "" {
		c.Lane(prog.Host)
		c.Why("linux.cgroupsPath")
		c.Emit(prog.Ins{Op: prog.Unit, Note: "AttachProcessesToUnit " + scope})
		c.Lane(prog.Child)
	}
	if err := c.affinity("process.execCPUAffinity.final", cpus.Final); err != nil {
		return err
	}
	c.Why("linux.namespaces")
	if flags != 0 {
		c.Call("enter all at once", prog.SysSetns, prog.R(init), prog.Imm(int64(flags), prog.NamespaceFlags(flags)))
	}
	if c.root != 0 {
		c.rootAt(c.root)
	}
	if flags&u.CLONE_NEWPID != 0 {
		c.Emit(prog.Ins{Op: prog.Fork, Flags: u.CLONE_PARENT | u.SIGCHLD, Note: "into the PID namespace"})
	}
	c.Why("")
	c.Call("", prog.SysSetsid)
	if flags&u.CLONE_NEWUSER != 0 {
		entry{c}.becomeRoot("linux.namespaces")
		c.Call("changing IDs must not have made us traceable", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
	}
	entry{c}.keyring("the session keyring of the container") // as the user to whom it belongs
	return nil
}
