package compile

import (
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// CgroupOwner returns the host's user to whom the container's cgroup is to belong, and whether it is to belong to anybody but root
// (runtime-spec, config-linux.md, Cgroup ownership): on v2, with a cgroup namespace of its own and its cgroup mounted to be written, that
// is the user whose process runs.
func CgroupOwner(l plan.Layout, s *bundle.Spec) (int, bool) {
	if l.Mode != plan.V2 || s.Linux == nil || s.Process == nil {
		return 0, false
	}
	fresh := func(t specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t && n.Path == "" })
	}
	writable := slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return (m.Type == "cgroup" || m.Type == "cgroup2") && path.Clean(m.Destination) == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
	if !writable || !fresh(specs.CgroupNamespace) {
		return 0, false
	}
	uid := int64(s.Process.User.UID)
	switch {
	case fresh(specs.UserNamespace):
		i := slices.IndexFunc(s.Linux.UIDMappings, func(m specs.LinuxIDMapping) bool {
			return uid >= int64(m.ContainerID) && uid-int64(m.ContainerID) < int64(m.Size)
		})
		if i < 0 {
			return 0, false
		}
		uid += int64(s.Linux.UIDMappings[i].HostID) - int64(s.Linux.UIDMappings[i].ContainerID)
	case slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }):
		return 0, false // the map of a joined one is not ours to know
	}
	return int(uid), uid != 0
}

// own gives the container its cgroup: the folder and the files that the kernel says may be given away (cgroups(7), delegation).
func (c cgroupLane) own(dirs []plan.Dir) {
	uid, ok := CgroupOwner(c.in.Facts.Cgroup, c.spec)
	i := slices.IndexFunc(dirs, func(d plan.Dir) bool { return d.V2 })
	if !ok || i < 0 || c.in.Facts.Rootless {
		return
	}
	files := c.in.Facts.Delegate
	if len(files) == 0 {
		files = []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	}
	c.Why("process.user")
	for _, f := range append([]string{""}, files...) {
		c.Call("the container's user owns its cgroup", prog.SysFchownat, prog.Imm(u.AT_FDCWD), c.Str(path.Join(dirs[i].Path, f)), prog.Imm(int64(uid)),
			prog.Imm(nobodyChange, "-1"), prog.Imm(u.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW")).Tolerate(u.ENOENT)
	}
}
