package compile

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// null puts the container's own /dev/null where the host's is: a process that holds files of the host's cannot be checkpointed. An
// impostor of the image's is left alone.
func (c nodes) null() error {
	if c.in.Facts.Null == [3]bool{} || c.spec.Process.Terminal {
		return nil
	}
	c.Why("")
	if fd := c.ownNull(); fd != 0 {
		c.insteadOfHosts(fd)
		return nil
	}
	skip := c.Label()
	const flags = u.O_RDWR | u.O_NOCTTY | u.O_NONBLOCK | u.O_CLOEXEC // a FIFO must not make us wait
	fd, at := c.openIn("the container's own /dev/null", c.root, "/dev/null", flags, "O_RDWR|O_NOCTTY|O_NONBLOCK|O_CLOEXEC")
	at.Else(skip, u.ENOENT, u.ENOTDIR, u.EACCES, u.EPERM, u.ELOOP, u.ENXIO, u.EISDIR, u.EROFS)
	c.isNull(fd, func(at prog.At) { at.Otherwise(skip) })
	c.insteadOfHosts(fd)
	c.Call("", prog.SysClose, prog.R(fd))
	c.Bind(skip)
	return nil
}

func (c nodes) insteadOfHosts(fd prog.Reg) {
	for k, null := range c.in.Facts.Null {
		if null {
			c.Call("instead of the host's", prog.SysDup3, prog.R(fd), prog.Imm(int64(k)), prog.Imm(0))
		}
	}
}

func (c nodes) isNull(fd prog.Reg, otherwise func(prog.At)) {
	c.isNode(fd, "", specs.LinuxDevice{Type: "c", Major: 1, Minor: 3}, "/dev/null is the device 1:3", otherwise)
}
