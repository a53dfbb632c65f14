package compile

import (
	"path"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// Resctrl is what the host tells of Intel RDT: where resctrl is mounted ("": nowhere), and of linux.intelRdt.closID's folder there
// whether it exists and what its schemata are.
type Resctrl struct {
	Root     string
	Exists   bool
	Schemata string
}

// ResctrlDirs returns the groups that a container is in, its class of service and its monitoring group, and which of them the runtime
// makes for it alone, to be removed with it, in that order. A class of service that the config names stays.
func ResctrlDirs(in *Input) (groups, removes []string) {
	r := in.Spec.Linux.IntelRdt
	if r == nil || in.Facts.Resctrl.Root == "" {
		return nil, nil
	}
	class := path.Join(in.Facts.Resctrl.Root, r.ClosID)
	if r.ClosID == "" {
		class = path.Join(in.Facts.Resctrl.Root, in.ID)
	}
	groups = append(groups, class)
	if r.EnableMonitoring {
		groups = append(groups, path.Join(class, "mon_groups", in.ID))
		removes = append(removes, groups[1])
	}
	if r.ClosID == "" {
		removes = append(removes, class)
	}
	return groups, removes
}

// resctrl makes the container's class of service and monitoring group, or finds the class, and opens what the child joins them by
// (Documentation/filesystems/resctrl.rst).
func (c cgroupLane) resctrl() error {
	r, f := c.spec.Linux.IntelRdt, c.in.Facts.Resctrl
	if r == nil {
		return nil
	}
	const name = "linux.intelRdt"
	lines, err := c.schemata()
	if err != nil {
		return err
	}
	switch id := r.ClosID; {
	case f.Root == "":
		return invalid(name, "no resctrl file system is mounted on this host")
	case id == "." || id == ".." || id == "info" || id == "mon_groups" || id == "mon_data" || len(id) > 1 && strings.Contains(id, "/") || strings.ContainsAny(id, "\x00\n"):
		return invalid(name+".closID", "%q is not the name of a class of service", id)
	case id != "" && len(lines) == 0 && !f.Exists:
		return invalid(name+".closID", "there is no class of service %q, and no schemata are given to make it with", id)
	case id != "" && f.Exists:
		for _, l := range lines {
			if !sameSchema(l.value, f.Schemata) {
				return invalid(l.field, "class of service %q exists with other schemata: %q", id, strings.TrimSpace(f.Schemata))
			}
		}
	}
	groups, _ := ResctrlDirs(&c.in)
	class := groups[0]
	if r.ClosID == "" || !f.Exists {
		c.Why(name + ".closID")
		c.Call("class of service", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(class), prog.Imm(0o755, "0755")).Undo(class)
	}
	for _, l := range lines {
		c.Why(l.field)
		c.writeFile("schemata "+l.value, 0, class+"/schemata", l.value+"\n")
	}
	if r.EnableMonitoring {
		c.Why(name + ".enableMonitoring")
		c.Call("monitoring group", prog.SysMkdirat, prog.Imm(u.AT_FDCWD), c.Str(groups[1]), prog.Imm(0o755, "0755")).Undo(groups[1])
	}
	c.joinResctrl(groups)
	return nil
}

// joinResctrl opens the files by which the child joins groups, as it joins cgroups.
func (c *compiler) joinResctrl(groups []string) {
	for _, g := range groups {
		c.Why("linux.intelRdt")
		fd, _ := c.CallR("", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str(g+"/tasks"), prog.Imm(u.O_WRONLY|u.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
		c.groups = append(c.groups, fd)
		c.keep = append(c.keep, fd)
	}
}

type schema struct{ field, value string }

// schemata are the lines to be written, in the order that the spec asks for.
func (c cgroupLane) schemata() ([]schema, error) {
	r := c.spec.Linux.IntelRdt
	var out []schema
	if v := r.L3CacheSchema; v != "" {
		out = append(out, schema{"linux.intelRdt.l3CacheSchema", strings.TrimRight(v, "\n")})
	}
	if v := r.MemBwSchema; v != "" {
		if !strings.HasPrefix(v, "MB:") || strings.Contains(v, "\n") {
			return nil, invalid("linux.intelRdt.memBwSchema", "%q is not one line that begins with MB:", v)
		}
		out = append(out, schema{"linux.intelRdt.memBwSchema", v})
	}
	for i, v := range r.Schemata {
		name := field("linux.intelRdt.schemata", i, "")
		if v == "" || strings.Contains(v, "\n") {
			return nil, invalid(name, "%q is not one line", v)
		}
		out = append(out, schema{name, v})
	}
	for _, l := range out {
		if err := plainString(l.field, l.value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// sameSchema tells whether the lines asked for stand in schemata as the kernel prints them: indented, and with zeros before masks.
func sameSchema(want, have string) bool {
	now := map[string]string{}
	each := func(text string, do func(key, value string) bool) bool {
		for _, line := range strings.Split(text, "\n") {
			resource, domains, _ := strings.Cut(strings.TrimSpace(line), ":")
			for _, d := range strings.Split(domains, ";") {
				id, value, ok := strings.Cut(d, "=")
				if ok && !do(resource+":"+strings.TrimSpace(id), strings.TrimLeft(strings.ToLower(strings.TrimSpace(value)), "0")) {
					return false
				}
			}
		}
		return true
	}
	each(have, func(key, value string) bool { now[key] = value; return true })
	return each(want, func(key, value string) bool { v, ok := now[key]; return ok && v == value })
}
