package compile

import (
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// newDev is a tmpfs of ours on /dev that no process has seen yet: what a name in it leads to is known without a look, no link can be there,
// and nobody can change it. So what belongs into it needs a fraction of the calls that a folder of the image's does.
type newDev struct {
	folder prog.Reg // 0: /dev is none
	stands prog.Reg // where the child stands, if it was sent anywhere
	null   prog.Reg // its null, once opened
}

// noteDev takes note of what a mount of the config's means for /dev.
func (c mounter) noteDev(m *specs.Mount, o *options) {
	switch path.Clean("/" + m.Destination) {
	case "/", "/dev":
		if !o.remount {
			c.dev.folder = 0
		}
	}
	if path.Clean("/"+m.Destination) == "/dev" && m.Type == "tmpfs" && !isBind(m, o) && !o.remount && !o.copyUp && (o.set|o.rset)&u.MOUNT_ATTR_NODEV == 0 &&
		c.ns.fresh&u.CLONE_NEWNS != 0 { // else its mounts are seen by others
		c.dev.folder = c.placed["/dev"]
	}
}

// belowNewDev mounts a file system on a folder of the new /dev, by two calls in place of a dozen, where the options allow it and nobody will
// want a handle of it. It tells whether it did.
func (c mounter) belowNewDev(m *specs.Mount, o *options) bool {
	dest := path.Clean("/" + m.Destination)
	ours := m.Type == "tmpfs" || m.Type == "devpts" || m.Type == "mqueue"
	if c.dev.folder == 0 || path.Dir(dest) != "/dev" || !ours || o.set&u.MOUNT_ATTR_RDONLY != 0 || o.propagation != 0 || o.copyUp || mountLabel(c.compiler) != "" ||
		c.named(dest) > 1 {
		return false
	}
	c.stand(c.dev.folder)
	c.Call("make the mount point", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(path.Base(dest)), prog.Imm(0o755, "0755")).Tolerate(u.EEXIST) // a mount below it has
	c.mountHere(m, o, o.set, path.Base(dest))
	return true
}

// named counts the mounts with a destination: the second may change the first.
func (c mounter) named(dest string) int {
	if c.times == nil {
		c.times = make(map[string]int, len(c.spec.Mounts))
		for i := range c.spec.Mounts {
			c.times[path.Clean("/"+c.spec.Mounts[i].Destination)]++
		}
	}
	return c.times[dest]
}

// stand makes a folder the working folder.
func (c mounter) stand(folder prog.Reg) {
	if c.dev.stands != folder {
		c.Call("", prog.SysFchdir, prog.R(folder))
		c.dev.stands = folder
	}
}

// ownNull returns the null that we made in the new /dev ourselves, opened, or 0 where there is none.
func (c nodes) ownNull() prog.Reg {
	if c.dev.folder == 0 || c.bindsNodes() {
		return 0
	}
	for _, d := range c.spec.Linux.Devices {
		if path.Clean(d.Path) == "/dev/null" {
			return 0
		}
	}
	for _, m := range c.spec.Mounts {
		if path.Clean("/"+m.Destination) == "/dev/null" {
			return 0
		}
	}
	if c.dev.null == 0 {
		c.dev.null, _ = c.CallR("the container's own /dev/null", prog.SysOpenat, prog.R(c.dev.folder), c.Str("null"), prog.Imm(u.O_RDWR|u.O_CLOEXEC, "O_RDWR|O_CLOEXEC"))
	}
	return c.dev.null
}
