package compile

import (
	"path"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// maskedPaths hides files behind /dev/null and folders behind one empty read-only tmpfs.
func (c masker) maskedPaths() error {
	if len(c.spec.Linux.MaskedPaths) == 0 {
		return nil
	}
	c.Why("linux.maskedPaths")
	null := c.verifiedNull()
	shared := c.in.Facts.atLeast(6, 15) // open_tree(2) clones a detached mount; before that each folder gets a file system of its own
	empty := prog.Reg(0)
	if shared {
		empty = c.emptyFolder()
	}
	for i, p := range c.spec.Linux.MaskedPaths {
		c.Why(field("linux.maskedPaths", i, ""))
		next, other := c.Label(), c.Label()
		target, at := c.openIn("", c.root, p, pathFlags, pathText)
		at.Else(next, u.ENOENT, u.ENOTDIR)
		hide := [2]func() prog.Reg{
			func() prog.Reg { fd, _ := c.openTree("mask "+p, null, "", false); return fd },
			func() prog.Reg {
				if !shared {
					return c.emptyFolder()
				}
				fd, _ := c.openTree("mask folder "+p, empty, "", false)
				return fd
			},
		}
		if folders(p) { // the wrong guess costs two calls
			hide[0], hide[1] = hide[1], hide[0]
		}
		of, first := len(c.spec.Linux.MaskedPaths), hide[0]()
		c.move(first, target).Else(other, u.ENOTDIR, u.EINVAL)
		letGo(c.compiler, of, first)
		letGo(c.compiler, of, target)
		c.Jump(next)
		c.Bind(other)
		letGo(c.compiler, of, first)
		second := hide[1]()
		c.move(second, target)
		letGo(c.compiler, of, second)
		letGo(c.compiler, of, target)
		c.Bind(next)
	}
	return nil
}

// folders tells of paths that engines have masked whether they are folders.
func folders(p string) bool {
	switch p = path.Clean(p); p {
	case "/proc/acpi", "/proc/asound", "/proc/scsi", "/proc/dynamic_debug":
		return true
	}
	return strings.HasPrefix(p, "/sys/")
}

func (c masker) emptyFolder() prog.Reg {
	fs := c.fsopen("an empty folder to hide folders behind", "tmpfs")
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "source", "tmpfs", 0)
	c.fsconfig(fs, u.FSCONFIG_SET_STRING, "nr_inodes", "1", 0)
	c.fsconfig(fs, u.FSCONFIG_SET_FLAG, "ro", "", 0)
	labeller(c).context(fs, nil)
	fd := c.fsmount("", fs, u.MOUNT_ATTR_RDONLY|u.MOUNT_ATTR_NOSUID|u.MOUNT_ATTR_NODEV|u.MOUNT_ATTR_NOEXEC)
	letGo(c.compiler, len(c.spec.Linux.MaskedPaths), fs)
	return fd
}

// verifiedNull opens the container's /dev/null and checks that it is the device 1:3 and no impostor.
func (c masker) verifiedNull() prog.Reg {
	if fd := (nodes(c)).ownNull(); fd != 0 {
		return fd
	}
	null, _ := c.openIn("", c.root, "/dev/null", pathFlags, pathText)
	nodes(c).expectNull(null)
	return null
}

func (c masker) readonlyPaths() error {
	for i, p := range c.spec.Linux.ReadonlyPaths {
		c.Why(field("linux.readonlyPaths", i, ""))
		if path.Clean(p) == "/" { // what would be mounted over it nobody would see
			c.setAttr(c.root, false, u.MOUNT_ATTR_RDONLY, 0, 0)
			continue
		}
		next := c.Label()
		target, at := c.openIn("", c.root, p, pathFlags, pathText)
		at.Else(next, u.ENOENT, u.ENOTDIR)
		fd, _ := c.openTree("make "+p+" read-only", target, "", true)
		c.setAttr(fd, true, u.MOUNT_ATTR_RDONLY, 0, 0)
		c.move(fd, target)
		letGo(c.compiler, len(c.spec.Linux.ReadonlyPaths), fd)
		letGo(c.compiler, len(c.spec.Linux.ReadonlyPaths), target)
		c.Bind(next)
	}
	return nil
}
