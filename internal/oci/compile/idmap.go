package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// mostMaps is the kernel's bound of lines in a map (user_namespaces(7)).
const mostMaps = 340

// mostMapBytes is one page: a map is written at once.
const mostMapBytes = 4096

func (c entry) validateMaps() error {
	l := c.spec.Linux
	mapped := len(l.UIDMappings)+len(l.GIDMappings) > 0
	switch {
	case mapped && !c.ns.user && !c.ns.enters:
		c.Warn("linux.uidMappings: there is no user namespace in linux.namespaces to be mapped; the mappings are left out")
		return nil
	case (mapped || c.ns.user) && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return invalid("linux.uidMappings", "a new user namespace needs linux.uidMappings and linux.gidMappings")
	case c.ns.enters && len(l.UIDMappings)+len(l.GIDMappings) > 16:
		return invalid("linux.uidMappings", "a joined user namespace has its mappings already; more than 16 lines are not compared with them")
	}
	for _, m := range []struct {
		name string
		list []specs.LinuxIDMapping
	}{{"linux.uidMappings", l.UIDMappings}, {"linux.gidMappings", l.GIDMappings}} {
		if err := validateMap(m.name, m.list); err != nil {
			return err
		}
		if c.ns.user && !slices.ContainsFunc(m.list, func(e specs.LinuxIDMapping) bool { return e.ContainerID == 0 }) {
			return invalid(m.name, "ID 0 is not mapped: the container is put together by its own root")
		}
	}
	return nil
}

func validateMap(name string, list []specs.LinuxIDMapping) error {
	if len(list) > mostMaps {
		return invalid(name, "%d ranges; the kernel takes %d", len(list), mostMaps)
	}
	if n := len(idMap(list)); n >= mostMapBytes {
		return invalid(name, "%d ranges take %d bytes as the kernel reads them; it takes %d", len(list), n, mostMapBytes-1)
	}
	for i, e := range list {
		if e.Size == 0 || uint64(e.ContainerID)+uint64(e.Size) > 1<<32 || uint64(e.HostID)+uint64(e.Size) > 1<<32 {
			return invalid(field(name, i, ".size"), "%d from %d and %d: no such range of IDs", e.Size, e.ContainerID, e.HostID)
		}
		for k, other := range list[:i] {
			overlap := func(a, b uint32) bool {
				return uint64(a) < uint64(b)+uint64(other.Size) && uint64(b) < uint64(a)+uint64(e.Size)
			}
			if overlap(e.ContainerID, other.ContainerID) || overlap(e.HostID, other.HostID) {
				return invalid(field(name, i, ""), "overlaps with range %d", k)
			}
		}
	}
	return nil
}

func (c entry) becomeRoot(why string) {
	c.Why(why)
	c.Call("root of the user namespace", prog.SysSetresgid, prog.Imm(0), prog.Imm(0), prog.Imm(0))
	c.Call("", prog.SysSetresuid, prog.Imm(0), prog.Imm(0), prog.Imm(0))
}

// mapIDs has the host lane write the ID maps while the child waits (user_namespaces(7)).
func (c entry) mapIDs() {
	c.Lane(prog.Host)
	c.Why("linux.uidMappings")
	proc := c.Reg()
	c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
	c.writeMaps(proc)
	if v, ok := c.oomScore(); ok { // inside, the child has no right to lower it
		c.writeFile("", proc, "oom_score_adj", strconv.Itoa(v))
	}
	c.Call("", prog.SysClose, prog.R(proc))
	c.Lane(prog.Child)
	c.becomeRoot("linux.uidMappings")
	c.Call("changing IDs must not have made us traceable", prog.SysPrctl, prog.Imm(u.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), prog.Imm(0))
}

// checkMaps compares the mappings that the config tells of a joined user namespace with those it has, as the kernel prints them.
func (c entry) checkMaps() {
	if len(c.spec.Linux.UIDMappings) == 0 {
		return
	}
	c.Lane(prog.Host)
	proc := c.Reg()
	c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
	for _, m := range []struct {
		name, file string
		list       []specs.LinuxIDMapping
	}{{"linux.uidMappings", "uid_map", c.spec.Linux.UIDMappings}, {"linux.gidMappings", "gid_map", c.spec.Linux.GIDMappings}} {
		c.Why(m.name)
		want := ""
		for _, e := range m.list {
			want += fmt.Sprintf("%10d %10d %10d\n", e.ContainerID, e.HostID, e.Size)
		}
		want += strings.Repeat("\x00", 4+(4-len(want)%4)%4) // and nothing behind
		have := c.Bytes(make([]byte, len(want)), "&"+m.file)
		fd, _ := c.CallR("", prog.SysOpenat, prog.R(proc), c.Str(m.file), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
		c.Call("", prog.SysRead, prog.R(fd), have, prog.Imm(int64(len(want))))
		c.Call("", prog.SysClose, prog.R(fd))
		for k := 0; k < len(want); k += 4 {
			word := int64(want[k]) | int64(want[k+1])<<8 | int64(want[k+2])<<16 | int64(want[k+3])<<24
			c.Emit(prog.Ins{Op: prog.Expect, Args: [6]prog.Arg{have, prog.Imm(int64(k)), prog.Imm(word), prog.Imm(0xffffffff)}, Errno: u.EINVAL,
				Note: "the joined user namespace has these mappings"})
		}
	}
	c.Call("", prog.SysClose, prog.R(proc))
	c.Lane(prog.Child)
}

func idMap(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}
