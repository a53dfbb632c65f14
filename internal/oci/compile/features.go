package compile

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/seccomp"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Features tells what this compiler makes Programs of (runtime-spec, features.md). It asks itself: what the list of candidates below has and
// Compile or seccomp.Compile refuses is not supported.
func Features(f Facts) *features.Features {
	q := asker{Facts{Arch: f.Arch, Major: f.Major, Minor: f.Minor, LastCap: f.LastCap, Clone3: f.Clone3,
		Cgroup: plan.Layout{Mode: plan.V2, Unified: "/sys/fs/cgroup", SelfUnified: "/"}}}
	yes, no := true, false
	return &features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks: q.which(hookNames(), func(s *bundle.Spec, name string) {
			h := []specs.Hook{{Path: "/h"}}
			s.Hooks = map[string]*specs.Hooks{"prestart": {Prestart: h}, "createRuntime": {CreateRuntime: h}, "createContainer": {CreateContainer: h}, //nolint:staticcheck // deprecated and required
				"startContainer": {StartContainer: h}, "poststart": {Poststart: h}, "poststop": {Poststop: h}}[name]
		}),
		MountOptions: sorted(MountOptions()),
		Linux: &features.Linux{
			Namespaces: q.which(namespaceNames(), func(s *bundle.Spec, name string) {
				add := specs.LinuxNamespace{Type: specs.LinuxNamespaceType(name)}
				if !slices.Contains(s.Linux.Namespaces, add) {
					s.Linux.Namespaces = append(s.Linux.Namespaces, add)
				}
				if add.Type == specs.UserNamespace {
					s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
					s.Linux.GIDMappings = s.Linux.UIDMappings
				}
			}),
			Capabilities: capNames(),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &yes},
			Seccomp:      q.seccomp(),
			Apparmor:     &features.Apparmor{Enabled: q.implements(func(s *bundle.Spec) { s.Process.ApparmorProfile = "x" })},
			Selinux:      &features.Selinux{Enabled: q.implements(func(s *bundle.Spec) { s.Process.SelinuxLabel = "x" })},
			IntelRdt:     q.intelRdt(),
			MemoryPolicy: q.memoryPolicy(),
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: q.implements(func(s *bundle.Spec) {
				m := []specs.LinuxIDMapping{{Size: 1}}
				s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind", Source: "/", UIDMappings: m, GIDMappings: m}}
			})}},
			NetDevices: &features.NetDevices{Enabled: q.implements(func(s *bundle.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}} })},
		},
	}
}

// asker asks about small configs on a host that lacks nothing.
type asker struct{ facts Facts }

func (q asker) compile(change func(*bundle.Spec)) error {
	s := &bundle.Spec{Version: specs.Version, Root: &specs.Root{Path: "/r"}, Process: &specs.Process{Args: []string{"/x"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}}}
	change(s)
	f := q.facts
	f.Sources = map[string]Source{"/": {Dir: true}}
	_, err := Compile(Input{ID: "x", Bundle: "/b", CgroupPath: "/x", Spec: s, Facts: f})
	return err
}

// implements tells whether a config is understood, be it that this host cannot do it.
func (q asker) implements(change func(*bundle.Spec)) *bool {
	yes := !errdef.Is(q.compile(change), errdef.NotImplemented)
	return &yes
}

// which returns the candidates that a config may have.
func (q asker) which(candidates []string, change func(*bundle.Spec, string)) []string {
	var out []string
	for _, c := range candidates {
		if q.compile(func(s *bundle.Spec) { change(s, c) }) == nil {
			out = append(out, c)
		}
	}
	return out
}

func (q asker) seccomp() *features.Seccomp {
	which := func(candidates []string, change func(p *specs.LinuxSeccomp, rule *specs.LinuxSyscall, name string)) []string {
		var out []string
		for _, name := range candidates {
			p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}}}
			change(p, &p.Syscalls[0], name)
			if _, err := seccomp.Compile(p, q.facts.Arch); err == nil {
				out = append(out, name)
			}
		}
		return sorted(out)
	}
	flag := func(p *specs.LinuxSeccomp, _ *specs.LinuxSyscall, name string) {
		p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(name)}
	}
	known := which([]string{"SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow),
		string(specs.LinuxSeccompFlagWaitKillableRecv)}, flag)
	supported := slices.DeleteFunc(slices.Clone(known), func(name string) bool {
		return name == string(specs.LinuxSeccompFlagWaitKillableRecv) && !q.facts.atLeast(5, 19)
	})
	yes := true
	return &features.Seccomp{Enabled: &yes, KnownFlags: known, SupportedFlags: supported,
		Actions: which(names(specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow,
			specs.ActLog, specs.ActNotify), func(p *specs.LinuxSeccomp, rule *specs.LinuxSyscall, name string) {
			if rule.Action = specs.LinuxSeccompAction(name); rule.Action == specs.ActNotify {
				p.ListenerPath = "/l"
			}
		}),
		Operators: which(names(specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
			specs.OpMaskedEqual), func(_ *specs.LinuxSeccomp, rule *specs.LinuxSyscall, name string) {
			rule.Args = []specs.LinuxSeccompArg{{Value: 1, ValueTwo: 1, Op: specs.LinuxSeccompOperator(name)}}
		}),
		Archs: which(names(specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
			specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE,
			specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K,
			specs.ArchSH, specs.ArchSHEB), func(p *specs.LinuxSeccomp, _ *specs.LinuxSyscall, name string) {
			p.Architectures = []specs.Arch{specs.Arch(name)}
		}),
	}
}

func (q asker) intelRdt() *features.IntelRdt {
	has := func(r specs.LinuxIntelRdt) *bool {
		return q.implements(func(s *bundle.Spec) { s.Linux.IntelRdt = &r })
	}
	return &features.IntelRdt{Enabled: has(specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}), Schemata: has(specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}}),
		Monitoring: has(specs.LinuxIntelRdt{EnableMonitoring: true})}
}

func (q asker) memoryPolicy() *features.MemoryPolicy {
	modes := q.which(names(specs.MpolDefault, specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferred,
		specs.MpolPreferredMany, specs.MpolLocal), func(s *bundle.Spec, name string) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(name), Nodes: "0"}
		if name == string(specs.MpolDefault) || name == string(specs.MpolLocal) {
			s.Linux.MemoryPolicy.Nodes = ""
		}
	})
	if modes == nil {
		return nil
	}
	return &features.MemoryPolicy{Modes: sorted(modes), Flags: sorted(q.which(names(specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes),
		func(s *bundle.Spec, name string) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MemoryPolicyFlagType(name)}}
		}))}
}

func hookNames() []string {
	return []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
}

func namespaceNames() []string {
	return []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
}

func names[T ~string](list ...T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
