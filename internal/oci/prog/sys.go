package prog

// Sys is a system call by its place in the table.
type Sys uint8

// The system calls that programs use. None of them is missing on arm64, which has only the *at forms.
const (
	SysNone Sys = iota
	SysWrite
	SysRead
	SysClose
	SysOpenat
	SysOpenat2
	SysMkdirat
	SysMknodat
	SysSymlinkat
	SysFchownat
	SysFstat
	SysFstatfs
	SysFsetxattr
	SysFaccessat
	SysIoctl
	SysFcntl
	SysDup3
	SysSocket
	SysConnect
	SysSocketpair
	SysSendmsg
	SysMount
	SysUmount2
	SysPivotRoot
	SysChdir
	SysChroot
	SysFchdir
	SysGetcwd
	SysFsopen
	SysFsconfig
	SysFsmount
	SysFspick
	SysOpenTree
	SysMoveMount
	SysMountSetattr
	SysSetns
	SysUnshare
	SysSethostname
	SysSetdomainname
	SysSetsid
	SysPrctl
	SysCapset
	SysSetgroups
	SysSetresgid
	SysSetresuid
	SysPrlimit64
	SysUmask
	SysSeccomp
	SysKeyctl
	SysPersonality
	SysIoprioSet
	SysSchedSetattr
	SysSchedSetaffinity
	SysSetMempolicy
	SysStatx
	SysFchmodat
	SysFchmodat2
	SysUnlinkat
	SysBpf
	SysExecve
	SysMemfdCreate
	SysLseek
	SysPpoll
	SysWaitid
	SysPidfdSendSignal
	sysEnd
)

type sysInfo struct {
	name         string
	amd64, arm64 uint16
}

func (s Sys) info() sysInfo {
	table := [...]sysInfo{
		SysNone:             {"none", 0xffff, 0xffff},
		SysWrite:            {"write", 1, 64},
		SysRead:             {"read", 0, 63},
		SysClose:            {"close", 3, 57},
		SysOpenat:           {"openat", 257, 56},
		SysOpenat2:          {"openat2", 437, 437},
		SysMkdirat:          {"mkdirat", 258, 34},
		SysMknodat:          {"mknodat", 259, 33},
		SysSymlinkat:        {"symlinkat", 266, 36},
		SysFchownat:         {"fchownat", 260, 54},
		SysFstat:            {"fstat", 5, 80},
		SysFstatfs:          {"fstatfs", 138, 44},
		SysFaccessat:        {"faccessat", 269, 48},
		SysIoctl:            {"ioctl", 16, 29},
		SysFcntl:            {"fcntl", 72, 25},
		SysDup3:             {"dup3", 292, 24},
		SysFsetxattr:        {"fsetxattr", 190, 7},
		SysSocket:           {"socket", 41, 198},
		SysConnect:          {"connect", 42, 203},
		SysSocketpair:       {"socketpair", 53, 199},
		SysSendmsg:          {"sendmsg", 46, 211},
		SysMount:            {"mount", 165, 40},
		SysUmount2:          {"umount2", 166, 39},
		SysPivotRoot:        {"pivot_root", 155, 41},
		SysChdir:            {"chdir", 80, 49},
		SysChroot:           {"chroot", 161, 51},
		SysFchdir:           {"fchdir", 81, 50},
		SysGetcwd:           {"getcwd", 79, 17},
		SysFsopen:           {"fsopen", 430, 430},
		SysFsconfig:         {"fsconfig", 431, 431},
		SysFsmount:          {"fsmount", 432, 432},
		SysFspick:           {"fspick", 433, 433},
		SysOpenTree:         {"open_tree", 428, 428},
		SysMoveMount:        {"move_mount", 429, 429},
		SysMountSetattr:     {"mount_setattr", 442, 442},
		SysSetns:            {"setns", 308, 268},
		SysUnshare:          {"unshare", 272, 97},
		SysSethostname:      {"sethostname", 170, 161},
		SysSetdomainname:    {"setdomainname", 171, 162},
		SysSetsid:           {"setsid", 112, 157},
		SysPrctl:            {"prctl", 157, 167},
		SysCapset:           {"capset", 126, 91},
		SysSetgroups:        {"setgroups", 116, 159},
		SysSetresgid:        {"setresgid", 119, 149},
		SysSetresuid:        {"setresuid", 117, 147},
		SysPrlimit64:        {"prlimit64", 302, 261},
		SysUmask:            {"umask", 95, 166},
		SysSeccomp:          {"seccomp", 317, 277},
		SysKeyctl:           {"keyctl", 250, 219},
		SysPersonality:      {"personality", 135, 92},
		SysIoprioSet:        {"ioprio_set", 251, 30},
		SysSchedSetattr:     {"sched_setattr", 314, 274},
		SysSchedSetaffinity: {"sched_setaffinity", 203, 122},
		SysSetMempolicy:     {"set_mempolicy", 238, 237},
		SysStatx:            {"statx", 332, 291},
		SysFchmodat:         {"fchmodat", 268, 53},
		SysFchmodat2:        {"fchmodat2", 452, 452},
		SysUnlinkat:         {"unlinkat", 263, 35},
		SysBpf:              {"bpf", 321, 280},
		SysExecve:           {"execve", 59, 221},
		SysMemfdCreate:      {"memfd_create", 319, 279},
		SysLseek:            {"lseek", 8, 62},
		SysPpoll:            {"ppoll", 271, 73},
		SysWaitid:           {"waitid", 247, 95},
		SysPidfdSendSignal:  {"pidfd_send_signal", 424, 424},
	}
	if s >= sysEnd {
		return table[SysNone]
	}
	return table[s]
}

// Name returns the kernel's name of the call.
func (s Sys) Name() string { return s.info().name }

// Number returns the call's number on an architecture (Go's name for it: amd64 or arm64).
func (s Sys) Number(arch string) uintptr {
	if arch == "arm64" {
		return uintptr(s.info().arm64)
	}
	return uintptr(s.info().amd64)
}
