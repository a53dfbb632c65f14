package compile

import (
	"path"
	"path/filepath"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// pivot makes c.root the root (pivot_root(2), the "." "." form) and lets go of the old one.
func (c *compiler) pivot() error {
	c.Why("root")
	if c.in.NoPivot {
		c.moveRoot()
		return nil
	}
	c.Call("", prog.SysFchdir, prog.R(c.root))
	c.Call("the old root is now mounted over the new one", prog.SysPivotRoot, c.Str("."), c.Str("."))
	c.Call("take it off", prog.SysUmount2, c.Str("."), prog.Imm(u.MNT_DETACH, "MNT_DETACH"))
	c.Call("", prog.SysChdir, c.Str("/"))
	return nil
}

// moveRoot mounts c.root over "/" and makes it the root. The host's mounts stay below: its proc and sysfs come off first, which would
// else allow whoever makes a user namespace in the container to mount them unmasked (mount_too_revealing in the kernel's fs/namespace.c).
func (c *compiler) moveRoot() {
	own := ""
	if c.spec.Root != nil {
		if own = c.spec.Root.Path; !filepath.IsAbs(own) {
			own = filepath.Join(c.in.Bundle, own)
		}
	}
	if c.in.Rootfs != nil {
		own = c.in.Rootfs.Scratch
	}
	own = path.Clean(own) + "/"
	for _, p := range c.in.HostKernelMounts {
		if strings.HasPrefix(p+"/", own) {
			continue // lies in the container's root
		}
		next, locked := c.Label(), c.Label()
		c.Call("take the host's off", prog.SysUmount2, c.Str(p), prog.Imm(u.MNT_DETACH, "MNT_DETACH")).Else(locked, u.EINVAL, u.EPERM, u.ENOENT)
		c.Jump(next)
		c.Bind(locked)
		c.Call("or hide it", prog.SysMount, c.Str("tmpfs"), c.Str(p), c.Str("tmpfs"), prog.Imm(u.MS_RDONLY, "MS_RDONLY"), c.Str("size=4k")).Tolerate(u.ENOENT, u.ENOTDIR)
		c.Bind(next)
	}
	c.Call("", prog.SysFchdir, prog.R(c.root))
	c.Call("over the host's root", prog.SysMount, c.Str("."), c.Str("/"), prog.Imm(0), prog.Imm(u.MS_MOVE, "MS_MOVE"), prog.Imm(0))
	c.Call("", prog.SysChroot, c.Str("."))
	c.Call("", prog.SysChdir, c.Str("/"))
}
