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
	yes := true
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
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
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

// seccomp is told by the tables that seccomp.Compile takes and its own test tries.
func (q asker) seccomp() *features.Seccomp {
	yes, k := true, seccomp.Names()
	return &features.Seccomp{Enabled: &yes, Actions: k.Actions, Operators: k.Operators, Archs: k.Architectures, KnownFlags: k.Flags,
		SupportedFlags: seccomp.Supported(q.facts.Major, q.facts.Minor)}
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
