package compile

import (
	"slices"
	"testing"
)

// TestFeatures: what scripts and tests elsewhere show to work is told, and what depends on the kernel follows it.
func TestFeatures(t *testing.T) {
	f := Features(testFacts())
	l := f.Linux
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"hooks", f.Hooks, hookNames()}, {"namespaces", l.Namespaces, namespaceNames()}, {"capabilities", l.Capabilities, capNames()},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	for _, c := range []struct {
		what string
		list []string
		one  string
	}{
		{"mountOptions", f.MountOptions, "rro"}, {"mountOptions", f.MountOptions, "tmpcopyup"}, {"seccomp.actions", l.Seccomp.Actions, "SCMP_ACT_NOTIFY"},
		{"seccomp.operators", l.Seccomp.Operators, "SCMP_CMP_MASKED_EQ"}, {"seccomp.archs", l.Seccomp.Archs, "SCMP_ARCH_X86_64"},
		{"seccomp.supportedFlags", l.Seccomp.SupportedFlags, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, {"memoryPolicy.modes", l.MemoryPolicy.Modes, "MPOL_BIND"},
	} {
		if !slices.Contains(c.list, c.one) {
			t.Errorf("%s: no %s in %q", c.what, c.one, c.list)
		}
	}
	for what, on := range map[string]*bool{"apparmor": l.Apparmor.Enabled, "selinux": l.Selinux.Enabled, "idmap": l.MountExtensions.IDMap.Enabled,
		"netDevices": l.NetDevices.Enabled, "intelRdt": l.IntelRdt.Enabled} {
		if on == nil || !*on {
			t.Errorf("%s is not enabled", what)
		}
	}
	old := testFacts()
	old.Major, old.Minor = 5, 15
	if s := Features(old).Linux.Seccomp; slices.Contains(s.SupportedFlags, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") || !slices.Contains(s.KnownFlags, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") {
		t.Errorf("on Linux 5.15: known %q, supported %q", s.KnownFlags, s.SupportedFlags)
	}
}
