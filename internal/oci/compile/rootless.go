package compile

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// ordinary tells whether we are a user without rights: who may map none but his own IDs.
func (c *compiler) ordinary() bool { return c.in.Facts.User[0] != 0 }

// ownMaps tells whether both maps are those that an ordinary user may write: his own user and group, nothing else.
func (c *compiler) ownMaps() bool {
	l := c.spec.Linux
	own := func(m []specs.LinuxIDMapping, id uint32) bool {
		return len(m) == 1 && m[0].Size == 1 && m[0].HostID == id
	}
	return own(l.UIDMappings, c.in.Facts.User[0]) && own(l.GIDMappings, c.in.Facts.User[1])
}

func (c *compiler) validateRootless() error {
	switch {
	case !c.ordinary():
		return nil
	case !c.ns.user && !c.ns.enters:
		return invalid("linux.namespaces", "we are not root: a user namespace is needed (dhow-runtime spec --rootless)")
	case !c.ns.user:
		return nil
	case c.ownMaps() && len(c.spec.Process.User.AdditionalGids) > 0:
		return invalid("process.user.additionalGids", "cannot be set where an ordinary user has mapped himself alone; map ranges of /etc/subgid")
	case !c.ownMaps() && (c.in.Facts.IDHelpers[0] == "" || c.in.Facts.IDHelpers[1] == ""):
		return invalid("linux.uidMappings", "other IDs than our own (%d and %d) are mapped by newuidmap and newgidmap, which are not installed (Debian package uidmap)",
			c.in.Facts.User[0], c.in.Facts.User[1])
	}
	return nil
}

// writeMaps writes the maps in the host lane; proc is the child's folder.
func (c entry) writeMaps(proc prog.Reg) {
	l := c.spec.Linux
	if c.ordinary() && !c.ownMaps() { // set-user-ID programs, which look into /etc/subuid and /etc/subgid
		for k, m := range [][]specs.LinuxIDMapping{l.UIDMappings, l.GIDMappings} {
			c.Why([2]string{"linux.uidMappings", "linux.gidMappings"}[k])
			call := prog.HookCall{Kind: prog.MapIDs, Path: c.in.Facts.IDHelpers[k]}
			for _, e := range m {
				for _, n := range [3]uint32{e.ContainerID, e.HostID, e.Size} {
					call.Args = append(call.Args, strconv.FormatUint(uint64(n), 10))
				}
			}
			c.Hook(call)
		}
		return
	}
	c.Why("linux.uidMappings")
	c.writeFile("map of users", proc, "uid_map", idMap(l.UIDMappings))
	c.Why("linux.gidMappings")
	if c.ordinary() {
		c.writeFile("an ordinary user must give this up to map his group", proc, "setgroups", "deny")
	}
	c.writeFile("map of groups", proc, "gid_map", idMap(l.GIDMappings))
}

// noCgroups tells whether there is no hierarchy in which we may make anything.
func (in *Input) noCgroups() bool {
	l := &in.Facts.Cgroup
	return in.Facts.Rootless && len(l.Controllers) == 0 && l.Unified == ""
}

// CgroupDirs are the container's cgroups; none where we may make none.
func (in *Input) CgroupDirs() ([]plan.Dir, error) {
	if in.noCgroups() {
		return nil, nil
	}
	return plan.Dirs(in.Facts.Cgroup, in.CgroupPath)
}

// rootlessLimits are the limits to set for somebody who is not root. Device rules are left out: there is no making of nodes in a user
// namespace, and no right to load the rules. Without any cgroup no other limit can be kept.
func (c cgroupLane) rootlessLimits(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil {
		return nil, nil
	}
	out := *r
	out.Devices = nil
	if c.in.noCgroups() {
		for _, f := range []struct {
			name string
			set  bool
		}{{"memory", r.Memory != nil}, {"cpu", r.CPU != nil}, {"pids", r.Pids != nil}, {"blockIO", r.BlockIO != nil}, {"hugepageLimits", len(r.HugepageLimits) > 0},
			{"network", r.Network != nil}, {"rdma", len(r.Rdma) > 0}, {"unified", len(r.Unified) > 0}} {
			if f.set {
				return nil, invalid("linux.resources."+f.name, "we may not make cgroups here, and so keep no limit; leave it out, or have a cgroup delegated")
			}
		}
	}
	return &out, nil
}

// mountNoCgroups shows a container that is in no cgroup of its own an empty folder.
func (c mounter) mountNoCgroups(m *specs.Mount, o options) {
	fd := c.fsmount("no cgroup is the container's: an empty "+m.Destination, c.fsopen("", "tmpfs"), o.set|u.MOUNT_ATTR_RDONLY)
	c.attach(m, fd)
}
