// Package spec owns the step from what was asked of a container to what is promised to it: api.Container in, OCI configuration out.
//
// It promises to be pure: the same input gives the same output, and every entry can tell which flag or image field asked for
// it. It must never touch a file, the kernel, the clock or the environment; the facts it needs come in as Host.
package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Host is what Build must know of the machine and of the engine itself.
type Host struct {
	NCPU      int
	CgroupV2  bool
	SwapLimit bool // the kernel accounts swap per cgroup
	// Caps holds the capabilities that the engine has, CAP_ names; nobody can be given more.
	Caps []string
	// Rlimits are the engine's own hard limits by RLIMIT_ name; only CAP_SYS_RESOURCE raises them.
	Rlimits     map[string]uint64
	OOMScoreAdj int
	// CgroupParent is the folder under which container cgroups lie, such as /dhow/1f2e3d4c5b6a.
	CgroupParent string
	// Devices describes the host's device nodes that were asked for, by path (see DevicePaths); AllDevices is for --privileged.
	Devices    map[string][]specs.LinuxDevice
	AllDevices []specs.LinuxDevice
	// AppArmor tells that the machine has it; AppArmorProfile is the default profile, "" where it cannot be loaded.
	AppArmor        bool
	AppArmorProfile string
	// Seccomp is the default profile for a capability set.
	Seccomp func(caps []string) *specs.LinuxSeccomp
	// SeccompProfile reads a profile in Docker's format; nil is no filter.
	SeccompProfile func(profile []byte, caps []string) (*specs.LinuxSeccomp, error)
}

// User is the command's user as found in the container's own files.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// Input is everything Build looks at.
type Input struct {
	Container *api.Container
	Host      Host
	User      User
	// Hostname is the effective host name.
	Hostname string
	// Namespaces holds paths of namespaces to join instead of making new ones.
	Namespaces map[specs.LinuxNamespaceType]string
	// HostsFile, HostnameFile and ResolvConf are the host paths of /etc/hosts, /etc/hostname and /etc/resolv.conf; empty ones are left out.
	HostsFile, HostnameFile, ResolvConf string
}

// Why maps a path into the configuration, such as "linux.resources.memory.limit" or "mounts /data", to the flag or image field that
// asked for it.
type Why map[string]string

// Output is what Build makes.
type Output struct {
	Spec     *bundle.Spec
	Why      Why
	Warnings []string
}

// builder gathers the output; its methods each fill one part of the configuration.
type builder struct {
	in   Input
	s    *specs.Spec
	why  Why
	warn []string
	caps []string
}

// Build makes the OCI configuration of a container. Its errors are InvalidArgument or NotImplemented and name the field.
func Build(in Input) (Output, error) {
	b := &builder{in: in, why: Why{}, s: &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: in.Container.HostConfig.ReadonlyRootfs},
		Linux:   &specs.Linux{Resources: &specs.LinuxResources{}},
	}}
	if in.Container.HostConfig.ReadonlyRootfs {
		b.because("root.readonly", "flag --read-only")
	}
	for _, part := range []func() error{
		b.unsupported, b.capabilities, b.process, b.namespaces, b.mounts, b.devices, b.resources, b.security, b.sysctls,
	} {
		if err := part(); err != nil {
			return Output{}, err
		}
	}
	b.s.Linux.CgroupsPath = CgroupsPath(in.Container, in.Host)
	if in.Container.HostConfig.CgroupParent != "" {
		b.because("linux.cgroupsPath", "flag --cgroup-parent "+in.Container.HostConfig.CgroupParent)
	} else {
		b.because("linux.cgroupsPath", Default)
	}
	b.s.Annotations = in.Container.HostConfig.Annotations
	for k := range b.s.Annotations {
		b.because("annotations "+k, "flag --annotation "+k)
	}
	return Output{Spec: b.s, Why: b.why, Warnings: b.warn}, nil
}

// Default is the reason of an entry that nobody asked for.
const Default = "default"

func (b *builder) because(path, reason string) { b.why[path] = reason }

// CgroupsPath is where a container's cgroup lies, below the root of each hierarchy.
func CgroupsPath(c *api.Container, h Host) string {
	parent := h.CgroupParent
	if p := c.HostConfig.CgroupParent; p != "" {
		parent = clean(p)
	}
	if parent == "/" {
		parent = ""
	}
	return parent + "/" + c.ID
}
