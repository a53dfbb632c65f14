package seccomp

import (
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Default returns dhow's default profile for a process whose bounding set has these capabilities ("CAP_SYS_ADMIN", ...).
//
// It allows what Docker's default profile allows in August 2026. What it does not name is refused with EPERM, calls newer than
// Linux 6.14 with ENOSYS (Compile adds that), and so is clone3, whose flags lie in memory where no filter sees them: a libc then uses
// clone. Refused whatever the capabilities: io_uring, userfaultfd, keyctl and its kin, kexec, swap, sockets of AF_ALG and AF_VSOCK.
// Refused without the capability that governs them: new namespaces, setns, mounts, bpf, perf_event_open and others, see granted.
//
// Known hole, Docker's as well: i386's socketcall takes the address family from memory, so that AF_ALG can be had through it;
// refusing it would leave 32-bit programs of many distributions without a network.
func Default(caps []string) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: errno(eperm),
		Architectures:   []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Flags:           []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow},
		Syscalls:        make([]specs.LinuxSyscall, 0, 32),
	}
	if runtime.GOARCH == "arm64" || runtime.GOARCH == "arm" {
		p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	allow := func(names []string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args})
	}
	allow(slices.Clone(always[:]))
	allow([]string{"socket"}, specs.LinuxSeccompArg{Index: 0, Value: afALG, Op: specs.OpLessThan})
	allow([]string{"socket"}, specs.LinuxSeccompArg{Index: 0, Value: afALG + 1, Op: specs.OpEqualTo})
	for family := uint64(afVSOCK + 1); family <= afLast; family++ {
		allow([]string{"socket"}, specs.LinuxSeccompArg{Index: 0, Value: family, Op: specs.OpEqualTo})
	}
	for _, persona := range [...]uint64{0, perLinux32, unameMin26, unameMin26 | perLinux32, 0xffffffff} {
		allow([]string{"personality"}, specs.LinuxSeccompArg{Index: 0, Value: persona, Op: specs.OpEqualTo})
	}
	for _, c := range caps {
		if names := granted(c); names != nil {
			allow(names)
		}
	}
	if !slices.Contains(caps, "CAP_SYS_ADMIN") {
		allow([]string{"clone"}, specs.LinuxSeccompArg{Index: 0, Value: cloneNamespaces, Op: specs.OpMaskedEqual})
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: errno(enosys),
		})
	}
	return p
}

func errno(n uint) *uint { return &n }

const (
	// Only 39, AF_NFC, lies between the two. Families above are listed one by one up to AF_MCTP: "greater than 40" would hold for
	// 1<<32|38 too, of which the kernel sees 38.
	afALG, afVSOCK, afLast = 38, 40, 45
	// Personalities that change nothing an attacker could use; 0xffffffff asks for the present one.
	perLinux32, unameMin26 = 0x8, 0x20000
	// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. CLONE_NEWTIME is not to be had by clone(2).
	cloneNamespaces = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
)

// granted are the calls a capability opens.
func granted(capability string) []string {
	switch capability {
	case "CAP_BPF":
		return []string{"bpf"}
	case "CAP_DAC_READ_SEARCH":
		return []string{"open_by_handle_at"}
	case "CAP_PERFMON":
		return []string{"perf_event_open"}
	case "CAP_SYSLOG":
		return []string{"syslog"}
	case "CAP_SYS_ADMIN":
		return []string{"bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
			"lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount", "open_tree",
			"perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2",
			"unshare"}
	case "CAP_SYS_BOOT":
		return []string{"reboot"}
	case "CAP_SYS_CHROOT":
		return []string{"chroot"}
	case "CAP_SYS_MODULE":
		return []string{"delete_module", "finit_module", "init_module"}
	case "CAP_SYS_NICE":
		return []string{"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"}
	case "CAP_SYS_PACCT":
		return []string{"acct"}
	case "CAP_SYS_PTRACE":
		return []string{"kcmp", "pidfd_getfd", "process_madvise"}
	case "CAP_SYS_RAWIO":
		return []string{"ioperm", "iopl"}
	case "CAP_SYS_TIME":
		return []string{"clock_settime", "clock_settime64", "settimeofday", "stime"}
	case "CAP_SYS_TTY_CONFIG":
		return []string{"vhangup"}
	}
	return nil
}

// always are the calls open to every container. The last lines exist on one architecture only.
var always = [...]string{
	"accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset", "chdir", "chmod",
	"chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
	"clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range",
	"creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
	"epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
	"faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
	"fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock",
	"fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
	"ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat",
	"get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid",
	"geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp",
	"getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
	"getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr",
	"getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
	"io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set",
	"ipc", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32",
	"lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "_llseek",
	"lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
	"memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
	"mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
	"mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
	"munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "_newselect", "open", "openat", "openat2",
	"pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll",
	"ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "pselect6",
	"pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recv",
	"recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename",
	"renameat", "renameat2", "restart_syscall", "riscv_hwprobe", "rmdir", "rseq", "rt_sigaction", "rt_sigpending",
	"rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
	"rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
	"sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
	"sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget",
	"semop", "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
	"set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
	"setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
	"setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid",
	"setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd",
	"signalfd4", "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64",
	"statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
	"timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
	"timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64",
	"times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uprobe",
	"uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid",
	"write", "writev",
	"process_vm_readv", "process_vm_writev", "ptrace",
	"arch_prctl", "modify_ldt",
	"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2",
}
