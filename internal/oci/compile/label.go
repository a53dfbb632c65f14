package compile

import (
	"strconv"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// labeller is the phase of security labels, which belong to several others.
type labeller struct{ *compiler }

// maxLabel bounds a profile's or label's name: the kernel takes one page of /proc/PID/attr/* and fsconfig(2) 256 bytes less its own.
const maxLabel = 4000

// validateLabels refuses what no security module here could honour.
func validateLabels(s *bundle.Spec, f *Facts) error {
	p := s.Process
	for _, l := range [...]struct {
		field, value, module string
		on                   bool
	}{
		{"process.apparmorProfile", p.ApparmorProfile, "AppArmor", f.AppArmor || p.ApparmorProfile == "unconfined"},
		{"process.selinuxLabel", p.SelinuxLabel, "SELinux", f.SELinux},
		{"linux.mountLabel", s.Linux.MountLabel, "SELinux", f.SELinux},
	} {
		switch {
		case l.value == "":
		case strings.ContainsFunc(l.value, func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' }) || strings.TrimSpace(l.value) != l.value || len(l.value) > maxLabel:
			return invalid(l.field, "%q is no name of a profile or label", l.value)
		case l.field == "linux.mountLabel" && !l.on: // nobody would look at it: left out, with a warning
		case !l.on:
			return invalid(l.field, "%q: %s is not enabled on this host; enable it or leave the field out", l.value, l.module)
		}
	}
	return nil
}

// mountLabel is the SELinux label for file systems; empty where no SELinux would look at it.
func mountLabel(c *compiler) string {
	if !c.in.Facts.SELinux {
		return ""
	}
	return c.spec.Linux.MountLabel
}

// proc returns a handle of a procfs in which nothing of the container's can stand in for a file: a new instance that only this process
// sees, or in a user namespace, where the kernel may refuse that (mount_too_revealing), the host's, opened before the clone.
func (c labeller) proc() prog.Reg {
	if c.hostProc != 0 {
		return c.hostProc
	}
	if c.ownProc == 0 {
		c.ownProc = c.fsmount("", c.fsopen("a procfs nobody else sees", "proc"), 0)
	}
	return c.ownProc
}

// openHostProc is for the host lane.
func (c labeller) openHostProc() {
	p := c.spec.Process
	if p.ApparmorProfile == "" && p.SelinuxLabel == "" {
		return
	}
	c.Why("")
	c.hostProc, _ = c.CallR("the host's procfs", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/proc"), prog.Imm(pathFlags, pathText))
	c.expectProc(c.hostProc)
	c.keep = append(c.keep, c.hostProc)
}

func (c *emitter) expectProc(fd prog.Reg) {
	st := c.Bytes(make([]byte, 120), "&statfs")
	c.Call("", prog.SysFstatfs, prog.R(fd), st)
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(0), prog.Imm(u.PROC_SUPER_MAGIC, "PROC_SUPER_MAGIC"), prog.Imm(0xffffffff)},
		Errno: u.ENODEV, Note: "it is procfs"})
}

// attribute writes a file of this very thread's /proc/PID/attr (proc(5)); of several names the first that exists. What is opened is
// checked to be on procfs: a write that went elsewhere would leave the process unconfined.
func (c labeller) attribute(note, value string, names ...string) {
	proc, opened := c.proc(), c.Label()
	how := c.Bytes(prog.U64(u.O_WRONLY|u.O_CLOEXEC, 0, inRoot|u.RESOLVE_NO_XDEV), "{O_WRONLY|O_CLOEXEC, "+inRootText+"|NO_XDEV}")
	var fd prog.Reg
	for i, name := range names {
		next := c.Label()
		r, at := c.CallR("", prog.SysOpenat2, prog.R(proc), c.Str("thread-self/attr/"+name), how, prog.Imm(24))
		if i == 0 {
			fd = r
		}
		at.To(fd)
		if i < len(names)-1 {
			at.Else(next, u.ENOENT)
			c.Jump(opened)
		}
		c.Bind(next)
	}
	c.Bind(opened)
	c.expectProc(fd)
	c.Call(note, prog.SysWrite, prog.R(fd), c.Bytes([]byte(value), strconv.Quote(value)), prog.Imm(int64(len(value))))
	c.Call("", prog.SysClose, prog.R(fd))
}

// process has the kernel change profile and label at the next execve.
func (c labeller) process() {
	p := c.spec.Process
	if p.ApparmorProfile != "" && c.in.Facts.AppArmor {
		c.Why("process.apparmorProfile")
		c.attribute("profile "+p.ApparmorProfile, "exec "+p.ApparmorProfile, "apparmor/exec", "exec")
	}
	if p.SelinuxLabel != "" {
		c.Why("process.selinuxLabel")
		c.attribute("label "+p.SelinuxLabel, p.SelinuxLabel, "exec")
	}
}

// keyring comes before the session keyring is made: a confined process may use keys of its own label only. execve(2) takes it back.
func (c labeller) keyring() {
	if l := c.spec.Process.SelinuxLabel; l != "" {
		c.Why("process.selinuxLabel")
		c.attribute("label of the keyring "+l, l, "keycreate")
	}
}

// context gives a file system that is being made the SELinux label of the container's files; a mount's own option goes before.
func (c labeller) context(fs prog.Reg, options []string) {
	l := mountLabel(c.compiler)
	for _, o := range options {
		if strings.HasPrefix(o, "context=") {
			return
		}
	}
	if l == "" {
		return
	}
	why := c.WhyNow()
	c.Why("linux.mountLabel")
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "context", l, 0)
	c.Why(why)
}

// contextValue is an option's value for fsconfig(2): the quotes that keep the commas of a label together in a list of options are not
// part of it.
func contextValue(key, value string) string {
	switch key {
	case "context", "fscontext", "defcontext", "rootcontext":
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			return value[1 : len(value)-1]
		}
	}
	return value
}

// folder labels the root folder of a file system that takes no label by option (mqueue).
func (c labeller) folder(fd prog.Reg) {
	l := mountLabel(c.compiler)
	if l == "" {
		return
	}
	why := c.WhyNow()
	c.Why("linux.mountLabel")
	dir, _ := c.CallR("", prog.SysOpenat, prog.R(fd), c.Str("."), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	c.Call("label "+l, prog.SysFsetxattr, prog.R(dir), c.Str("security.selinux"), c.Str(l), prog.Imm(int64(len(l))), prog.Imm(0))
	c.Call("", prog.SysClose, prog.R(dir))
	c.Why(why)
}
