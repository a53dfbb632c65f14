package explain

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// capNames are the capabilities by bit (capabilities(7)), without CAP_.
func capNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
		"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
		"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
		"PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}

// capSet is one of a process's five sets.
type capSet struct {
	name, status string
	asked        []string
	bits         uint64
	known        bool
}

func capSets(v *view) []*capSet {
	c := &specs.LinuxCapabilities{}
	if v.Spec.Process != nil && v.Spec.Process.Capabilities != nil {
		c = v.Spec.Process.Capabilities
	}
	sets := []*capSet{
		{name: "bounding", status: "CapBnd", asked: c.Bounding}, {name: "permitted", status: "CapPrm", asked: c.Permitted},
		{name: "effective", status: "CapEff", asked: c.Effective}, {name: "inheritable", status: "CapInh", asked: c.Inheritable},
		{name: "ambient", status: "CapAmb", asked: c.Ambient},
	}
	for _, s := range sets {
		var err error
		s.bits, err = strconv.ParseUint(v.status[s.status], 16, 64)
		s.known = err == nil
	}
	return sets
}

// capabilitiesSection has one row for each capability that was asked for, refused, or is there.
func capabilitiesSection(v *view) Section {
	s := Section{Name: "capabilities", Title: "Capabilities"}
	sets := capSets(v)
	// execve(2) takes permitted and effective from a process that is not root, unless they are ambient.
	notRoot := v.Spec.Process != nil && v.Spec.Process.User.UID != 0
	for bit, name := range capNames() {
		var planned, kernel []string
		lost, gained := false, false
		for _, set := range sets {
			p := slices.Contains(set.asked, "CAP_"+name)
			if notRoot && (set.name == "permitted" || set.name == "effective") && !slices.Contains(sets[4].asked, "CAP_"+name) {
				p = false
			}
			k := set.bits&(1<<bit) != 0
			if p {
				planned = append(planned, set.name)
			}
			if k {
				kernel = append(kernel, set.name)
			}
			lost, gained = lost || set.known && p && !k, gained || set.known && k && !p
		}
		refused := v.Why["process.capabilities -CAP_"+name]
		if len(planned)+len(kernel) == 0 && refused == "" {
			continue
		}
		row := Row{What: name, Asked: v.why("process.capabilities CAP_" + name), Planned: orNone(planned), Differs: lost || gained}
		if refused != "" {
			row.Asked = refused
		}
		if len(v.status) > 0 {
			row.Kernel = orNone(kernel)
		}
		switch {
		case gained:
			row.Note = "nobody gave it this capability"
		case lost:
			row.Note = "a process may give up capabilities by itself"
		}
		s.add(row)
	}
	if len(s.Rows) == 0 && v.Spec.Process != nil {
		row := Row{What: "all", Asked: v.why("process.capabilities"), Planned: "none"}
		if len(v.status) > 0 {
			row.Kernel = "none"
		}
		s.add(row)
	}
	return s
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, " ")
}

// securitySection compares seccomp, no_new_privs and the label of a security module.
func securitySection(v *view) Section {
	s := Section{Name: "security", Title: "Security"}
	if v.Spec.Process == nil {
		return s
	}
	v.seccomp(&s)
	s.compare("no_new_privs", v.why("process.noNewPrivileges"), bit(v.Spec.Process.NoNewPrivileges), v.status["NoNewPrivs"])
	if b, err := v.proc("attr/current"); err == nil {
		v.label(&s, strings.TrimRight(string(b), "\x00\n"))
	}
	return s
}

// label shows what a security module calls the first process; AppArmor adds the profile's mode.
func (v *view) label(s *Section, label string) {
	switch p := v.Spec.Process.ApparmorProfile; {
	case p != "":
		name, mode, _ := strings.Cut(label, " (")
		s.compare("AppArmor profile", v.why("process.apparmorProfile"), p, name).Note = strings.TrimSuffix(mode, ")")
	case label != "":
		s.add(Row{What: "security label", Kernel: label})
	}
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// seccomp shows the profile, what it denies, and the mode of the first process.
func (v *view) seccomp(s *Section) {
	var p *specs.LinuxSeccomp
	if v.Spec.Linux != nil {
		p = v.Spec.Linux.Seccomp
	}
	mode := map[string]string{"0": "no filter", "1": "strict", "2": "filter"}[v.status["Seccomp"]]
	planned := "no filter"
	if p != nil {
		planned = "filter"
	}
	row := s.compare("seccomp", v.why("linux.seccomp"), planned, mode)
	if n := v.status["Seccomp_filters"]; n != "" && n != "0" {
		row.Note = n + " filters installed"
		if n == "1" {
			row.Note = "1 filter installed"
		}
	}
	if p == nil {
		return
	}
	raw, err := json.Marshal(p)
	if err != nil {
		s.unread("profile", v.why("linux.seccomp"), "", err)
		return
	}
	s.add(Row{What: "profile", Asked: v.why("linux.seccomp"), Planned: digest.FromBytes(raw).String(), Note: "otherwise " + string(p.DefaultAction)})
	denied, some := deniedCalls(p, runtime.GOARCH)
	s.add(Row{What: "always denied", Asked: v.why("linux.seccomp"), Planned: fmt.Sprintf("%d calls: %s", len(denied), orNone(denied))})
	s.add(Row{What: "by their arguments", Asked: v.why("linux.seccomp"), Planned: fmt.Sprintf("%d calls: %s", len(some), orNone(some))})
}

// maxCall is beyond the numbers of all system calls that our table knows.
const maxCall = 1024

// deniedCalls lists the calls of an architecture that a profile never allows, and those that it allows with some arguments only.
func deniedCalls(p *specs.LinuxSeccomp, arch string) (denied, some []string) {
	lets := func(a specs.LinuxSeccompAction) bool {
		return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace
	}
	type verdict struct{ allow, deny, condAllow, condDeny bool }
	of := map[string]*verdict{}
	for _, r := range p.Syscalls {
		for _, n := range r.Names {
			w := of[n]
			if w == nil {
				w = &verdict{}
				of[n] = w
			}
			switch {
			case len(r.Args) == 0 && lets(r.Action):
				w.allow = true
			case len(r.Args) == 0:
				w.deny = true
			case lets(r.Action):
				w.condAllow = true
			default:
				w.condDeny = true
			}
		}
	}
	for nr := range maxCall {
		n := seccomp.Name(arch, nr)
		if n == "" {
			continue
		}
		w := of[n]
		if w == nil {
			w = &verdict{}
		}
		// A rule without conditions beats all others of its call.
		switch open := w.allow || !w.deny && lets(p.DefaultAction); {
		case w.allow:
		case w.deny:
			denied = append(denied, n)
		case open && w.condDeny || !open && w.condAllow:
			some = append(some, n)
		case !open:
			denied = append(denied, n)
		}
	}
	slices.Sort(denied)
	slices.Sort(some)
	return denied, some
}
