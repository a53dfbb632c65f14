package compile

import (
	"strconv"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

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
