// Package oci is the runtime: it compiles a bundle into a Program, runs it, and afterwards knows, signals, enters and deletes
// the container that came of it.
//
// It promises that a failed step undoes all before it, and that what it leaves on disk under Root suffices for another process
// to go on. It must never execute a program other than the container's own (and hooks), nor import the engine's world.
package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/device"
	"github.com/dhow-containers/dhow/internal/oci/facts"
	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// CreateOptions says what Create shall make.
type CreateOptions struct {
	ID     string         // a path component, [a-zA-Z0-9_+.-]
	Root   string         // folder of runtime state: Root/ID/state.json, Root/ID/program.txt
	Bundle string         // absolute folder of the bundle
	Spec   *bundle.Spec   // as loaded from the bundle
	Rootfs *bundle.Rootfs // nil: Spec.Root.Path is used as it is
	// Config, where set, is the text of config.json, kept with the state: later changes to the bundle's do not affect the container
	// (runtime-spec, runtime.md, Create). Without it the bundle must not change.
	Config []byte
	// Stdio are the container's descriptors 0, 1, 2. With Spec.Process.Terminal they are unused.
	Stdio [3]*os.File
	// Console receives the master side of the terminal when Spec.Process.Terminal is set, and owns it.
	Console func(master *os.File) error
	// PreserveFDs passes the descriptors 3 .. 3+n-1 of this process on. In this process they close on exec from then on.
	PreserveFDs int
	// Host gives the host's facts; nil reads them.
	Host facts.Host
	// Warn is told what the config asks for and cannot have, where the spec wants the container to be made all the same; nil: nobody is.
	Warn func(text string)
	// Trace, where set, is where the executed instructions are printed with their times, once the container is started, or created with
	// Detached.
	Trace io.Writer
	// Systemd has systemd make the cgroup, as a scope; linux.cgroupsPath is then SLICE:PREFIX:NAME.
	Systemd bool
	// Rootless tells whether to do without the cgroups that we may not make; nil: where we are not the machine's root.
	Rootless *bool
	// Detached lets another process Start the container, after this one has ended.
	Detached bool
	// NoPivot moves the root in place of pivot_root(2), which a root on a ramdisk does not take.
	NoPivot bool
	// NoNewKeyring leaves the container in the session keyring of this process.
	NoNewKeyring bool
	// Notify gives the container a folder for a service manager's socket, State.Notify, and NOTIFY_SOCKET in its environment.
	Notify bool
}

// firstPreserved is the first of the descriptors that are passed on.
const firstPreserved = 3

// Process is a child of this process: the init or an exec.
type Process struct {
	Pid   int
	Pidfd *os.File // CLOEXEC; readable when the process has ended
}

// Container is a container that was created. Start and Delete are for one goroutine at a time; what acts on a running container (Exec,
// Signal, Pause, Resume, Update, Status) may be called from several.
type Container struct {
	State   state.State
	root    string
	spec    *bundle.Spec
	init    *Process
	program *prog.Program
	trace   io.Writer
	running *interp.Running // until it is started; nil in another process than the creator
	// mounts keeps the mount namespace: taking it down costs milliseconds, which would else delay init's end. The last reference goes
	// with this process, after everybody was told.
	mounts *os.File
	// Warn is told what went wrong and is no error: a poststop hook that failed. With nil it is one, after all else was done.
	Warn func(text string)
}

// Create makes a container up to the point before its program is executed: status "created".
func Create(o CreateOptions) (_ *Container, err error) {
	defer unix.Umask(unix.Umask(0o022)) // cgroups and mount points are for the container's users too
	dir, lock, err := newFolder(&o)
	if err != nil {
		return nil, err
	}
	defer func() { lock.release(err != nil) }()
	if o.Notify {
		if err := os.Mkdir(notifyFolder(&o, dir), 0o755); err != nil {
			return nil, fmt.Errorf("create container %s: %w", o.ID, err)
		}
	}
	in, closeFacts, err := input(&o, dir)
	if err != nil {
		return nil, err
	}
	defer closeFacts()
	var where *processor
	if o.Spec.Linux != nil && compile.InheritsMounts(&in) {
		where = youngest()
		in.Processors = where.list()
	}
	p, err := compile.Compile(in)
	if err != nil {
		return nil, err
	}
	warn(o.Warn, p)
	c := &Container{root: o.Root, spec: o.Spec, program: p, trace: o.Trace, Warn: o.Warn}
	return c, c.make(&o, in, dir, where)
}

func warn(to func(string), p *prog.Program) {
	if to == nil {
		return
	}
	for _, text := range p.Warnings {
		to(text)
	}
}

// Plan returns the Program that Create would run, and makes nothing.
func Plan(o CreateOptions) (*prog.Program, error) {
	in, closeFacts, err := input(&o, "")
	if err != nil {
		return nil, err
	}
	defer closeFacts()
	return compile.Compile(in)
}

// input gathers the compiler's input. With a state folder and Detached it makes the FIFOs; the function returned closes them.
func input(o *CreateOptions, dir string) (compile.Input, func(), error) {
	nothing := func() {}
	if o.Notify && dir != "" {
		o.Spec = withNotify(o.Spec, notifyFolder(o, dir))
	}
	f, err := o.Host.Read(o.Bundle, o.Spec)
	if err != nil {
		return compile.Input{}, nothing, err
	}
	f.Preserve, f.Stdio = o.PreserveFDs, numbers(o.Stdio)
	for k, fd := range f.Stdio {
		if fd == compile.AsInherited {
			fd = k
		}
		f.Null[k] = isNull(fd)
	}
	if o.Rootfs == nil && o.Spec.Root != nil { // who gives layers knows their users, too
		f.Home = facts.Home(o.Bundle, rootOf(o), o.Spec)
	}
	if o.Rootless != nil {
		f.Rootless = *o.Rootless
	}
	in := compile.Input{ID: o.ID, Bundle: o.Bundle, Spec: o.Spec, Rootfs: o.Rootfs, Facts: f, MountsFile: filepath.Join(o.Root, o.ID, state.Mounts), NoPivot: o.NoPivot}
	if in.Keyring, err = keyringName(o); err != nil {
		return in, nothing, err
	}
	if err := place(o, &in); err != nil {
		return in, nothing, err
	}
	if o.NoPivot {
		if in.HostKernelMounts, err = facts.KernelMounts(); err != nil {
			return in, nothing, err
		}
	}
	if o.Detached && dir != "" {
		var files [2]*os.File
		for k, name := range [2]string{state.ParkCtl, state.ParkStat} {
			if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
				return in, nothing, fmt.Errorf("mkfifo %s: %w", name, err)
			}
			if files[k], err = os.OpenFile(filepath.Join(dir, name), os.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
				return in, nothing, err
			}
			in.Facts.Park[k] = int(files[k].Fd()) // Fd makes it blocking, which the child needs
		}
		return in, func() { files[0].Close(); files[1].Close() }, nil
	}
	return in, nothing, nil
}

// numbers are the descriptors that become 0, 1 and 2: our own, left as they are, where none is given.
func numbers(files [3]*os.File) [3]int {
	fds := [3]int{compile.AsInherited, compile.AsInherited, compile.AsInherited}
	for k, file := range files {
		if file != nil {
			fds[k] = int(file.Fd())
		}
	}
	return fds
}

func isNull(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// cgroupPath is where the container's cgroup is to be: by default below the top, or for a user near his own cgroup, which may be delegated.
func cgroupPath(o *CreateOptions, rootless bool) string {
	if o.Spec.Linux != nil && o.Spec.Linux.CgroupsPath != "" {
		return o.Spec.Linux.CgroupsPath
	}
	if rootless {
		return o.ID
	}
	return "/" + o.ID
}

func (c *Container) make(o *CreateOptions, in compile.Input, dir string, where *processor) error {
	if err := state.Write(dir, state.Parked, nil); err != nil {
		return err
	}
	dirs, err := in.CgroupDirs()
	if err == nil && in.Unit == nil {
		err = unoccupied(dirs)
	}
	if err != nil {
		return err
	}
	c.State = state.State{
		Version: specs.Version, ID: o.ID, Bundle: o.Bundle, Rootfs: rootOf(o), Created: time.Now().UTC(),
		CgroupPath: in.CgroupPath, Cgroups: dirs, Annotations: o.Spec.Annotations,
		NoNewKeyring: o.NoNewKeyring, Keyring: in.Keyring, SharedPids: SharesPids(o.Spec), Notify: notifyFolder(o, dir),
	}
	c.State.Resctrl, c.State.Removes = compile.ResctrlDirs(&in)
	h := o.Spec.Hooks
	c.State.NoHooks = h == nil || len(h.Poststart)+len(h.Poststop) == 0
	if in.Unit != nil {
		c.State.Unit, c.State.UserUnit = in.Unit.Name, in.Unit.User
	}
	if err := state.Save(dir, &c.State); err != nil { // before anything exists: whoever finds it can take it back
		return err
	}
	if err := watch(o.Root, o.ID, o.Spec, o.Spec.Process); err != nil {
		return err
	}
	var storeErr error
	if o.Spec.Linux != nil && compile.InheritsMounts(&in) {
		if err := state.Write(dir, state.Mounts, nil); err != nil {
			return err
		}
	}
	var networks device.Networks
	env := interp.Env{Trace: o.Trace != nil, Hook: c.hook, HookState: func(kind string, pid int) ([]byte, error) { return hookStateInside(&c.State, kind, pid) }, CopyUp: copyUp(o.Spec), Unit: startUnit(in.Unit), NetDevice: networks.Move, Loop: device.Loop, Terminal: func(fd int) error {
		if o.Console == nil {
			syscall.Close(fd)
			return errdef.New(errdef.InvalidArgument, "process.terminal is set but nobody takes the terminal (console socket)")
		}
		return o.Console(os.NewFile(uintptr(fd), "console"))
	}, Listener: listenerOf(&c.State, o.Spec, specs.StateCreating), Meanwhile: func() { // it takes as long as the child needs for a good part of the program
		if o.PreserveFDs > 0 { // the child has its own: hooks, and whoever else we execute, get none
			unix.CloseRange(firstPreserved, uint(firstPreserved+o.PreserveFDs-1), unix.CLOSE_RANGE_CLOEXEC)
		}
		storeErr = state.Write(dir, state.Program, c.program.Bytes())
		if storeErr == nil && o.Config != nil {
			storeErr = state.Write(dir, bundle.ConfigFile, o.Config)
		}
	}}
	running, err := where.run(c.program, env)
	if err == nil {
		c.running = running
		if err = c.born(running.Pid, dir); err == nil && storeErr != nil {
			err = fmt.Errorf("store program and config: %w", storeErr)
		}
		if err == nil && o.Detached {
			err = interp.HandOver(running)
		}
		if err != nil {
			running.Kill()
		}
	}
	if err != nil {
		made := madeGroups(c.program, err)
		err = explain(c.program, err)
		if rmErr := errors.Join(networks.Back(), removeCgroups(&c.State), removeDirs(made)); rmErr != nil {
			err = fmt.Errorf("%w (and undoing it: %v)", err, rmErr)
		}
		if hookErr := c.poststop(o.Spec.Hooks); hookErr != nil { // what createRuntime hooks made they take back (runtime.md, Lifecycle, 13)
			err = fmt.Errorf("%w (and undoing it: %v)", err, hookErr)
		}
		return err
	}
	networks.Stay()
	if o.Detached {
		c.running = nil
		return trace(o.Trace, c.program, running.Times())
	}
	return nil
}

// born records the child's PID before anybody is told of it.
func (c *Container) born(pid int, dir string) error {
	p, err := process(pid)
	if err != nil {
		return err
	}
	c.init = p
	mounts, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		c.mounts = os.NewFile(uintptr(mounts), "mount namespace")
	case unix.EACCES: // an ordinary user may not look into a process that nobody may trace: he waits those milliseconds
	default:
		return fmt.Errorf("hold mount namespace: %w", err)
	}
	c.State.Pid = pid
	if c.State.StartTime, _, err = state.StartTime(pid); err != nil {
		return err
	}
	return state.Save(dir, &c.State)
}

func process(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return &Process{Pid: pid, Pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func rootOf(o *CreateOptions) string {
	if o.Rootfs != nil {
		return o.Rootfs.Scratch
	}
	if filepath.IsAbs(o.Spec.Root.Path) {
		return o.Spec.Root.Path
	}
	return filepath.Join(o.Bundle, o.Spec.Root.Path)
}

// explain turns a failed instruction into words: field, call, object, errno, what to do.
func explain(p *prog.Program, err error) error {
	var step *interp.StepError
	if !errors.As(err, &step) || step.Index >= len(p.Ins) || step.Index < 0 {
		return err
	}
	in := &p.Ins[step.Index]
	if step.Err != nil {
		return fmt.Errorf("%s: %w", in.Why, step.Err)
	}
	if strings.HasPrefix(in.Note, "exec: ") && step.Errno != interp.Lost {
		return execError(in.Note, step.Errno)
	}
	if strings.HasPrefix(in.Why, "hooks.") && in.Note != "" {
		return hookError(in.Why, in.Note, step)
	}
	if in.Op == prog.Expect {
		return errdef.New(errdef.InvalidArgument, "%s: it is not so that %s [instruction %d of the program]", in.Why, in.Note, step.Index)
	}
	what := in.Note
	if in.Op == prog.Syscall {
		what = strings.TrimSpace(in.Sys.Name() + " " + objectOf(p, step.Index))
	}
	if in.Sys == prog.SysFsconfig && in.Args[2].Kind == prog.InData { // which option it is about
		what += ": option " + in.Args[2].Text
		if in.Args[3].Kind == prog.InData {
			what += " " + in.Args[3].Text
		}
	}
	why := in.Why
	if why == "" {
		why = "container"
	}
	text := fmt.Sprintf("%s: %s: %v", why, what, step.Errno)
	if hint := hintFor(in, step.Errno); hint != "" {
		text += " (" + hint + ")"
	}
	kind := kindOf(step.Errno)
	if in.Op == prog.Fail {
		kind = errdef.InvalidArgument // the config asked for it
	}
	return errdef.New(kind, "%s [instruction %d of the program]", text, step.Index)
}

func kindOf(e syscall.Errno) errdef.Kind {
	switch e {
	case syscall.EINVAL, syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG:
		return errdef.InvalidArgument
	}
	return errdef.System
}

// execError uses the words by which docker and its kin tell exit codes 127 and 126.
func execError(note string, e syscall.Errno) error {
	name := strings.Trim(strings.TrimPrefix(note, "exec: "), `"`)
	switch {
	case e == syscall.ENOENT && !strings.Contains(name, "/"):
		return errdef.New(errdef.NotFound, "%s: executable file not found in $PATH", note)
	case e == syscall.ENOENT || e == syscall.ENOTDIR:
		return errdef.New(errdef.NotFound, "%s: stat %s: no such file or directory", note, name)
	case e == syscall.EACCES || e == syscall.EPERM || e == syscall.EISDIR:
		return errdef.New(errdef.Forbidden, "%s: permission denied", note)
	case e == syscall.ENOEXEC:
		return errdef.New(errdef.Forbidden, "%s: exec format error (built for another architecture, or a script without #!): permission denied", note)
	}
	return errdef.New(errdef.System, "%s: %v", note, e)
}

// objectOf names what an instruction was about: its note, else that of the nearest one before it for the same reason.
func objectOf(p *prog.Program, i int) string {
	why := p.Ins[i].Why
	for k := i; k >= 0 && p.Ins[k].Why == why; k-- {
		if p.Ins[k].Note != "" && p.Ins[k].Op == prog.Syscall {
			return p.Ins[k].Note
		}
	}
	for _, a := range p.Ins[i].Args {
		if a.Kind == prog.InData && strings.HasPrefix(a.Text, `"`) && a.Text != `""` {
			return strings.Trim(a.Text, `"`)
		}
	}
	return ""
}

func hintFor(in *prog.Ins, e syscall.Errno) string {
	switch {
	case e == interp.Lost:
		return "the process was killed before it was ready; is its memory limit too small?"
	case in.Op == prog.Fail:
		return "" // its note says it all
	case in.Op == prog.Clone || strings.HasPrefix(in.Why, "linux.cgroupsPath") || strings.HasPrefix(in.Why, "linux.resources"):
		return cgroupHint(in, e)
	case in.Sys == prog.SysConnect:
		return "is the seccomp agent running?"
	case in.Op == prog.Listen && e == syscall.EPERM:
		return "taking a descriptor out of the container's process needs CAP_SYS_PTRACE"
	case e == syscall.EPERM && in.Sys == prog.SysPrlimit64:
		return "a hard limit above our own needs CAP_SYS_RESOURCE, and of open files none is above fs.nr_open"
	case e == syscall.EINVAL && in.Why == "process.user":
		return "are these IDs mapped by linux.uidMappings and linux.gidMappings?"
	case e == syscall.ENOENT && in.Why == "process.terminal":
		return "a terminal needs a devpts, mounted on /dev/pts"
	case in.Sys == prog.SysMoveMount && (e == syscall.EINVAL || e == syscall.ENOTDIR):
		return "a folder can be mounted on folders, anything else on what is no folder"
	case e == syscall.ENOENT && in.Sys == prog.SysWrite && in.Why == "process.apparmorProfile":
		return "no such profile is loaded; see apparmor_parser(8)"
	case e == syscall.EINVAL && in.Why == "process.selinuxLabel":
		return "the policy knows no such label"
	case e == syscall.EPERM || e == syscall.EACCES:
		return "are we root, with the needed capabilities?"
	case e == syscall.ENOSYS:
		return "this kernel is too old"
	case e == syscall.EINVAL && in.Sys == prog.SysMountSetattr && strings.HasPrefix(in.Note, "map the owners"):
		return "does this kernel map owners on that file system? tmpfs: since Linux 6.3"
	case e == syscall.ENODEV && in.Sys == prog.SysFsopen:
		return "this kernel does not have that file system"
	}
	return ""
}
