package compile

import (
	"sort"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

const mostDeviceName = 15 // IFNAMSIZ less the NUL

// netDevices has the host lane move devices of our network namespace into the container's.
func (c entry) netDevices() error {
	list := c.spec.Linux.NetDevices
	if len(list) == 0 {
		return nil
	}
	if !c.private(u.CLONE_NEWNET) {
		return invalid("linux.netDevices", "there is no network namespace of the container's to move them into")
	}
	names, taken := make([]string, 0, len(list)), map[string]string{}
	for name := range list {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		why := "linux.netDevices[" + name + "]"
		as := list[name].Name
		if !deviceName(name) || strings.Contains(name, "%") {
			return invalid(why, "is not the name of a network device")
		}
		if as != "" && !deviceName(as) || strings.Count(as, "%") > 1 || strings.Contains(as, "%") && !strings.Contains(as, "%d") {
			return invalid(why+".name", "%q is not the name of a network device", as)
		}
		if as == "" {
			as = name
		}
		if other, ok := taken[as]; ok && !strings.Contains(as, "%d") {
			return invalid(why+".name", "%q is the name of %s already", as, other)
		}
		taken[as] = name
	}
	c.Why("linux.netDevices")
	c.Lane(prog.Host)
	proc := c.Reg()
	c.Emit(prog.Ins{Op: prog.OpenPid, Out: proc})
	ns, _ := c.CallR("the container's network namespace", prog.SysOpenat, prog.R(proc), c.Str("ns/net"), prog.Imm(u.O_RDONLY|u.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"))
	for _, name := range names {
		c.Why("linux.netDevices[" + name + "]")
		c.Emit(prog.Ins{Op: prog.NetDevice, Args: [6]prog.Arg{c.Str(name), c.Str(list[name].Name), prog.R(ns)}, Note: "move " + name})
	}
	c.Call("", prog.SysClose, prog.R(ns))
	c.Call("", prog.SysClose, prog.R(proc))
	c.Lane(prog.Child)
	return nil
}

// deviceName tells what the kernel takes as the name of a network device (dev_valid_name).
func deviceName(s string) bool {
	return s != "" && len(s) <= mostDeviceName && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}
