package checkpoint

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/mountinfo"
	"github.com/dhow-containers/dhow/internal/oci/criu"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// place is where config.json puts something: a mount, a mask, a device.
type place struct {
	point  string // resolved inside the root
	kind   string // file system; "bind", "mask", "read-only", "device", "console"
	source string // of a bind or device: the host's path
	config string // the field
}

// root resolves paths inside a container's root.
type root struct{ f *os.File }

func openRoot(p string) (*root, error) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open root file system", Path: p, Err: err}
	}
	return &root{os.NewFile(uintptr(fd), p)}, nil
}

func (r *root) open(p string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(r.f.Fd()), strings.TrimLeft(p, "/"), &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// resolve follows a path's symbolic links inside the root, as the container's maker did; what does not exist (it lies in a file system
// that is not mounted yet) is kept as it is written.
func (r *root) resolve(p string) string {
	p = path.Clean("/" + p)
	rest := ""
	for p != "/" {
		if fd, err := r.open(p, 0, unix.RESOLVE_IN_ROOT); err == nil {
			full := link(fd)
			base := link(int(r.f.Fd()))
			unix.Close(fd)
			if base == "/" {
				base = ""
			}
			if inside, ok := strings.CutPrefix(full, base+"/"); ok {
				return path.Join("/", inside, rest)
			}
			return path.Join(p, rest)
		}
		rest = path.Join(path.Base(p), rest)
		p = path.Dir(p)
	}
	return path.Join("/", rest)
}

func link(fd int) string {
	s, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return s
}

// places lists what config.json puts into the root.
func places(c *Container, r *root) []place {
	var out []place
	for i, m := range c.Spec.Mounts {
		p := place{point: r.resolve(m.Destination), kind: m.Type, config: fmt.Sprintf("mounts[%d]", i)}
		if isBind(m) {
			p.kind, p.source = "bind", bindSource(c, m)
		}
		if m.Type == "cgroup" || m.Type == "cgroup2" {
			p.kind = "cgroup"
		}
		out = append(out, p)
	}
	for _, m := range c.Spec.Linux.MaskedPaths {
		out = append(out, place{point: r.resolve(m), kind: "mask", config: "linux.maskedPaths"})
	}
	for _, m := range c.Spec.Linux.ReadonlyPaths {
		out = append(out, place{point: r.resolve(m), kind: "read-only", config: "linux.readonlyPaths"})
	}
	for i, d := range c.Spec.Linux.Devices {
		out = append(out, place{point: r.resolve(d.Path), kind: "device", source: path.Clean(d.Path), config: fmt.Sprintf("linux.devices[%d]", i)})
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		out = append(out, place{point: r.resolve("/dev/" + d), kind: "device", source: "/dev/" + d, config: "default device"})
	}
	return append(out, place{point: r.resolve("/dev/console"), kind: "console", config: "process.terminal"})
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// outOfReach refuses folders that lie in what the container may write to: it would make its own images, or swap a file for a link while criu
// writes. Who has the whole host bound into it, to write, needs neither.
func (f *folders) outOfReach(c *Container) error {
	type tree struct{ path, config string }
	reach := []tree{{c.Rootfs, "root.path"}}
	for i, m := range c.Spec.Mounts {
		if p := bindSource(c, m); isBind(m) && !slices.Contains(m.Options, "ro") && p != "/" {
			reach = append(reach, tree{p, fmt.Sprintf("mounts[%d].source", i)})
		}
	}
	for _, dir := range []struct {
		file *os.File
		flag string
	}{{f.images, "--image-path"}, {f.work, "--work-path"}} {
		at := link(int(dir.file.Fd())) + "/"
		for _, t := range reach {
			if p, err := filepath.EvalSymlinks(t.path); err == nil && strings.HasPrefix(at, p+"/") {
				return errdef.New(errdef.Forbidden, "%s: %s lies in config.json's %s, where the container may write: choose another folder", dir.flag, strings.TrimSuffix(at, "/"), t.config)
			}
		}
	}
	return nil
}

func bindSource(c *Container, m specs.Mount) string {
	if filepath.IsAbs(m.Source) {
		return path.Clean(m.Source)
	}
	return filepath.Join(c.Bundle, m.Source)
}

// owner is the innermost place at or above a mount point.
func owner(list []place, point string) (place, bool) {
	var best place
	found := false
	for _, p := range list {
		if (p.point == point || strings.HasPrefix(point, p.point+"/")) && (!found || len(p.point) >= len(best.point)) {
			best, found = p, true
		}
	}
	return best, found
}

// nullKey is the name of the mask of a file: the restorer binds the host's /dev/null.
const nullKey = "/dev/null"

// outside tells under which name criu shall know a mount that comes from outside the container; "" for the container's own.
func outside(list []place, m tableEntry, cgroupBinds bool) string {
	p, ok := owner(list, m.point)
	if !ok || m.point == "/" {
		return ""
	}
	bind, _ := owner(slices.DeleteFunc(slices.Clone(list), func(p place) bool { return p.kind == "read-only" }), m.point)
	switch {
	case p.kind == "mask" && p.point == m.point && m.file:
		return nullKey
	case p.kind == "device" && p.point == m.point, bind.kind == "bind", p.kind == "cgroup" && cgroupBinds && strings.HasPrefix(m.fs, "cgroup"):
		return m.point
	}
	return ""
}

// source is the host's path for an external mount of a checkpoint.
func source(list []place, c *Container, m criu.Mount) (string, error) {
	if m.Key == nullKey {
		if p, ok := owner(list, m.Point); ok && p.point == m.Point && (p.kind == "mask" || p.kind == "device") {
			return nullKey, nil
		}
		return "", errdef.New(errdef.InvalidArgument, "the checkpoint masks %s, which config.json does not", m.Point)
	}
	list = slices.DeleteFunc(slices.Clone(list), func(p place) bool { return p.kind == "read-only" })
	p, ok := owner(list, m.Key)
	rest := strings.TrimPrefix(strings.TrimPrefix(m.Key, p.point), "/")
	switch {
	case m.Key != m.Point || !ok:
	case p.kind == "device" && rest == "":
		return p.source, nil
	case p.kind == "bind":
		return below(p, rest)
	case p.kind == "cgroup":
		if dir := hierarchy(c.Cgroups, rest); dir != "" {
			return dir, nil
		}
	}
	return "", errdef.New(errdef.InvalidArgument, "the checkpoint has %q from outside on %s, which no mount of config.json accounts for", m.Key, m.Point)
}

// below is a path under a bind's source, which may not lead out of it.
func below(p place, rest string) (string, error) {
	flags := uint64(0)
	if rest == "" {
		var st unix.Stat_t
		if err := unix.Stat(p.source, &st); err != nil {
			return "", errdef.New(errdef.InvalidArgument, "config.json: %s.source: %s: %w", p.config, p.source, err)
		}
		return p.source, nil
	}
	r, err := openRoot(p.source)
	if err != nil {
		return "", fmt.Errorf("config.json: %s.source: %w", p.config, err)
	}
	defer r.f.Close()
	fd, err := r.open(rest, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return "", errdef.New(errdef.InvalidArgument, "config.json: %s.source: %s/%s, mounted there when the checkpoint was taken: %w", p.config, p.source, rest, err)
	}
	unix.Close(fd)
	return path.Join(p.source, rest), nil
}

// hierarchy finds the folder of a cgroup hierarchy by the name it has in a container: on v2 there is one, without a name.
func hierarchy(dirs []plan.Dir, name string) string {
	for _, d := range dirs {
		if d.V2 && (name == "" || name == "unified") || !d.V2 && name == strings.TrimPrefix(strings.Join(d.Controllers, ","), "name=") {
			return d.Path
		}
	}
	return ""
}

// tableEntry is a line of /proc/PID/mountinfo.
type tableEntry struct {
	point, fs string
	file      bool // the mount point is no folder
}

func mountInfo(pid int) ([]tableEntry, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	var out []tableEntry
	for _, line := range strings.Split(string(b), "\n") {
		fields := strings.Fields(line)
		sep := slices.Index(fields, "-")
		if sep < 6 || len(fields) <= sep+1 {
			continue
		}
		out = append(out, tableEntry{point: mountinfo.Unescape(fields[4]), fs: fields[sep+1]})
	}
	return out, nil
}

// newCgroupNamespace tells whether the container has a cgroup namespace of its own: without one its cgroups are binds.
func newCgroupNamespace(s *bundle.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace && n.Path == "" })
}
