package compile

import (
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// filter is linux.seccomp, compiled; the zero value where there is none.
type filter struct {
	*seccomp.Filter
	socket prog.Reg // connected to whoever listens, where the filter notifies
}

func (f *filter) notifies() bool { return f.Filter != nil && f.Notify }

// parseFilter compiles linux.seccomp, before anything is made.
func (c *compiler) parseFilter() error {
	s := c.spec.Linux.Seccomp
	if s == nil || s.DefaultAction == "" && len(s.Syscalls) == 0 { // the latter is none too, as for runc
		return nil
	}
	f, err := seccomp.Compile(s, c.in.Facts.Arch)
	if err != nil {
		return invalid("linux.seccomp", "%w", err)
	}
	if f.Refuses("execve") {
		return invalid("linux.seccomp", "refuses execve, by which the process's program is executed: allow it or answer it with SCMP_ACT_NOTIFY")
	}
	if f.Flags&seccomp.FlagWaitKillableRecv != 0 && !c.in.Facts.atLeast(5, 19) {
		return invalid("linux.seccomp.flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19")
	}
	c.filter.Filter = f
	return nil
}

// Length of sun_path (unix(7)), the NUL included.
const sunPath = 108

// connectListener connects to whoever shall listen, before anything is made that would have to be taken back.
func (c *compiler) connectListener() error {
	if !c.filter.notifies() {
		return nil
	}
	const afUnix, sockStream = 1, 1
	name := c.spec.Linux.Seccomp.ListenerPath
	if err := plainString("linux.seccomp.listenerPath", name); err != nil {
		return err
	}
	addr := name + "\x00"
	if strings.HasPrefix(name, "@") {
		addr = "\x00" + name[1:]
	} else if !strings.HasPrefix(name, "/") {
		return invalid("linux.seccomp.listenerPath", "%q is neither an absolute path nor @ and an abstract name", name)
	}
	if len(addr) > sunPath {
		return invalid("linux.seccomp.listenerPath", "%q is longer than the %d bytes that a socket's address has", name, sunPath-1)
	}
	c.Why("linux.seccomp.listenerPath")
	c.filter.socket, _ = c.CallR("to whoever listens", prog.SysSocket, prog.Imm(afUnix, "AF_UNIX"), prog.Imm(sockStream|u.O_CLOEXEC, "SOCK_STREAM|SOCK_CLOEXEC"), prog.Imm(0))
	sa := c.Bytes(append([]byte{afUnix, 0}, addr...), "{AF_UNIX, "+strconv.Quote(name)+"}")
	c.Call(name, prog.SysConnect, prog.R(c.filter.socket), sa, prog.Imm(int64(2+len(addr))))
	return nil
}

// restrict sets the capabilities and loads the filter: after the last call that it might forbid, which without
// no_new_privs is the capset that gives CAP_SYS_ADMIN up (seccomp(2), EACCES).
func (c process) restrict(s *capSets) error {
	needAdmin := c.filter.Filter != nil && !c.spec.Process.NoNewPrivileges
	if needAdmin && s.effective&(1<<capSysAdmin) == 0 {
		if c.filter.Refuses("capset") {
			return invalid("linux.seccomp", "refuses capset: allow it, or set process.noNewPrivileges; else CAP_SYS_ADMIN, which loading the filter needs, could not be given up")
		}
		if !c.staysRoot() || s.permitted&s.inheritable != 0 { // else all that we have is in effect until then, and nothing ambient stays
			wide := *s
			wide.effective |= 1 << capSysAdmin
			wide.permitted |= 1 << capSysAdmin
			c.capset(&wide, "CAP_SYS_ADMIN stays until the filter is loaded")
			c.ambient(s)
		}
		if err := c.loadFilter(); err != nil {
			return err
		}
		c.capset(s, "")
		return nil
	}
	c.capset(s, "")
	c.ambient(s)
	return c.loadFilter()
}

func (c process) loadFilter() error {
	f := &c.filter
	if f.Filter == nil {
		return nil
	}
	if f.Notify {
		return c.loadNotifying()
	}
	c.Why("linux.seccomp")
	c.Call("from here on the filter rules", prog.SysSeccomp, prog.Imm(u.SECCOMP_SET_FILTER, "SET_MODE_FILTER"), prog.Imm(int64(f.Flags)), c.filterCode())
	return nil
}

func (c process) filterCode() prog.Arg {
	n := len(c.filter.Insns)
	return c.Pointers(prog.U64(uint64(n), 0), []int{8}, []prog.Arg{c.Bytes(c.filter.Bytes(), "")}, "{"+strconv.Itoa(n)+" instructions}")
}

// loadNotifying loads a filter some of whose calls somebody else answers. From then on any call of the child's may wait for that somebody,
// so the child makes none before the host lane has taken the listener and handed it on: it tells beforehand which number the listener will
// have, which is the lowest that is free, and waits.
func (c process) loadNotifying() error {
	f := &c.filter
	if f.Refuses("read") {
		return invalid("linux.seccomp", "refuses read, by which the process waits until its listener is taken: allow it or answer it with SCMP_ACT_NOTIFY")
	}
	code := c.filterCode()
	c.Why("linux.seccomp.listenerPath")
	free, _ := c.CallR("the lowest free descriptor", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/"), prog.Imm(pathFlags, pathText))
	c.Call("", prog.SysClose, prog.R(free))
	c.Lane(prog.Host)
	c.Emit(prog.Ins{Op: prog.Listen, Args: [6]prog.Arg{prog.R(free), prog.R(f.socket)}, Note: "take the listener once the child has it: " + c.spec.Linux.Seccomp.ListenerPath})
	c.Lane(prog.Child)
	c.Why("linux.seccomp")
	c.Call("from here on the filter rules", prog.SysSeccomp, prog.Imm(u.SECCOMP_SET_FILTER, "SET_MODE_FILTER"), prog.Imm(int64(f.Flags)), code).To(free)
	c.parkHere(true)
	c.Why("linux.seccomp.listenerPath")
	if f.Passes("close") { // the listener ends with its last holder, and then calls answer ENOSYS: we must not be one
		c.Call("the listener is somebody else's", prog.SysClose, prog.R(free))
	}
	return nil
}
