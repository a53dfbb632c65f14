package seccomp

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Host is what the conditions in a profile of Docker's format ask for.
type Host struct {
	Arch         string   // Go's name
	Caps         []string // the process's bounding set ("CAP_SYS_ADMIN", ...)
	Major, Minor int      // kernel version
}

// profile is Docker's format: the spec's, plus conditions.
type profile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	Architectures    []specs.Arch             `json:"architectures"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	ArchMap          []struct {
		Arch specs.Arch   `json:"architecture"`
		Subs []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []struct {
		specs.LinuxSyscall
		Name     string     `json:"name"` // of one call, where names is not there
		Includes conditions `json:"includes"`
		Excludes conditions `json:"excludes"`
	} `json:"syscalls"`
}

type conditions struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"` // Go's names
	MinKernel string   `json:"minKernel"`
}

// Parse reads a profile in Docker's format and settles its conditions. It returns nil for a profile that says nothing, which is no filter;
// unknown members are ignored, as Docker does. Errors are of kind InvalidArgument. What Compile refuses is not looked for here.
func Parse(data []byte, h Host) (*specs.LinuxSeccomp, error) {
	var p profile
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, invalid("seccomp profile: %w", err)
	}
	if p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return nil, invalid("seccomp profile: architectures and archMap exclude each other")
	}
	out := &specs.LinuxSeccomp{DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, Architectures: p.Architectures, Flags: p.Flags,
		ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata}
	for _, a := range p.ArchMap {
		if column, known := columnOfSpec(a.Arch); known && column >= 0 && goArch(column) == h.Arch {
			out.Architectures = append(append(out.Architectures, a.Arch), a.Subs...)
			break
		}
	}
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		if s.Name != "" && len(s.Names) > 0 {
			return nil, invalid("seccomp profile: syscalls[%d]: name and names exclude each other", i)
		}
		in, err := s.Includes.all(&h)
		if err != nil {
			return nil, invalid("seccomp profile: syscalls[%d].includes: %w", i, err)
		}
		excluded, err := s.Excludes.any(&h)
		if err != nil {
			return nil, invalid("seccomp profile: syscalls[%d].excludes: %w", i, err)
		}
		if !in || excluded {
			continue
		}
		call := s.LinuxSyscall
		if s.Name != "" {
			call.Names = []string{s.Name}
		}
		out.Syscalls = append(out.Syscalls, call)
	}
	return out, nil
}

// all tells whether every condition holds: all capabilities are there, the architecture is one of them, the kernel is new enough.
func (c *conditions) all(h *Host) (bool, error) {
	for _, name := range c.Caps {
		if !slices.Contains(h.Caps, name) {
			return false, nil
		}
	}
	if len(c.Arches) > 0 && !slices.Contains(c.Arches, h.Arch) {
		return false, nil
	}
	if c.MinKernel == "" {
		return true, nil
	}
	return h.atLeast(c.MinKernel)
}

// any tells whether one condition holds.
func (c *conditions) any(h *Host) (bool, error) {
	if slices.ContainsFunc(c.Caps, func(name string) bool { return slices.Contains(h.Caps, name) }) || slices.Contains(c.Arches, h.Arch) {
		return true, nil
	}
	if c.MinKernel == "" {
		return false, nil
	}
	return h.atLeast(c.MinKernel)
}

// atLeast compares with a version of the form "4.8".
func (h *Host) atLeast(version string) (bool, error) {
	a, b, _ := strings.Cut(version, ".")
	major, err := strconv.ParseUint(a, 10, 16)
	minor, err2 := strconv.ParseUint(b, 10, 16)
	if err != nil || err2 != nil {
		return false, invalid("minKernel %q is not of the form 4.8", version)
	}
	return h.Major > int(major) || h.Major == int(major) && h.Minor >= int(minor), nil
}
