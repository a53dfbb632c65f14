package jail

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// calls are the system calls of a process that writes files, and no others: it starts no program and no process, sees no socket, gets no
// descriptor but of files below its folders, and sends nobody a signal but itself.
var calls = [...]string{
	// What Go's runtime makes.
	"brk", "clock_gettime", "clock_nanosleep", "close", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "exit",
	"exit_group", "futex", "getpid", "getrandom", "gettid", "gettimeofday", "madvise", "munmap", "nanosleep", "read",
	"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "sigaltstack", "tgkill", "write",
	// Files.
	"copy_file_range", "fchmod", "fchmodat", "fchown", "fchownat", "fstat", "fstatfs", "ftruncate", "getdents64", "getxattr", "linkat", "listxattr",
	"lseek", "mkdirat", "newfstatat", "openat", "openat2", "pread64", "pwrite64", "readlinkat", "removexattr", "setxattr", "statx",
	"symlinkat", "unlinkat", "utimensat",
}

const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// profile is the filter's text. clone makes threads only, as Go's runtime does; ioctl shares blocks between files; no memory
// becomes code.
func profile() *specs.LinuxSeccomp {
	errno := uint(unix.EPERM)
	enosys := uint(unix.ENOSYS)
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}
	allow := func(name string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args})
	}
	for _, name := range calls {
		allow(name)
	}
	for _, cmd := range []uint64{unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC} { // no locks and leases, which others would wait for
		allow("fcntl", specs.LinuxSeccompArg{Index: 1, Value: cmd, Op: specs.OpEqualTo})
	}
	allow("clone", specs.LinuxSeccompArg{Index: 0, Value: ^uint64(unix.CLONE_SETTLS), ValueTwo: threadFlags, Op: specs.OpMaskedEqual})
	allow("ioctl", specs.LinuxSeccompArg{Index: 1, Value: unix.FICLONE, Op: specs.OpEqualTo})
	for _, kind := range []uint64{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO} {
		allow("mknodat", specs.LinuxSeccompArg{Index: 2, Value: unix.S_IFMT, ValueTwo: kind, Op: specs.OpMaskedEqual})
	}
	noCode := specs.LinuxSeccompArg{Index: 2, Value: unix.PROT_EXEC, Op: specs.OpMaskedEqual}
	allow("mprotect", noCode)
	allow("mmap", noCode, specs.LinuxSeccompArg{Index: 3, Value: unix.MAP_SHARED, Op: specs.OpMaskedEqual}) // shared memory has no limit
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	return p
}
