package compile

import (
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// ownStdio gives the user the pipes that are its standard descriptors: whoever made them was somebody else, and /dev/stdout, which is opened
// anew, would be refused. Files and devices stay whose they are.
func (c process) ownStdio() {
	p := c.spec.Process
	if p.Terminal || p.User.UID == 0 {
		return
	}
	c.Why("process.user")
	st := c.Bytes(make([]byte, statxSize), "&statx")
	for k := range int64(3) {
		next := c.Label()
		c.Call("", prog.SysStatx, prog.Imm(k), c.Str(""), prog.Imm(u.AT_EMPTY_PATH, "EMPTY_PATH"), prog.Imm(1, "STATX_TYPE"), st)
		c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(statxMode), prog.Imm(u.S_IFIFO, "S_IFIFO"), prog.Imm(0xf000)}}).Otherwise(next)
		c.Call("a pipe: the user may open it anew", prog.SysFchownat, prog.Imm(k), c.Str(""), prog.Imm(int64(p.User.UID)), prog.Imm(nobodyChange),
			prog.Imm(u.AT_EMPTY_PATH, "EMPTY_PATH")).Tolerate(u.EPERM, u.EINVAL)
		c.Bind(next)
	}
}
