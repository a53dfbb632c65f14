package explain

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// devicesSection compares the device nodes that were asked for beside those that every container has.
func devicesSection(v *view) Section {
	s := Section{Name: "devices", Title: "Devices"}
	if v.Spec.Linux == nil || len(v.Spec.Linux.Devices) == 0 {
		return s
	}
	var root *safepath.Root
	if v.Pid > 0 {
		var err error
		if root, err = v.root(); err != nil {
			s.add(Row{What: "devices", Note: fmt.Sprintf("not read: %v", err)})
		} else {
			defer root.Close()
		}
	}
	for _, d := range v.Spec.Linux.Devices {
		row := Row{What: d.Path, Asked: v.why("linux.devices "+d.Path, "linux.devices"), Planned: node(d.Type, d.Major, d.Minor)}
		if root != nil {
			row.Kernel = nodeAt(root, d)
			row.Differs = row.Kernel != row.Planned
		}
		s.add(row)
	}
	return s
}

func node(kind string, major, minor int64) string {
	if kind == "u" {
		kind = "c"
	}
	if kind == "p" {
		return "fifo"
	}
	return fmt.Sprintf("%s %d:%d", kind, major, minor)
}

func nodeAt(root *safepath.Root, d specs.LinuxDevice) string {
	st, err := root.Lstat(d.Path)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return "missing"
	case err != nil:
		return fmt.Sprintf("not read: %v", err)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return node("c", major, minor)
	case unix.S_IFBLK:
		return node("b", major, minor)
	case unix.S_IFIFO:
		return node("p", 0, 0)
	}
	return "no device node"
}
