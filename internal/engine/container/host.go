package container

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
)

// host adds to the facts about the machine the device nodes that rec asks for.
func (c *core) host(rec *api.Container) (spec.Host, error) {
	h := c.Host
	if rec.HostConfig.Privileged {
		all, err := devicesBelow("/dev")
		if err != nil {
			return h, err
		}
		h.AllDevices = all
		return h, nil
	}
	for _, p := range spec.DevicePaths(rec) {
		found, err := devicesBelow(p)
		if err != nil {
			return h, err
		}
		if h.Devices == nil {
			h.Devices = map[string][]specs.LinuxDevice{}
		}
		h.Devices[p] = found
	}
	return h, nil
}

// devicesBelow describes the device nodes at or below an absolute path of the host; links are followed only at its end.
func devicesBelow(p string) ([]specs.LinuxDevice, error) {
	if !filepath.IsAbs(p) {
		return nil, errdef.New(errdef.InvalidArgument, "device %q: not an absolute path", p)
	}
	st, err := os.Stat(p)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "error gathering device information while adding custom device %q: %w", p, err)
	}
	if !st.IsDir() {
		d, ok := device(p, st)
		if !ok {
			return nil, errdef.New(errdef.InvalidArgument, "error gathering device information while adding custom device %q: not a device node", p)
		}
		return []specs.LinuxDevice{d}, nil
	}
	var out []specs.LinuxDevice
	err = filepath.WalkDir(p, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if e.IsDir() {
			switch strings.TrimPrefix(name, "/dev/") {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				return filepath.SkipDir
			}
			return nil
		}
		if name == "/dev/console" || e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if d, ok := device(name, info); ok {
				out = append(out, d)
			}
		}
		return nil
	})
	return out, err
}

func device(p string, info os.FileInfo) (specs.LinuxDevice, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: p, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), UID: &st.Uid, GID: &st.Gid}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFCHR:
		d.Type = "c"
	case syscall.S_IFBLK:
		d.Type = "b"
	default:
		return d, false
	}
	mode := info.Mode().Perm()
	d.FileMode = &mode
	return d, true
}
