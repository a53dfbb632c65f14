package runtime

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// spec writes the config.json that runc writes too: a shell on a terminal, three capabilities, all namespaces but user.
func (a viewer) spec(fs *flag.FlagSet, argv []string) (int, error) {
	var dir string
	both(fs.StringVar, &dir, "bundle", "b", "", "folder to write config.json into (the current one)")
	rootless := fs.Bool("rootless", false, "for a container of a user who is not root")
	if _, err := parse(fs, argv, exactly(0)); err != nil {
		return 1, err
	}
	path := filepath.Join(dir, bundle.ConfigFile)
	l, err := cgroup.Detect()
	if err != nil {
		return 1, err
	}
	s := Example(l.Mode == plan.V2)
	if *rootless {
		toRootless(s, uint32(os.Geteuid()), uint32(os.Getegid()))
	}
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return 1, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if os.IsExist(err) {
		return 1, errdef.New(errdef.Conflict, "File %s exists. Remove it first", path)
	}
	if err != nil {
		return 1, err
	}
	_, err = f.Write(b)
	return 0, errors.Join(err, f.Close())
}

// Example returns the config that spec writes. A cgroup namespace is worth having where one hierarchy is all (v2).
func Example(cgroupNamespace bool) *bundle.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	s := &bundle.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal: true, Args: []string{"sh"}, Cwd: "/", NoNewPrivileges: true,
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "runc",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			Resources:  &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if cgroupNamespace {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
	}
	return s
}

// toRootless changes a config for a user who is not root: a user namespace with this one user, the host's network and /sys, no limits.
func toRootless(s *bundle.Spec, uid, gid uint32) {
	l := s.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == "network" || n.Type == "user" })
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "user"})
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: uid, Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: gid, Size: 1}}
	l.Resources = nil
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "/sys" {
			*m = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		}
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") || strings.HasPrefix(o, "uid=") })
	}
}
