package plan

import (
	"path"
	"slices"
	"strings"
)

// Sub returns dirs with sub-cgroups of the container in place of its own: paths maps a v1 controller to a path below the container's
// directory, "" to one below it in every hierarchy (on a hybrid machine, of the v2 one alone). The path must not lead out.
func Sub(dirs []Dir, paths map[string]string) ([]Dir, error) {
	out := slices.Clone(dirs)
	names := make([]string, 0, len(paths))
	for name := range paths {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		sub := paths[name]
		if strings.ContainsAny(sub, "\x00\n") || slices.Contains(strings.Split(sub, "/"), "..") {
			return nil, invalid("exec: cgroup %q: not a path below the container's cgroup", sub)
		}
		at := slices.IndexFunc(dirs, func(d Dir) bool {
			if name == "" {
				return d.V2
			}
			return !d.V2 && (d.Has(name) || d.Has("name="+name))
		})
		if at < 0 {
			if name == "" {
				return nil, invalid("exec: cgroup %q: there is no v2 hierarchy; say CONTROLLER:PATH", sub)
			}
			return nil, invalid("exec: cgroup %s:%s: the container has no v1 cgroup of controller %q", name, sub, name)
		}
		out[at].Path = path.Join(dirs[at].Path, path.Join("/", sub))
	}
	return out, nil
}

// Same returns dirs with the v2 directory in which a process is found, given its line of /proc/PID/cgroup (own, below the mount): where a
// container has handed controllers to cgroups below its own, no process may be in that itself (cgroups(7), no internal processes).
// It returns false where there is nothing to replace or the process is not below the container's directory.
func Same(dirs []Dir, own string) ([]Dir, bool) {
	at := slices.IndexFunc(dirs, func(d Dir) bool { return d.V2 })
	if at < 0 {
		return dirs, false
	}
	p := path.Join(dirs[at].Mount, path.Join("/", own))
	if !strings.HasPrefix(p, dirs[at].Path+"/") {
		return dirs, false
	}
	out := slices.Clone(dirs)
	out[at].Path = p
	return out, true
}
