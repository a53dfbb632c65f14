// Package plan decides which cgroup directories a container needs and what is written into them, in which order.
//
// It promises to be pure: the same layout and resources give the same steps. A limit that the layout can't keep is an error that
// names the field; nothing asked for is left out. It must never touch a file: the caller carries the steps out.
package plan

import (
	"path"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Mode says how the machine mounts cgroups.
type Mode int

// The modes. Hybrid: v1 hierarchies and also the unified one, as cgroup v2.
const (
	V1 Mode = iota + 1
	Hybrid
	V2
)

func (m Mode) String() string {
	switch m {
	case V1:
		return "v1"
	case Hybrid:
		return "hybrid"
	case V2:
		return "v2"
	}
	return "none"
}

// Controller is one v1 hierarchy.
type Controller struct {
	Names []string // "cpu", "cpuacct"; or "name=systemd"
	Mount string   // where it is mounted
	Self  string   // our own cgroup, as a path below Mount: "/" or "/user/x"
}

// Layout is what the machine offers.
type Layout struct {
	Mode               Mode
	Controllers        []Controller // v1, in mount order
	Unified            string       // mount point of the v2 hierarchy; "" if not mounted
	UnifiedControllers []string     // cgroup.controllers of its root
	SelfUnified        string       // our own cgroup in it, as a path below Unified
	UnifiedOurs        string       // the highest folder whose controllers are ours to hand down; "": Unified
}

// Dir is a container's directory in one hierarchy.
type Dir struct {
	Controllers []string // v1: as Controller.Names; v2: as Layout.UnifiedControllers
	V2          bool
	Mount       string
	Path        string
}

// Parents are the directories from below Mount down to Path itself.
func (d Dir) Parents() []string {
	var all []string
	for p := d.Path; p != d.Mount && len(p) > len(d.Mount); p = path.Dir(p) {
		all = append(all, p)
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// Has reports whether the hierarchy carries a controller.
func (d Dir) Has(controller string) bool {
	for _, c := range d.Controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// Dirs returns the container's directory in each hierarchy. An absolute cgroupsPath begins at each mount point, a relative one at
// our own cgroup (v1) or beside it (v2, where a cgroup with processes has no controllers for those below), as runc has it. The path must name something below and must not contain "..".
func Dirs(l Layout, cgroupsPath string) ([]Dir, error) {
	if err := checkPath(cgroupsPath); err != nil {
		return nil, err
	}
	below := func(mount, self string) string {
		if path.IsAbs(cgroupsPath) {
			return path.Join(mount, cgroupsPath)
		}
		self = path.Join("/", self)
		if l.Mode == V2 {
			self = path.Dir(self)
		}
		return path.Join(mount, self, cgroupsPath)
	}
	var dirs []Dir
	for _, c := range l.Controllers {
		dirs = append(dirs, Dir{Controllers: c.Names, Mount: c.Mount, Path: below(c.Mount, c.Self)})
	}
	if l.Unified != "" {
		dirs = append(dirs, Dir{Controllers: l.UnifiedControllers, V2: true, Mount: l.Unified, Path: below(l.Unified, l.SelfUnified)})
	}
	if len(dirs) == 0 {
		return nil, errdef.New(errdef.Unavailable, "linux.cgroupsPath: no cgroup hierarchy is mounted; mount one below /sys/fs/cgroup")
	}
	return dirs, nil
}

func checkPath(p string) error {
	switch {
	case p == "":
		return invalid("linux.cgroupsPath: empty; give the path of the container's cgroup")
	case strings.ContainsAny(p, "\x00\n"):
		return invalid("linux.cgroupsPath: %q contains a NUL or newline", p)
	case len(p) > 2048:
		return invalid("linux.cgroupsPath: %d bytes long; at most 2048 are allowed", len(p))
	case path.Clean(p) == "/" || path.Clean(p) == ".":
		return invalid("linux.cgroupsPath: %q is the cgroup of the machine or our own; name one below it", p)
	}
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return invalid("linux.cgroupsPath: %q contains \"..\"", p)
		}
		if len(part) > 255 {
			return invalid("linux.cgroupsPath: %q has an element of %d bytes; at most 255 are allowed", p, len(part))
		}
		if strings.HasPrefix(part, "cgroup.") {
			return invalid("linux.cgroupsPath: element %q: names that begin with \"cgroup.\" are the kernel's", part)
		}
	}
	return nil
}

// Kind says what a Step does.
type Kind int

// The kinds of Step.
const (
	Mkdir       Kind = iota + 1 // make directory Path, mode 0755; if it did not exist and Then is set, do Then
	Write                       // write Value to file Path; if it does not exist and Else is set, do Else
	Copy                        // if file Path is empty, write to it what file From contains
	Check                       // refuse with EBUSY unless the number in file Path is at most Value
	Devices                     // attach Program to directory Path, in place of an earlier one of ours
	Join                        // write the process's pid to file Path
	DeviceRules                 // bring the v1 devices controller of directory Path to Rules, by as few changes as there are
)

func (k Kind) String() string {
	switch k {
	case Mkdir:
		return "mkdir"
	case Write:
		return "write"
	case Copy:
		return "copy"
	case Check:
		return "check"
	case Devices:
		return "devices"
	case Join:
		return "join"
	case DeviceRules:
		return "device rules"
	}
	return "kind" + strconv.Itoa(int(k))
}

// Step is one thing to do. An errno in Tolerate is no failure.
type Step struct {
	Kind     Kind
	Path     string
	Value    string
	From     string
	Else     *Step
	Then     *Step
	Program  []byte
	Rules    *DeviceList
	Tolerate []uint
	Why      string // the field of the OCI configuration that asked for it
}

// String is the step on one line, as golden files and program listings show it.
func (s Step) String() string {
	var b strings.Builder
	b.WriteString(s.Kind.String() + " " + s.Path)
	if s.Kind == Write || s.Kind == Check {
		b.WriteString(" " + strconv.Quote(s.Value))
	}
	if s.From != "" {
		b.WriteString(" from " + s.From)
	}
	if s.Program != nil {
		b.WriteString(" " + strconv.Itoa(len(s.Program)/8) + " instructions")
	}
	if s.Rules != nil {
		b.WriteString(" " + strconv.Quote(s.Rules.String()))
	}
	for i, e := range s.Tolerate {
		b.WriteString([]string{" tolerate ", ","}[min(i, 1)] + errnoName(e))
	}
	if s.Why != "" {
		b.WriteString(" # " + s.Why)
	}
	if s.Else != nil {
		b.WriteString(" | or " + s.Else.String())
	}
	if s.Then != nil {
		b.WriteString(" | if made " + s.Then.String())
	}
	return b.String()
}

// Errnos a step may tolerate. Their numbers are the same on all architectures.
const (
	enoent     = 2
	ebusy      = 16
	eexist     = 17
	einval     = 22
	eopnotsupp = 95
)

func errnoName(e uint) string {
	switch e {
	case enoent:
		return "ENOENT"
	case ebusy:
		return "EBUSY"
	case eexist:
		return "EEXIST"
	case einval:
		return "EINVAL"
	case eopnotsupp:
		return "EOPNOTSUPP"
	}
	return strconv.FormatUint(uint64(e), 10)
}

func invalid(format string, args ...any) error {
	return errdef.New(errdef.InvalidArgument, format, args...)
}
