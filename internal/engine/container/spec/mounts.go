package spec

import (
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

const defaultShm = 64 << 20

// mounts lists the kernel's file systems first and then what was asked, parents before children. A mount that was asked for
// replaces a default one at the same place.
func (b *builder) mounts() error {
	asked := b.in.Container.Mounts
	taken := func(dst string) bool {
		return slices.ContainsFunc(asked, func(m api.Mount) bool { return clean(m.Destination) == dst })
	}
	for _, m := range b.defaultMounts() {
		if taken(m.Destination) {
			continue
		}
		b.s.Mounts = append(b.s.Mounts, m)
		if _, ok := b.why["mounts "+m.Destination]; !ok {
			b.because("mounts "+m.Destination, Default)
		}
	}
	for _, f := range []struct{ src, dst string }{
		{b.in.ResolvConf, "/etc/resolv.conf"}, {b.in.HostnameFile, "/etc/hostname"}, {b.in.HostsFile, "/etc/hosts"},
	} {
		if f.src == "" || taken(f.dst) {
			continue
		}
		b.s.Mounts = append(b.s.Mounts, specs.Mount{Destination: f.dst, Type: "bind", Source: f.src, Options: []string{"rbind", "rprivate"}})
		b.because("mounts "+f.dst, Default)
	}
	user := slices.Clone(asked)
	sort.SliceStable(user, func(i, j int) bool {
		return strings.Count(clean(user[i].Destination), "/") < strings.Count(clean(user[j].Destination), "/")
	})
	for _, m := range user {
		sm, err := userMount(m)
		if err != nil {
			return err
		}
		b.s.Mounts = append(b.s.Mounts, sm)
		b.because("mounts "+sm.Destination, m.Why)
	}
	return nil
}

func (b *builder) defaultMounts() []specs.Mount {
	h := b.in.Container.HostConfig
	sysfs := []string{"nosuid", "noexec", "nodev", "ro"}
	cgroup := []string{"ro", "nosuid", "noexec", "nodev", "relatime"}
	if h.Privileged {
		sysfs[3], cgroup[0] = "rw", "rw"
		b.because("mounts /sys", "flag --privileged")
		b.because("mounts /sys/fs/cgroup", "flag --privileged")
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sysfs},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if h.NetworkMode.IsHost() {
		// sysfs shows the network namespace of its mounter: with the host's, a fresh instance is refused to a user namespace, not to us.
		out[3].Options = sysfs
	}
	switch {
	case h.IpcMode.IsHost():
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}})
		out[5] = specs.Mount{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"rbind", "rprivate"}}
		b.because("mounts /dev/shm", "flag --ipc host")
		b.because("mounts /dev/mqueue", "flag --ipc host")
	case h.IpcMode.IsNone():
	default:
		size := int64(defaultShm)
		if h.ShmSize > 0 {
			size = h.ShmSize
		}
		if size != defaultShm {
			b.because("mounts /dev/shm", "flag --shm-size "+units.BytesSize(float64(size)))
		}
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}})
	}
	return out
}

func userMount(m api.Mount) (specs.Mount, error) {
	dst := clean(m.Destination)
	out := specs.Mount{Destination: dst, Source: m.Source}
	switch m.Type {
	case mount.TypeTmpfs:
		out.Type, out.Source = "tmpfs", "tmpfs"
		out.Options = append([]string{"noexec", "nosuid", "nodev"}, m.Data...)
		out.Options = lastWins(out.Options)
		for _, o := range out.Options {
			if !tmpfsOption(o) {
				return out, errdef.New(errdef.InvalidArgument, "invalid tmpfs option %q at %s", o, dst)
			}
		}
	case mount.TypeBind, mount.TypeVolume:
		out.Type = "bind"
		bind := "rbind"
		if m.NonRecursive {
			bind = "bind"
		}
		propagation := string(m.Propagation)
		if propagation == "" {
			propagation = "rprivate"
		}
		out.Options = []string{bind, propagation}
	default:
		return out, errdef.New(errdef.NotImplemented, "mount type %q at %s is not implemented: use bind, volume or tmpfs", m.Type, dst)
	}
	switch {
	case m.ReadOnly && m.Type == mount.TypeBind && !m.ReadOnlyHere && !m.NonRecursive:
		out.Options = append(out.Options, "ro", "rro")
	case m.ReadOnly:
		out.Options = append(out.Options, "ro")
	}
	if dst == "/" {
		return out, errdef.New(errdef.InvalidArgument, "invalid mount: destination can't be '/'")
	}
	return out, nil
}

// tmpfsOption tells what tmpfs(5) and the mount itself understand from what would make another mount of it, such as bind.
func tmpfsOption(o string) bool {
	name, _, _ := strings.Cut(o, "=")
	return slices.Contains([]string{"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "mpol", "noswap", "inode32", "inode64",
		"exec", "noexec", "suid", "nosuid", "dev", "nodev", "rw", "ro", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
		"strictatime", "nostrictatime", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}, name)
}

// lastWins drops options that a later one overrides, so that noexec,exec becomes exec.
func lastWins(in []string) []string {
	opposite := map[string]string{"exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev", "rw": "ro", "ro": "rw"}
	var out []string
	for _, o := range in {
		if n, ok := opposite[o]; ok {
			out = slices.DeleteFunc(out, func(x string) bool { return x == n || x == o })
		}
		out = append(out, o)
	}
	return out
}

// maskedPaths is the union of what Docker, containerd and Podman hide.
func maskedPaths(ncpu int) []string {
	out := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware",
		"/sys/fs/selinux",
	}
	for i := range ncpu {
		out = append(out, path.Join("/sys/devices/system/cpu/cpu"+strconv.Itoa(i), "thermal_throttle"))
	}
	return out
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
