package checkpoint

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci/criu"
)

// mounts compares the checkpoint's mount tables with config.json, and maps what comes from outside.
func (r *Restorer) mounts(m *criu.Message, f *folders, root *root) error {
	tables, err := criu.Mounts(f.images)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		return errdef.New(errdef.InvalidArgument, "%s: no mount table: this is no container's checkpoint", f.images.Name())
	}
	list := places(&r.Container, root)
	seen := map[string]bool{}
	for _, table := range tables {
		slices.SortStableFunc(table, func(a, b criu.Mount) int { return len(a.Point) - len(b.Point) }) // what lies in another's comes after it
		for _, e := range table {
			if err := vetPoint(&r.Container, root, list, table, e); err != nil {
				return err
			}
		}
		for _, e := range table {
			if err := vetMount(&r.Container, list, table, e); err != nil {
				return err
			}
			if !e.External || seen[e.Key] {
				continue
			}
			seen[e.Key] = true
			from, err := source(list, &r.Container, e)
			if err != nil {
				return err
			}
			m.Sub(criu.ExtMount, criu.Pair(e.Key, from))
		}
	}
	return nil
}

// vetMount refuses a mount that config.json has not and that the container could not have made itself.
func vetMount(c *Container, list []place, table []criu.Mount, e criu.Mount) error {
	if e.External || e.Point == "/" || mayMount(c) {
		return nil
	}
	refuse := errdef.New(errdef.InvalidArgument, "the checkpoint has %q mounted on %s, which config.json does not ask for, and the container had no right to mount", e.Type, e.Point)
	p, ok := owner(list, e.Point)
	if !ok {
		return refuse
	}
	exact := p.point == e.Point
	switch p.kind {
	case "mask":
		ok = exact && (e.Type == "tmpfs" || ownFS(table, e))
	case "read-only", "device", "console":
		ok = exact && ownFS(table, e)
	case "cgroup":
		ok = strings.HasPrefix(e.Type, "cgroup") || exact && e.Type == "tmpfs"
	default:
		ok = exact && (e.Type == p.kind || ownFS(table, e))
	}
	if !ok {
		return refuse
	}
	return nil
}

// ownFS tells whether a mount is a bind of what another mount of the container shows, as masks and read-only paths are.
func ownFS(table []criu.Mount, e criu.Mount) bool {
	return slices.ContainsFunc(table, func(o criu.Mount) bool {
		return o.ID != e.ID && o.Device == e.Device && o.Type == e.Type && len(o.Point) <= len(e.Point)
	})
}

// mayMount tells whether the container's processes could mount on their own: their mounts are restored as they were.
func mayMount(c *Container) bool {
	caps := c.Spec.Process.Capabilities
	return caps == nil || slices.Contains(caps.Bounding, "CAP_SYS_ADMIN") ||
		slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

// vetPoint refuses a mount point that has become a symbolic link since, in the root file system or in what is bound into it: criu would
// mount where it leads.
func vetPoint(c *Container, root *root, list []place, table []criu.Mount, e criu.Mount) error {
	i := slices.IndexFunc(table, func(p criu.Mount) bool { return p.ID == e.Parent && p.ID != e.ID })
	if e.Point == "/" || i < 0 {
		return nil
	}
	on, what := table[i], "the root file system"
	if on.Point != "/" {
		if !on.External || on.Point == e.Point { // a file system of the container's own: what is in it comes out of the checkpoint
			return nil // and what covers another mount is reached by no path
		}
		from, err := source(list, c, on)
		if err != nil {
			return err
		}
		if root, err = openRoot(from); err != nil { // what is bound there is others' to change, too
			return err
		}
		defer root.f.Close()
		what = from
	}
	below := strings.TrimPrefix(strings.TrimPrefix(e.Point, on.Point), "/")
	fd, err := root.open(below, unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "the checkpoint's mount point %s is not there in %s, or only by a symbolic link: %w", e.Point, what, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	unix.Close(fd)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "the checkpoint's mount point %s is a symbolic link in %s: %w", e.Point, what, err)
	}
	return nil
}
