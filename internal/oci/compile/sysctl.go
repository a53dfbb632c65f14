package compile

import (
	"path"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// hostNames sets the names of a UTS namespace that is not ours.
func (c *compiler) hostNames() error {
	for _, n := range []struct {
		field, value string
		call         prog.Sys
	}{{"hostname", c.spec.Hostname, prog.SysSethostname}, {"domainname", c.spec.Domainname, prog.SysSetdomainname}} {
		if n.value == "" {
			continue
		}
		if !c.private(u.CLONE_NEWUTS) {
			return invalid(n.field, "without a UTS namespace of the container's it would rename the host")
		}
		c.Why(n.field)
		c.Call("", n.call, c.Str(n.value), prog.Imm(int64(len(n.value))))
	}
	return nil
}

// sysctls are written through a procfs of our own that nothing in the container can have replaced.
func (c sysctls) write() error {
	if len(c.spec.Linux.Sysctl) == 0 {
		return nil
	}
	c.Why("linux.sysctl")
	proc := prog.Reg(0)
	if c.ns.user || c.ns.enters { // procfs may not be ours to mount (mount_too_revealing)
		proc, _ = c.CallR("the host's procfs, before it is out of sight", prog.SysOpenat, prog.Imm(u.AT_FDCWD), c.Str("/proc"), prog.Imm(pathFlags, pathText))
	} else {
		proc = c.fsmount("", c.fsopen("a procfs nobody else sees", "proc"), 0)
	}
	for _, k := range sortedKeys(c.spec.Linux.Sysctl) {
		name := "linux.sysctl[" + k + "]"
		p, err := c.sysctlPath(name, k)
		if err != nil {
			return err
		}
		c.Why(name)
		c.writeFile(k, proc, "sys/"+p, c.spec.Linux.Sysctl[k])
	}
	return nil
}

// sysctlFile turns a name into a path below /proc/sys: either separator may be used, and where the first one is a dot, a slash stands for
// a dot within a name, as in net.ipv4.conf.eth0/100.rp_filter (sysctl.d(5)).
func sysctlFile(key string) string {
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// sysctlPath accepts only what a namespace of the container owns.
func (c sysctls) sysctlPath(name, key string) (string, error) {
	p := sysctlFile(key)
	if p == "" || path.Clean(p) != p || strings.HasPrefix(p, "/") || strings.HasPrefix(p, "..") || strings.ContainsAny(p+c.spec.Linux.Sysctl[key], "\x00") {
		return "", invalid(name, "is not the name of a sysctl")
	}
	owner, kind := uint64(0), ""
	switch {
	case strings.HasPrefix(p, "net/"):
		owner, kind = u.CLONE_NEWNET, "network"
	case strings.HasPrefix(p, "fs/mqueue/"):
		owner, kind = u.CLONE_NEWIPC, "IPC"
	case p == "kernel/hostname":
		return "", invalid(name, "set hostname instead")
	case p == "kernel/domainname":
		owner, kind = u.CLONE_NEWUTS, "UTS"
	case strings.HasPrefix(p, "user/"):
		owner, kind = u.CLONE_NEWUSER, "user"
	}
	switch p {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/msg_next_id", "kernel/sem", "kernel/sem_next_id", "kernel/shmall", "kernel/shmmax",
		"kernel/shmmni", "kernel/shm_next_id", "kernel/shm_rmid_forced":
		owner, kind = u.CLONE_NEWIPC, "IPC"
	}
	switch {
	case owner == 0:
		return "", invalid(name, "is in no namespace: setting it would change the host")
	case !c.private(owner):
		return "", invalid(name, "belongs to the %s namespace, which is the host's: setting it would change the host", kind)
	}
	return p, nil
}
