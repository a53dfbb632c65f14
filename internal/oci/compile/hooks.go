package compile

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// The hooks of two kinds run inside the container's namespaces, one of them a program of the container's. Nobody of ours enters there: the
// child clones a process that becomes the hook, and waits for it.
const (
	createContainer = "createContainer"
	startContainer  = "startContainer"
)

// hooker runs hooks, from the host lane or inside.
type hooker struct{ process }

// inside are the descriptors of hooks inside the container: the state that each kind reads, and where they print to.
type inside struct {
	state  map[string]prog.Reg
	output prog.Reg
}

func validateHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, kind := range hookNames() {
		for i, one := range hooksOf(h, kind) {
			name := field("hooks."+kind, i, "")
			switch {
			case !strings.HasPrefix(one.Path, "/"):
				return invalid(name+".path", "%q is not an absolute path", one.Path)
			case one.Timeout != nil && *one.Timeout <= 0:
				return invalid(name+".timeout", "%d is not greater than zero", *one.Timeout)
			}
			if err := plainString(name, slices.Concat([]string{one.Path}, one.Args, one.Env)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func hookNames() []string {
	return []string{"prestart", "createRuntime", createContainer, startContainer, "poststart", "poststop"}
}

func hooksOf(h *specs.Hooks, kind string) []specs.Hook {
	if h == nil {
		return nil
	}
	switch kind {
	case "prestart":
		//lint:ignore SA1019 the spec deprecates it and still requires it of runtimes
		return h.Prestart //nolint:staticcheck
	case "createRuntime":
		return h.CreateRuntime
	case createContainer:
		return h.CreateContainer
	case startContainer:
		return h.StartContainer
	case "poststart":
		return h.Poststart
	}
	return h.Poststop
}

func (c *compiler) hooksOf(kind string) []specs.Hook { return hooksOf(c.spec.Hooks, kind) }

// hostLane makes what hooks inside need from the host: memory files, which no folder of the container's has to hold.
func (c hooker) hostLane() error {
	s := c.spec
	if err := c.allowed(); err != nil {
		return err
	}
	if len(c.hooksOf(createContainer)) > 0 && c.ns.joins(u.CLONE_NEWNS) { // their path is the runtime's (config.md, POSIX-platform Hooks)
		return invalid("hooks.createContainer", "they are programs of the host's, of which a joined mount namespace knows nothing: what has their names there is somebody else's; use createRuntime hooks")
	}
	c.inside.state = map[string]prog.Reg{}
	for _, kind := range []string{createContainer, startContainer} {
		if len(hooksOf(s.Hooks, kind)) > 0 {
			c.Why("hooks." + kind)
			c.inside.state[kind] = c.memfd("the state that the hooks read")
		}
	}
	if len(c.inside.state) > 0 {
		c.inside.output = c.memfd("what the hooks print")
		c.Output(c.inside.output)
	}
	return nil
}

func (c hooker) memfd(note string) prog.Reg {
	r, _ := c.CallR(note, prog.SysMemfdCreate, c.Str("hooks"), prog.Imm(u.MFD_CLOEXEC|u.MFD_ALLOW_SEALING, "CLOEXEC|ALLOW_SEALING"))
	c.keep = append(c.keep, r)
	return r
}

// beforePivot runs the hooks that see the container's root file system ready but not entered.
func (c hooker) beforePivot() error {
	for _, kind := range []string{"prestart", "createRuntime"} {
		if list := c.hooksOf(kind); len(list) > 0 {
			c.Lane(prog.Host)
			c.outside(kind, list)
			c.Lane(prog.Child)
		}
	}
	c.tellState(createContainer)
	for i, h := range c.hooksOf(createContainer) {
		err := c.run(createContainer, i, h, func() error {
			c.Call("", prog.SysChdir, c.Str("/")) // not where we made mounts, whatever comes next
			c.Call("", prog.SysChdir, c.Str(c.in.Bundle)).Tolerate(u.EACCES)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// afterStart runs the hooks that are programs of the container's, as its process and confined as that: prepare makes them so.
func (c hooker) afterStart(prepare func() error) error {
	for i, h := range c.hooksOf(startContainer) {
		if err := c.run(startContainer, i, h, prepare); err != nil {
			return err
		}
	}
	return nil
}

// allowed refuses a filter that keeps hooks from being run under it: one that notifies is loaded before start, and then there is none
// without it.
func (c hooker) allowed() error {
	if len(c.hooksOf(startContainer)) == 0 || !c.filter.notifies() {
		return nil
	}
	for _, name := range []string{"clone", "lseek", "dup3", "waitid", "ppoll", "pidfd_send_signal"} {
		if c.filter.Refuses(name) {
			return invalid("linux.seccomp", "refuses %s, by which startContainer hooks are run: allow it or answer it with SCMP_ACT_NOTIFY", name)
		}
	}
	return nil
}

func (c hooker) poststart() {
	if list := c.hooksOf("poststart"); len(list) > 0 {
		c.Lane(prog.Host)
		c.outside("poststart", list)
	}
}

// outside runs hooks from the host lane.
func (c hooker) outside(kind string, list []specs.Hook) {
	for i, h := range list {
		c.Why(field("hooks."+kind, i, ""))
		call := prog.HookCall{Kind: kind, Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			call.Timeout = *h.Timeout
		}
		c.Hook(call)
	}
}

// tellState has the host lane write the state: only now are all its parts known.
func (c hooker) tellState(kind string) {
	if fd := c.inside.state[kind]; fd != 0 {
		c.Why("hooks." + kind)
		c.Lane(prog.Host)
		c.HookState(kind, fd)
		c.Lane(prog.Child)
	}
}

const (
	siginfoSize             = 128
	siginfoCode             = 8
	siginfoStatus           = 24
	cldExited               = 1
	pPidfd, wExited         = 3, 4
	sigkill                 = 9
	pollin                  = 1
	seekSet                 = 0
	hookTimeout             = 110 // ETIMEDOUT
	hookFailed      u.Errno = 125 // ECANCELED: the hook said no
)

// run clones a process, which does what prepare emits and executes the hook, and waits until it has ended well.
func (c hooker) run(kind string, i int, h specs.Hook, prepare func() error) error {
	why := field("hooks."+kind, i, "")
	c.Why(why)
	waits, late, failed, done := c.Label(), c.Label(), c.Label(), c.Label()
	pidfd := c.Bytes(make([]byte, 4), "&pidfd")
	c.Spawn("a process for "+kind+" hook "+h.Path, pidfd, waits)
	c.Call("", prog.SysLseek, prog.R(c.inside.state[kind]), prog.Imm(0), prog.Imm(seekSet, "SEEK_SET"))
	for k, fd := range []prog.Reg{c.inside.state[kind], c.inside.output, c.inside.output} {
		c.Call("", prog.SysDup3, prog.R(fd), prog.Imm(int64(k)), prog.Imm(0))
	}
	c.Emit(prog.Ins{Op: prog.Keep, Args: [6]prog.Arg{prog.Imm(3)}, Note: "the hook gets no more"})
	if err := prepare(); err != nil {
		return err
	}
	c.Why(why)
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	c.Call("hook "+h.Path, prog.SysExecve, c.Str(h.Path), c.Strings(args, prog.List(args)), c.Strings(h.Env, strconv.Itoa(len(h.Env))+" variables"))
	c.Emit(prog.Ins{Op: prog.Fail, Errno: u.ENOENT, Note: "hook " + h.Path}) // not reached: execve does not return
	c.Bind(waits)
	c.await(h, pidfd, late)
	info := c.Bytes(make([]byte, siginfoSize), "&siginfo")
	fd := c.Reg()
	c.Emit(prog.Ins{Op: prog.Load, Args: [6]prog.Arg{pidfd, prog.Imm(0)}, Out: fd})
	c.Call("wait for it", prog.SysWaitid, prog.Imm(pPidfd, "P_PIDFD"), prog.R(fd), info, prog.Imm(wExited, "WEXITED"), prog.Imm(0))
	c.Call("", prog.SysClose, prog.R(fd))
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{info, prog.Imm(siginfoCode), prog.Imm(cldExited, "CLD_EXITED"), prog.Imm(0xffffffff)}}).Otherwise(failed)
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{info, prog.Imm(siginfoStatus), prog.Imm(0), prog.Imm(0xffffffff)}}).Otherwise(failed)
	c.Jump(done)
	if h.Timeout != nil {
		c.Bind(late)
		c.Emit(prog.Ins{Op: prog.Load, Args: [6]prog.Arg{pidfd, prog.Imm(0)}, Out: fd})
		c.Call("", prog.SysPidfdSendSignal, prog.R(fd), prog.Imm(sigkill, "SIGKILL"), prog.Imm(0), prog.Imm(0))
		c.Emit(prog.Ins{Op: prog.Fail, Errno: hookTimeout, Note: "hook " + h.Path + ": still running after " + strconv.Itoa(*h.Timeout) + " s, killed"})
	}
	c.Bind(failed)
	c.Emit(prog.Ins{Op: prog.Fail, Errno: hookFailed, Args: [6]prog.Arg{info, prog.Imm(siginfoCode), prog.Imm(siginfoStatus)}, Note: "hook " + h.Path})
	c.Bind(done)
	return nil
}

// await lets the time pass that a hook has, and goes to late when it has passed.
func (c hooker) await(h specs.Hook, pidfd prog.Arg, late prog.Label) {
	if h.Timeout == nil {
		return
	}
	fd, n := c.Reg(), prog.Reg(0)
	c.Emit(prog.Ins{Op: prog.Load, Args: [6]prog.Arg{pidfd, prog.Imm(0)}, Out: fd})
	poll := c.Bytes(prog.U32(0, pollin), "&{pidfd, POLLIN}")
	c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(fd), poll, prog.Imm(0)}})
	n, _ = c.CallR("for so long", prog.SysPpoll, poll, prog.Imm(1), c.Bytes(prog.U64(uint64(*h.Timeout), 0), "{"+strconv.Itoa(*h.Timeout)+" s}"), prog.Imm(0), prog.Imm(0))
	ready := c.Bytes(make([]byte, 4), "&ready")
	c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(n), ready, prog.Imm(0)}})
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{ready, prog.Imm(0), prog.Imm(1), prog.Imm(0xffffffff)}}).Otherwise(late)
}

// stateKept lists what hooks need that run after the container was created.
func (c hooker) stateKept() []prog.Reg {
	if fd := c.inside.state[startContainer]; fd != 0 {
		return []prog.Reg{fd, c.inside.output}
	}
	return nil
}
