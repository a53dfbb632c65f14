package compile

import (
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// isBind tells whether a mount is a bind mount: by its options (runtime-spec, config.md, Mounts), or by a type that other runtimes know.
func isBind(m *specs.Mount, o *options) bool { return !o.remount && (o.bind || m.Type == "bind") }

// source returns the path of a bind mount's source and what lies there.
func (c binder) source(name string, m *specs.Mount) (string, Source, error) {
	src := m.Source
	if src == "" {
		return "", Source{}, invalid(name+".source", "is empty")
	}
	if !filepath.IsAbs(src) {
		src = filepath.Join(c.in.Bundle, src)
	}
	what, ok := c.in.Facts.Sources[src]
	if !ok {
		return "", Source{}, invalid(name+".source", "%s: no such file or directory", src)
	}
	return src, what, nil
}

// sources opens those sources of bind mounts that were not opened yet and whose options tell so.
func (c binder) sources(which func(options) bool) error {
	for i := range c.spec.Mounts {
		m, name := &c.spec.Mounts[i], field("mounts", i, "")
		o, err := parseOptions(m.Options)
		if err != nil {
			return invalid(name+".options", "%w", err)
		}
		if c.host.trees[i] != 0 || !isBind(m, &o) || !which(o) {
			continue
		}
		src, _, err := c.source(name, m)
		if err != nil {
			return err
		}
		c.Why(name)
		if c.ns.user && o.propagation != u.MS_SHARED && o.propagation != u.MS_SLAVE && !c.ns.joins(u.CLONE_NEWNS) {
			c.tryTree(i, src, m.Destination, o)
			continue
		}
		c.host.trees[i] = c.tree(src, m.Destination, o)
		c.host.again[i] = !c.ns.joins(u.CLONE_NEWNS)         // detached trees are cloned in the mount namespace they come from only
		if c.ns.joins(u.CLONE_NEWNS) && o.propagation == 0 { // as in a namespace of its own, whose mounts all are the host's slaves
			c.setAttr(c.host.trees[i], true, 0, 0, u.MS_SLAVE)
		}
	}
	return nil
}

func (c binder) tree(src, dest string, o options) prog.Reg {
	fd, _ := c.openTree("bind "+src+" to "+dest, 0, src, o.rbind || !o.bind)
	return fd
}

// tryTree is for a child that is still the host's user, but has lost his rights by entering a user namespace: a source that only its
// root to be may reach is left for later (podman gives its folders to the container's root).
func (c binder) tryTree(i int, src, dest string, o options) {
	later := c.Label()
	got := c.Bytes(make([]byte, 4), "&got")
	fd, at := c.openTree("bind "+src+" to "+dest, 0, src, o.rbind || !o.bind)
	at.Else(later, u.EACCES)
	c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(fd), got, prog.Imm(0)}})
	c.Bind(later)
	c.host.trees[i], c.host.got[i] = fd, got
}

// retryTree opens what tryTree could not, and takes what it could in its turn.
func (c binder) retryTree(i int, src, dest string, o options) prog.Reg {
	have, done := c.Label(), c.Label()
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{c.host.got[i], prog.Imm(0), prog.Imm(0), prog.Imm(0xffffffff)}, Note: "not opened yet"}).Otherwise(have)
	fd, first := c.openTree("bind "+src+" to "+dest, 0, src, o.rbind || !o.bind)
	if !c.in.Facts.atLeast(6, 15) {
		first.To(c.host.trees[i])
		c.Bind(have)
		return c.host.trees[i]
	}
	c.Jump(done)
	c.Bind(have)
	_, second := c.openTree("in its turn", c.host.trees[i], "", o.rbind || !o.bind)
	second.To(fd)
	c.Bind(done)
	return fd
}

// idmapped opens, in the host lane, the sources whose owners are to be mapped: that is for the owner of their file systems to do
// (mount_setattr(2), MOUNT_ATTR_IDMAP).
func (c binder) idmapped() error {
	spaces := map[string]prog.Reg{}
	for i := range c.spec.Mounts {
		m, name := &c.spec.Mounts[i], field("mounts", i, "")
		o, err := parseOptions(m.Options)
		if err != nil {
			return invalid(name+".options", "%w", err)
		}
		own := len(m.UIDMappings)+len(m.GIDMappings) > 0
		if !o.idmap && !own {
			continue
		}
		switch {
		case !isBind(m, &o):
			return invalid(name+".options", "only bind mounts can be ID-mapped")
		case own && (len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0):
			return invalid(name+".uidMappings", "uidMappings and gidMappings belong together")
		case !own && !c.ns.user && !c.ns.enters:
			return invalid(name+".options", "idmap needs uidMappings and gidMappings, or a user namespace of the container's")
		}
		if err := validateMap(name+".uidMappings", m.UIDMappings); err != nil {
			return err
		}
		if err := validateMap(name+".gidMappings", m.GIDMappings); err != nil {
			return err
		}
		src, _, err := c.source(name, m)
		if err != nil {
			return err
		}
		c.Why(name)
		space := c.mapping(m, own, spaces)
		fd := c.tree(src, m.Destination, o)
		attr := c.Bytes(prog.U64(u.MOUNT_ATTR_IDMAP, 0, 0, 0), "{set IDMAP}")
		c.Emit(prog.Ins{Op: prog.Store, Args: [6]prog.Arg{prog.R(space), attr, prog.Imm(24)}})
		flags, text := int64(u.AT_EMPTY_PATH), "EMPTY_PATH"
		if o.ridmap {
			flags, text = flags|u.AT_RECURSIVE, text+"|RECURSIVE"
		}
		c.Call("map the owners of the files in "+src, prog.SysMountSetattr, prog.R(fd), c.Str(""), prog.Imm(flags, text), attr, prog.Imm(32))
		if o.propagation == 0 {
			c.setAttr(fd, true, 0, 0, u.MS_SLAVE)
		}
		c.host.trees[i] = fd
		c.keep = append(c.keep, fd)
	}
	return nil
}

// mapping returns a user namespace that has a mount's mappings: the one that is joined, or one made for nothing else.
func (c binder) mapping(m *specs.Mount, own bool, made map[string]prog.Reg) prog.Reg {
	uids, gids := m.UIDMappings, m.GIDMappings
	if !own {
		if c.ns.enters {
			return c.ns.joined[0].reg
		}
		uids, gids = c.spec.Linux.UIDMappings, c.spec.Linux.GIDMappings
	}
	a, b := idMap(uids), idMap(gids)
	if r := made[a+"/"+b]; r != 0 {
		return r
	}
	r := c.Reg()
	c.Emit(prog.Ins{Op: prog.UserNS, Args: [6]prog.Arg{c.Bytes([]byte(a), quoted(a)), c.Bytes([]byte(b), quoted(b))}, Out: r, Note: "a user namespace that has these mappings"})
	made[a+"/"+b] = r
	return r
}

func (c binder) bindMount(name string, i int, o options) error {
	m := &c.spec.Mounts[i]
	src, what, err := c.source(name, m)
	if err != nil {
		return err
	}
	if len(o.data) > 0 { // mount(2) ignores them, too
		c.Warn(name + ".options: " + strconv.Quote(o.data[0]) + " is for a file system, and a bind mount has the one of its source as it is; it is left out")
	}
	if !what.Proc && insideProc(m.Destination) {
		return errOverProc(name, m.Destination)
	}
	fd := c.host.trees[i]
	switch {
	case c.host.got[i].Kind != prog.None:
		fd = c.retryTree(i, src, m.Destination, o)
	case fd == 0:
		fd = c.tree(src, m.Destination, o)
	case c.host.again[i] && c.in.Facts.atLeast(6, 15): // mountinfo lists mounts as they were made (proc(5)), and so should config.json's order be
		fd, _ = c.openTree("in its turn", fd, "", o.rbind || !o.bind)
		letGo(c.compiler, len(c.spec.Mounts), c.host.trees[i])
	}
	if o.rset|o.rclear != 0 {
		c.setAttr(fd, true, o.rset, o.rclear, 0)
	}
	if o.set|o.clear != 0 {
		c.setAttr(fd, false, o.set, o.clear, 0)
	}
	if o.propagation != 0 {
		c.setAttr(fd, o.recursive, 0, 0, o.propagation)
	}
	target := c.ensure(m.Destination, what.Dir)
	if !what.Proc && !overProc(m.Destination) {
		c.expectNotProc(m.Destination, target)
	}
	c.move(fd, target)
	c.mounted(m, fd)
	letGo(c.compiler, len(c.spec.Mounts), target)
	if !c.wanted[path.Clean("/"+m.Destination)] {
		letGo(c.compiler, len(c.spec.Mounts), fd)
	}
	return nil
}

func insideProc(dest string) bool {
	return strings.HasPrefix(path.Clean("/"+dest)+"/", "/proc/") && !overProc(dest)
}

func errOverProc(name, dest string) error {
	return invalid(name+".destination", "%s lies inside the container's /proc, which nothing may cover", dest)
}

// overProc lists the files of /proc that may be covered: they only tell something, and lxcfs gives containers their own.
func overProc(dest string) bool {
	switch path.Clean("/" + dest) {
	case "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
		"/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled":
		return true
	}
	return false
}

// expectNotProc fails the program when a mount would cover procfs, by its name or by a symbolic link of the image's: what is masked and
// read-only there would come back, and writes meant for the kernel would go into a file of the container's.
func (c binder) expectNotProc(dest string, target prog.Reg) {
	ok := c.Label()
	st := c.Bytes(make([]byte, 120), "&statfs")
	c.Call("", prog.SysFstatfs, prog.R(target), st)
	c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{st, prog.Imm(0), prog.Imm(u.PROC_SUPER_MAGIC, "PROC_SUPER_MAGIC"), prog.Imm(0xffffffff)}}).Otherwise(ok)
	c.Emit(prog.Ins{Op: prog.Fail, Errno: u.EPERM, Note: dest + " lies inside the container's /proc, which nothing may cover"})
	c.Bind(ok)
}
