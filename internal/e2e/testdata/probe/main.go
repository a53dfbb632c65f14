// Command probe looks and tries from inside a container: what its first argument says.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/testkit/listing"
)

func main() {
	if err := act(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func act(args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do")
	}
	switch args[0] {
	case "udp-echo":
		return echo(args[1])
	case "list":
		tree, err := listing.Of(args[1])
		if err != nil {
			return err
		}
		return tree.Print(os.Stdout)
	case "try":
		return try()
	case "writable":
		return writable("/proc", "/sys")
	}
	return fmt.Errorf("do not know how to %s", args[0])
}

// echo answers every datagram with "echo " and the same.
func echo(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		c.WriteTo(append([]byte("echo "), buf[:n]...), from)
	}
}

// attempt is something a container should mostly not get.
type attempt struct {
	name string
	do   func() error
}

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func write(name string) func() error {
	return func() error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
			return nil
		}
		return errors.New("refused")
	}
}

func read(name string) func() error {
	return func() error {
		// What this machine does not have is as good as what is masked.
		if b, err := os.ReadFile(name); err != nil || len(b) == 0 {
			return errors.New("nothing there")
		}
		return nil
	}
}

func list(name string) func() error {
	return func() error {
		if l, err := os.ReadDir(name); err != nil || len(l) == 0 {
			return errors.New("nothing there")
		}
		return nil
	}
}

var attempts = []attempt{
	{"mount tmpfs", func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") }},
	{"umount /proc/kcore", func() error { return unix.Unmount("/proc/kcore", unix.MNT_DETACH) }},
	{"remount /proc/sys", func() error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
	{"unshare user", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"unshare mount", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{"setns pid 1", func() error {
		f, err := os.Open("/proc/1/ns/net")
		if err != nil {
			return err
		}
		return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	}},
	{"pivot_root", func() error { return unix.PivotRoot("/", "/") }},
	{"mknod null", func() error { return unix.Mknod("/tmp/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }},
	{"mknod disk", func() error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(253, 0))) }},
	{"open disk", func() error {
		f, err := os.Open("/tmp/disk")
		if err == nil {
			f.Close()
		}
		return err
	}},
	{"keyctl", func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err }},
	{"add_key", func() error { return call(unix.SYS_ADD_KEY) }},
	{"bpf", func() error { return call(unix.SYS_BPF) }},
	{"perf_event_open", func() error { return call(unix.SYS_PERF_EVENT_OPEN) }},
	{"userfaultfd", func() error { return call(unix.SYS_USERFAULTFD) }},
	{"io_uring_setup", func() error { return call(unix.SYS_IO_URING_SETUP) }},
	{"init_module", func() error { return call(unix.SYS_INIT_MODULE) }},
	{"kexec_load", func() error { return call(unix.SYS_KEXEC_LOAD) }},
	{"open_by_handle_at", func() error { return call(unix.SYS_OPEN_BY_HANDLE_AT) }},
	{"clone3", func() error { return call(unix.SYS_CLONE3) }},
	{"reboot", func() error { return call(unix.SYS_REBOOT) }},
	{"settimeofday", func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) }},
	{"sethostname", func() error { return unix.Sethostname([]byte("x")) }},
	{"swapon", func() error { return call(unix.SYS_SWAPON) }},
	{"acct", func() error { return unix.Acct("/tmp/acct") }},
	{"syslog", func() error { _, err := unix.Klogctl(10, nil); return err }},
	{"personality", func() error { return call(unix.SYS_PERSONALITY, 0x0040000) }},
	{"socket AF_VSOCK", func() error { _, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); return err }},
	{"socket AF_PACKET raw", func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }},
	{"write /proc/sys/kernel/domainname", write("/proc/sys/kernel/domainname")},
	{"write /proc/sysrq-trigger", write("/proc/sysrq-trigger")},
	{"write /sys/kernel/uevent_helper", write("/sys/kernel/uevent_helper")},
	{"write /proc/self/oom_score_adj", write("/proc/self/oom_score_adj")},
	{"write /dev/null", write("/dev/null")},
	{"read /proc/kcore", read("/proc/kcore")},
	{"read /proc/keys", read("/proc/keys")},
	{"read /proc/timer_list", read("/proc/timer_list")},
	{"read /proc/latency_stats", read("/proc/latency_stats")},
	{"list /proc/acpi", list("/proc/acpi")},
	{"list /proc/scsi", list("/proc/scsi")},
	{"list /sys/firmware", list("/sys/firmware")},
	{"write /sys/fs/cgroup", func() error {
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil { // v2
			return os.Mkdir("/sys/fs/cgroup/x", 0o755)
		}
		return os.Mkdir("/sys/fs/cgroup/pids/x", 0o755)
	}},
	{"open /dev/mem", read("/dev/mem")},
	{"chroot", func() error { return unix.Chroot("/") }},
}

// try makes every attempt and says how it went.
func try() error {
	for _, a := range attempts {
		err := a.do()
		var e syscall.Errno
		switch {
		case err == nil:
			fmt.Println(a.name + ": allowed")
		case errors.As(err, &e):
			fmt.Println(a.name + ": " + unix.ErrnoName(e))
		default:
			fmt.Println(a.name + ": " + err.Error())
		}
	}
	return nil
}
