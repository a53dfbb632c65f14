package explain

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// rootfsSection shows the layers and what the kernel has at /.
func rootfsSection(v *view) Section {
	s := Section{Name: "rootfs", Title: "Root file system"}
	asked := "image " + v.Image
	if r := v.Rootfs; r != nil {
		if r.Folder != "" {
			s.add(Row{What: "folder", Asked: asked, Planned: r.Folder, Note: "a copy of the image that is this container's own"})
		}
		for i, l := range r.Lower {
			row := Row{What: fmt.Sprintf("layer %d", i), Asked: asked, Planned: l.Type + " " + l.Source}
			if size, err := layerSize(l); err != nil {
				row.Note = fmt.Sprintf("not read: %v", err)
			} else if l.Type != "dir" {
				row.Kernel = units.BytesSize(float64(size))
				row.Note = fmt.Sprintf("an index over %d files of layer data", len(l.Devices))
			}
			s.add(row)
		}
		if r.Upper != "" {
			row := Row{What: "writable layer", Asked: "default", Planned: r.Upper}
			if v.Usage != nil {
				if n, err := v.Usage(); err != nil {
					row.Note = fmt.Sprintf("not read: %v", err)
				} else {
					row.Kernel = units.BytesSize(float64(n)) + " used"
				}
			}
			if r.Volatile {
				row.Note = "volatile: not synced, since it goes with the container"
			}
			s.add(row)
		}
	}
	planned := "rw"
	if v.Spec.Root != nil && v.Spec.Root.Readonly {
		planned = "ro"
	}
	overlay := v.Rootfs != nil && v.Rootfs.Folder == ""
	if overlay {
		planned = "overlay " + planned
	}
	row := Row{What: "/", Asked: v.why("root.readonly"), Planned: planned}
	if m := v.at("/"); m != nil {
		row.Kernel = m.fstype + " " + strings.Join(m.options, ",")
		row.Differs = m.has("ro") != strings.HasSuffix(planned, "ro") || overlay && m.fstype != "overlay"
		s.add(row)
		s.add(Row{What: "options", Kernel: short(strings.Join(m.super, ","))})
		return s
	}
	if v.Pid > 0 {
		row.Note = unreadNote(v.mountsErr, "the kernel lists no mount at /")
	}
	s.add(row)
	return s
}

func unreadNote(err error, otherwise string) string {
	if err != nil {
		return fmt.Sprintf("not read: %v", err)
	}
	return otherwise
}

// layerSize adds up an index and the files that it points into.
func layerSize(l bundle.Layer) (int64, error) {
	var sum int64
	for _, f := range append([]string{l.Source}, l.Devices...) {
		st, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		sum += st.Size()
	}
	return sum, nil
}

// mountsSection compares each mount that was promised with the kernel's line, then shows those that nobody asked for.
func mountsSection(v *view) Section {
	s := Section{Name: "mounts", Title: "Mounts"}
	seen := map[string]bool{"/": true}
	for _, m := range v.Spec.Mounts {
		row := Row{What: m.Destination, Asked: v.why("mounts " + m.Destination), Planned: plannedMount(m)}
		if v.Pid > 0 {
			e, err := v.find(m.Destination)
			switch {
			case v.mountsErr != nil:
				row.Note = unreadNote(v.mountsErr, "")
			case e == nil && err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
				row.Note = unreadNote(err, "")
			case e == nil:
				row.Kernel, row.Differs = "not mounted", true
			default:
				seen[e.point] = true
				row.Kernel = e.String()
				if row.Note = mountDifference(m, e); row.Note == "" && bound(m) {
					row.Note = v.moved(m)
				}
				row.Differs = row.Note != ""
			}
		}
		s.add(row)
	}
	for _, e := range v.mounts {
		if seen[e.point] || v.expected(e.point) {
			continue
		}
		seen[e.point] = true
		s.add(Row{What: e.point, Kernel: e.String(), Differs: true, Note: "nobody asked for this mount: it was made inside, or from outside"})
	}
	return s
}

// expected tells whether a mount follows from something else that was asked for.
func (v *view) expected(point string) bool {
	if strings.HasPrefix(point, "/dev/") { // device nodes are binds where nodes cannot be made; the console
		return true
	}
	for _, m := range v.Spec.Mounts {
		if strings.HasPrefix(point, m.Destination+"/") && (m.Type == "cgroup" || slices.Contains(m.Options, "rbind")) {
			return true
		}
	}
	return v.Spec.Linux != nil && (slices.Contains(v.Spec.Linux.MaskedPaths, point) || slices.Contains(v.Spec.Linux.ReadonlyPaths, point))
}

func plannedMount(m specs.Mount) string {
	what := m.Type
	if bound(m) {
		what = "bind " + m.Source
	}
	return strings.TrimSpace(what + " " + strings.Join(m.Options, ","))
}

func bound(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// mountDifference says what a mount lacks, "" when it is as promised.
func mountDifference(m specs.Mount, e *mountEntry) string {
	want := map[string]bool{}
	for _, o := range m.Options {
		switch o {
		case "ro", "nosuid", "nodev", "noexec":
			want[o] = true
		case "rro":
			want["ro"] = true
		case "rw":
			delete(want, "ro")
		case "suid", "dev", "exec":
			delete(want, "no"+o)
		}
	}
	for _, o := range []string{"ro", "nosuid", "nodev", "noexec"} {
		if want[o] && !e.has(o) {
			return "it is not " + o
		}
	}
	if e.has("ro") && !want["ro"] {
		return "it is read-only"
	}
	if w, h := tmpfsSize(m.Options), tmpfsSize(e.super); m.Type == "tmpfs" && w > 0 && h > 0 && w != h {
		return fmt.Sprintf("its size is %s", units.BytesSize(float64(h)))
	}
	switch {
	case bound(m), m.Type == e.fstype:
	case m.Type == "cgroup" && slices.Contains([]string{"cgroup", "cgroup2", "tmpfs"}, e.fstype):
	default:
		return fmt.Sprintf("it is %s, not %s", e.fstype, m.Type)
	}
	return ""
}

// tmpfsSize is the last size= among options in bytes; 0 when there is none, or one in percent.
func tmpfsSize(options []string) (n int64) {
	for _, o := range options {
		if text, ok := strings.CutPrefix(o, "size="); ok {
			n, _ = units.RAMInBytes(text)
		}
	}
	return n
}

// moved tells whether a bind mount's source on the host is no longer what the container sees, "" when it is. A file that an editor
// has replaced by a new one is the usual case: the mount stays with the old one.
func (v *view) moved(m specs.Mount) string {
	host, err := os.Stat(m.Source)
	if os.IsNotExist(err) {
		return "its source is gone from the host; the container still has it"
	}
	root, rerr := v.root()
	if err != nil || rerr != nil {
		return "" // cannot be told
	}
	defer root.Close()
	h, err := root.Handle(m.Destination, true)
	if err != nil {
		return ""
	}
	defer h.Close()
	if inside, err := h.Stat(); err == nil && !os.SameFile(host, inside) {
		return "at the source on the host lies something else now; the container still has the old one"
	}
	return ""
}

// find returns the mount at a destination as the container sees it; links on the way are resolved under its root.
func (v *view) find(dst string) (*mountEntry, error) {
	if e := v.at(path.Clean(dst)); e != nil {
		return e, nil
	}
	root, err := v.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	h, err := root.Handle(dst, true)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	real, err := os.Readlink(safepath.ProcPath(h))
	if err != nil {
		return nil, err
	}
	return v.at(real), nil
}

// root is the root folder of the first process.
func (v *view) root() (*safepath.Root, error) {
	if v.Pid == 0 {
		return nil, errNotRunning
	}
	// A file system that is served by a process inside can keep whoever looks a path up waiting for ever.
	for i := range v.mounts {
		if strings.HasPrefix(v.mounts[i].fstype, "fuse") {
			return nil, fmt.Errorf("look into the container: %s is a FUSE mount, which could hold the engine up", v.mounts[i].point)
		}
	}
	dir := fmt.Sprintf("/proc/%d/root", v.Pid)
	// The kernel's own link is followed here, and only here.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return safepath.FromFile(os.NewFile(uintptr(fd), dir)), nil
}

// pathsSection compares the masked and the read-only paths.
func pathsSection(v *view) Section {
	s := Section{Name: "paths", Title: "Masked and read-only paths"}
	if v.Spec.Linux == nil {
		return s
	}
	for _, p := range v.Spec.Linux.MaskedPaths {
		v.hiddenPath(&s, p, "masked", v.why("linux.maskedPaths"), func(e *mountEntry) bool {
			// A folder is covered by an empty read-only tmpfs, a file by /dev/null.
			return e.fstype == "tmpfs" && e.has("ro") || e.root == "/null" || strings.HasSuffix(e.root, "/dev/null")
		})
	}
	for _, p := range v.Spec.Linux.ReadonlyPaths {
		v.hiddenPath(&s, p, "read-only", v.why("linux.readonlyPaths"), func(e *mountEntry) bool { return e.has("ro") })
	}
	return s
}

func (v *view) hiddenPath(s *Section, p, planned, asked string, good func(*mountEntry) bool) {
	row := Row{What: p, Asked: asked, Planned: planned}
	defer func() { s.add(row) }()
	if v.Pid == 0 {
		return
	}
	if e := v.at(p); e != nil && good(e) {
		row.Kernel = planned
		return
	} else if e != nil {
		row.Kernel, row.Differs = e.String(), true
		return
	}
	root, err := v.root()
	if err != nil {
		row.Note = fmt.Sprintf("not read: %v", err)
		return
	}
	defer root.Close()
	_, err = root.Lstat(p)
	switch {
	case err == nil:
		row.Kernel, row.Differs = "open", true
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		row.Kernel = "does not exist"
	default:
		row.Note = fmt.Sprintf("not read: %v", err)
	}
}

// volumesSection shows the volumes by name.
func volumesSection(v *view) Section {
	s := Section{Name: "volumes", Title: "Volumes"}
	for _, x := range v.Volumes {
		row := Row{What: x.Name, Asked: x.Why, Planned: x.Source + " at " + x.Destination}
		if v.Pid > 0 {
			if e, _ := v.find(x.Destination); e != nil {
				row.Kernel = e.String()
				row.Differs = !strings.HasSuffix(x.Source, e.root)
			} else if v.mountsErr == nil {
				row.Kernel, row.Differs = "not mounted", true
			}
		}
		s.add(row)
	}
	return s
}
