// Package compile turns a bundle and facts about the host into a Program.
//
// It decides everything: order, fallbacks for older kernels, what may fail. It promises that equal inputs give equal Programs
// and that a config it cannot honour is refused with the field's name. It must never make a system call or read a file: what
// it needs to know comes in as Facts.
package compile

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Facts are what a Program depends on besides the bundle.
type Facts struct {
	Arch         string // Go's name of the architecture
	Major, Minor int    // kernel version
	LastCap      int    // highest capability number the kernel knows
	// Caps are the capabilities that we have ourselves, by number; 0: all.
	Caps uint64
	// OOMFloor is the least oom_score_adj that we may set; nil: any.
	OOMFloor *int
	// Home is the home folder of process.user in the container's own passwd, "/" where it has none; empty: the config sets HOME.
	Home string
	// Rootless tells that we are not the machine's root: what we may not do to cgroups is done without. User is who we are, as this
	// user namespace calls us, with our group; IDHelpers are newuidmap and newgidmap, where they are installed.
	Rootless  bool
	Nested    bool // we are in a user namespace that is not the machine's, as below rootless podman
	User      [2]uint32
	IDHelpers [2]string
	// HugePages tells that we do without transparent huge pages, and the container shall not.
	HugePages bool
	// Clone3 tells that clone3(2) may be used; some containers' filters refuse it.
	Clone3 bool
	// NoFile is the limit (soft, hard) of open files to set where the config sets none; zero leaves the inherited one.
	NoFile [2]uint64
	// AppArmor and SELinux tell which security module is at work; read only where the config asks.
	AppArmor, SELinux bool
	Cgroup            plan.Layout
	Resctrl           Resctrl
	// Delegate lists the files of a v2 cgroup that its owner may be given, where the container is to own it.
	Delegate []string
	// Sources tells of each bind mount's source what it is; a missing entry means that it does not exist.
	Sources map[string]Source
	// Shared tells which of the namespace files that the config names are of namespaces that we are in ourselves.
	Shared map[string]bool
	// Stdio are the descriptors of this process that become 0, 1, 2; AsInherited for one that is it already, and not closed by execve.
	Stdio [3]int
	// Null tells which of them are the host's /dev/null.
	Null [3]bool
	// Preserve is the number of descriptors from 3 on that the container inherits.
	Preserve int
	// Park holds two descriptors (control, status) through which another process releases the container; zero: the program's own.
	Park [2]int
}

// AsInherited is a standard descriptor that our own caller gave us, for the container as it is.
const AsInherited = -1

// Source is what a bind mount's source is.
type Source struct {
	Dir  bool
	Proc bool // it lies on a procfs
}

func (f *Facts) atLeast(major, minor int) bool {
	return f.Major > major || f.Major == major && f.Minor >= minor
}

// Input is a container to be made.
type Input struct {
	ID         string
	Bundle     string     // absolute folder; a relative root.path starts there
	CgroupPath string     // linux.cgroupsPath with its default filled in; with Unit that one's
	Unit       *plan.Unit // systemd makes the cgroup; nil: we do
	Spec       *bundle.Spec
	Rootfs     *bundle.Rootfs
	// MountsFile is the file that a mount namespace is held by where the container shall be in ours; see InheritsMounts.
	MountsFile string
	// Processors, where set, are those that the child may use: it is made on one only.
	Processors string
	// NoPivot moves the root in place of pivot_root(2); then HostKernelMounts says where proc and sysfs are mounted.
	NoPivot          bool
	HostKernelMounts []string
	Keyring          string // name of the session keyring; empty: stay in the caller's
	Facts            Facts
}

// compiler is what the phases share; each phase is a type of its own around it.
type compiler struct {
	emitter
	in      Input
	spec    *bundle.Spec
	tasks   []prog.Reg // files by which the child joins its cgroups
	groups  []prog.Reg // and its groups of resctrl
	into    prog.Reg   // the cgroup v2 folder that it is born in
	keep    []prog.Reg // descriptors that the child needs until it parks
	ns      namespaces
	filter  filter
	inside  inside
	exec    uint64      // of an exec: the clone flags of the namespaces that it enters
	park    [2]prog.Reg // control and status of another process's release
	sock    [2]prog.Reg // terminal hand-over: host's end, child's end
	copy    [2]prog.Reg // the same for folders to be copied
	host    fromHost
	late    []prog.Reg          // mounts that become read-only once all is in them
	placed  map[string]prog.Reg // those of the config's that were made, by their destination, as far as somebody will ask
	wanted  map[string]bool     // the destinations that somebody will ask for
	times   map[string]int      // how often each destination is named; see named
	dev     newDev
	layered map[int]prog.Reg // layers that the host lane has mounted, by their number
	// procfs handles, once there are any: see proc
	hostProc, ownProc prog.Reg
}

// fromHost is what was opened by paths of the host.
type fromHost struct {
	root  prog.Reg         // the folder that the root file system is
	got   map[int]prog.Arg // where it is noted which of the trees could be opened, by the same number
	trees map[int]prog.Reg // sources of bind mounts that are opened early, by the number of the mount
	again map[int]bool     // those that can be cloned once more
}

// The phases: the way into namespaces; the root file system; what is mounted in it, and bound; device nodes and terminals; what is hidden
// and read-only; kernel parameters; the process that will run; the cgroups it runs in.
type (
	entry      struct{ *compiler }
	rooter     struct{ *compiler }
	mounter    struct{ *compiler }
	binder     struct{ *compiler }
	nodes      struct{ *compiler }
	masker     struct{ *compiler }
	sysctls    struct{ *compiler }
	process    struct{ *compiler }
	cgroupLane struct{ *compiler }
)

const (
	pathFlags    = u.O_PATH | u.O_CLOEXEC
	pathText     = "O_PATH|O_CLOEXEC"
	inRoot       = u.RESOLVE_IN_ROOT | u.RESOLVE_NO_MAGICLINKS
	inRootText   = "IN_ROOT|NO_MAGICLINKS"
	defaultPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxArgBytes  = 6 << 20 // more than this execve(2) refuses whatever the limit of the stack is
	nobodyChange = -1
)

// Compile returns the Program that makes the container and runs its process.
func Compile(in Input) (*prog.Program, error) {
	if err := validate(in.Spec, &in.Facts); err != nil {
		return nil, err
	}
	c := &compiler{in: in, spec: in.Spec, placed: map[string]prog.Reg{}, host: fromHost{trees: map[int]prog.Reg{}, got: map[int]prog.Arg{}, again: map[int]bool{}}}
	if l := in.Spec.Linux.MountLabel; l != "" && !in.Facts.SELinux {
		c.Warn("linux.mountLabel: " + strconv.Quote(l) + ": SELinux is not enabled on this host; it is left out")
	}
	if err := (entry{c}).parseNamespaces(); err != nil {
		return nil, err
	}
	if err := c.parseFilter(); err != nil {
		return nil, err
	}
	if err := c.hostLane(); err != nil {
		return nil, err
	}
	c.Lane(prog.Child)
	m, r, k, n, p := mounter{c}, rooter{c}, masker{c}, nodes{c}, process{c}
	for _, phase := range []func() error{entry{c}.enter, c.hostNames, entry{c}.netDevices, r.layers, m.mounts, n.devices, sysctls{c}.write, n.terminal, n.null, hooker{p}.beforePivot, c.pivot,
		p.folder, k.maskedPaths, k.readonlyPaths, r.settle, entry{c}.backToOurMounts, p.beforePark, p.finish} {
		if err := phase(); err != nil {
			return nil, err
		}
	}
	hooker{p}.poststart()
	return c.Program(), nil
}

// rel makes a path usable below a handle.
func rel(p string) string {
	p = strings.TrimLeft(p, "/")
	if p == "" {
		return "."
	}
	return p
}

func field(name string, i int, rest string) string {
	return name + "[" + strconv.Itoa(i) + "]" + rest
}

func invalid(field, format string, args ...any) error {
	return errdef.New(errdef.InvalidArgument, "config.json: "+field+": "+format, args...)
}

func unsupported(field string) error {
	return errdef.New(errdef.NotImplemented, "config.json: %s is not implemented by this version of dhow", field)
}

// tooOld names the kernel that a field needs.
func (c *compiler) tooOld(field string, major, minor int) error {
	return errdef.New(errdef.NotImplemented, "config.json: %s needs Linux %d.%d; this is %d.%d", field, major, minor, c.in.Facts.Major, c.in.Facts.Minor)
}

// hostLane is what happens before the clone, and the clone.
func (c *compiler) hostLane() error {
	if err := c.connectListener(); err != nil {
		return err
	}
	if c.in.Unit == nil {
		if err := (cgroupLane{c}).cgroups(); err != nil {
			return err
		}
	}
	if err := (cgroupLane{c}).resctrl(); err != nil {
		return err
	}
	entry{c}.openNamespaces()
	if c.ns.user || c.ns.enters {
		labeller{c}.openHostProc()
	}
	if c.in.Facts.Park != [2]int{} {
		c.Why("")
		for k, name := range [2]string{"control", "status"} {
			c.park[k], _ = c.CallR("descriptor through which another process releases us: "+name, prog.SysFcntl,
				prog.Imm(int64(c.in.Facts.Park[k])), prog.Imm(u.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), prog.Imm(3))
			c.keep = append(c.keep, c.park[k])
		}
	}
	if c.spec.Process.Terminal {
		c.Why("process.terminal")
		c.sock = c.socketpair("through which the terminal is handed over")
		c.keep = append(c.keep, c.sock[1])
	}
	if slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool { return slices.Contains(m.Options, "tmpcopyup") }) {
		c.Why("mounts")
		c.copy = c.socketpair("through which folders to be copied are handed over")
		c.keep = append(c.keep, c.copy[1])
	}
	if err := (hooker{process{c}}).hostLane(); err != nil {
		return err
	}
	if err := (binder{c}).idmapped(); err != nil {
		return err
	}
	rooter{c}.fromLoops()
	c.Why("linux.namespaces")
	c.clone(c.ns.cloneFlags())
	return nil
}

func (c *compiler) clone(flags uint64) {
	if c.in.Facts.Clone3 {
		flags |= u.CLONE_CLEAR_SIGHAND
	}
	in := prog.Ins{Op: prog.Clone, Flags: flags | u.SIGCHLD, Out: c.Reg(), Note: "the child; it shares nothing but descriptors"}
	if c.into != 0 {
		in.Args[0] = prog.R(c.into)
	}
	c.Emit(in)
}

func (c *compiler) socketpair(note string) [2]prog.Reg {
	const afUnix, sockStream, sockCloexec = 1, 1, u.O_CLOEXEC
	mem := c.Bytes(make([]byte, 8), "&pair")
	c.Call(note, prog.SysSocketpair, prog.Imm(afUnix, "AF_UNIX"),
		prog.Imm(sockStream|sockCloexec, "SOCK_STREAM|SOCK_CLOEXEC"), prog.Imm(0), mem)
	var out [2]prog.Reg
	for k := range out {
		out[k] = c.Reg()
		c.Emit(prog.Ins{Op: prog.Load, Args: [6]prog.Arg{mem, prog.Imm(int64(4 * k))}, Out: out[k]})
	}
	return out
}
