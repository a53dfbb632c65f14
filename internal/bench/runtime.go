package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/linux/seccomp"
)

// busybox is Debian's static one: every container runs it, so that what it costs falls on all alike.
const busybox = "/bin/busybox"

// cgroupTop is above all cgroups that the contenders make.
const cgroupTop = "/dhow-bench"

// runner is an OCI runtime.
type runner struct {
	name, path string
	spawn      spawn
	root       string
	bundle     string
}

func (r *runner) do(args ...string) (outcome, error) {
	return r.spawn(job{Args: append([]string{r.path, "--root", r.root}, args...)})
}

func (b *bench) runtimes() error {
	list, err := b.runners()
	if err != nil {
		return err
	}
	run := trial{name: "runtime-run", what: "OCI runtime: run true, default config, all namespaces, cgroups, seccomp", unit: "ms", n: 100,
		targets: []Target{{Peer: "crun", Ratio: 0.6}, {Peer: "runc", Ratio: 0.2}}}
	for _, r := range list {
		run.contenders = append(run.contenders, contender{r.name, func() (float64, error) {
			o, err := r.do("run", "--bundle", r.bundle, "bench-run")
			return milliseconds(o.Took), err
		}})
	}
	b.try(run)
	l := lives{b, list}
	for _, more := range []struct {
		name string
		try  func()
	}{{"runtime-loop", l.loop}, {"runtime-cycle", l.cycle}, {"runtime-calls", l.counts}, {"runtime-tasks", l.counts}, {"runtime-memory", l.leastMemory}} {
		if b.wanted(more.name) && !(more.name == "runtime-tasks" && b.wanted("runtime-calls")) { // one counts for both
			more.try()
		}
	}
	if !b.wanted("runtime-exec") {
		return nil
	}
	exe := trial{name: "runtime-exec", what: "OCI runtime: exec true in a running container", unit: "ms", n: 100,
		targets: []Target{{Peer: "crun", Ratio: 0.6}, {Peer: "runc", Ratio: 0.2}}}
	for _, r := range list {
		exe.contenders = append(exe.contenders, b.execIn(r))
	}
	b.try(exe)
	return nil
}

// execIn starts a container that sleeps, for the rest of the run, and measures exec in it.
func (b *bench) execIn(r *runner) contender {
	const id = "bench-exec"
	err := b.bundle(r, filepath.Join(b.dir, "exec-"+r.name), []string{"/bin/sleep", "3600"})
	if err == nil {
		start := []string{r.path, "--root", r.root, "run", "--detach", "--pid-file", filepath.Join(r.bundle, "pid"), "--bundle", r.bundle, id}
		_, err = r.spawn(job{Args: start, Quiet: true}) // a pipe would stay open as long as the container
	}
	if err == nil {
		b.onEnd(func() { r.do("delete", "--force", id) })
	}
	return contender{r.name, func() (float64, error) {
		if err != nil {
			return 0, err
		}
		o, err := r.do("exec", id, "/bin/true")
		return milliseconds(o.Took), err
	}}
}

// runners finds dhow's runtime and its peers.
func (b *bench) runners() ([]*runner, error) {
	list := []*runner{{name: "dhow", path: filepath.Join(b.Bin, "dhow-runtime"), spawn: locally}}
	if path, err := exec.LookPath("crun"); err != nil {
		b.absent("crun: not installed")
	} else {
		r := &runner{name: "crun", path: path, spawn: locally}
		if hybrid() {
			if r.spawn, err = b.helper(surroundings{Without: []string{unified}}, nil); err != nil {
				return nil, err
			}
		}
		list = append(list, r)
	}
	if path, err := exec.LookPath("runc"); err != nil {
		b.absent("runc: not installed")
	} else {
		list = append(list, &runner{name: "runc", path: path, spawn: locally})
	}
	b.onEnd(func() { os.RemoveAll(filepath.Join("/run", filepath.Base(b.dir))) })
	for _, r := range list {
		r.root = filepath.Join("/run", filepath.Base(b.dir), r.name) // where every runtime has it by default: a tmpfs
		if err := b.bundle(r, filepath.Join(b.dir, "run-"+r.name), []string{"/bin/true"}); err != nil {
			return nil, err
		}
		b.report.Programs = append(b.report.Programs, version(r.path, "--version"))
	}
	return list, nil
}

// bundle makes the bundle of r.
func (b *bench) bundle(r *runner, dir string, args []string) error {
	r.bundle = dir
	return b.bundleAt(dir, args)
}

// bundleAt makes a bundle: the same for everyone but for the cgroup's name.
func (b *bench) bundleAt(dir string, args []string) error {
	root := filepath.Join(dir, "rootfs")
	if err := rootfs(root); err != nil {
		return err
	}
	raw, err := json.Marshal(config(args, cgroupTop+"/"+filepath.Base(dir)))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}

// rootfs holds busybox and its names.
func rootfs(root string) error {
	for _, d := range []string{"bin", "proc", "dev", "sys", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("read %s (Debian package busybox-static): %w", busybox, err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		return err
	}
	for _, n := range applets() {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", n)); err != nil {
			return err
		}
	}
	return nil
}

func applets() []string { return []string{"true", "sleep", "sh", "find", "cat"} }

// config is what an engine asks of a runtime by default: Docker's capabilities, masks and namespaces, and dhow's seccomp profile,
// resolved, for all alike.
func config(args []string, cgroup string) *specs.Spec {
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
		"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	profile := seccomp.Default(caps)
	profile.Flags = nil // runc 1.1 knows no SECCOMP_FILTER_FLAG_SPEC_ALLOW
	shares, pids := uint64(1024), int64(4096)
	device := func(major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return &specs.Spec{
		Version: "1.0.2", Hostname: "bench",
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup, Seccomp: profile,
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, device(1, 3), device(1, 5), device(1, 7), device(1, 8), device(1, 9), device(5, 0)},
				CPU:     &specs.LinuxCPU{Shares: &shares}, Pids: &specs.LinuxPids{Limit: &pids},
			},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "cgroup"}},
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
				"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
