// Package uapi owns the kernel's numbers that a pure package may need: flags, magic numbers, errnos.
//
// It promises the values of Linux on amd64 and arm64 (they agree on all that stands here). It must never import anything, so
// that the compiler of programs stays free of system calls; packages that act use golang.org/x/sys/unix.
package uapi

// clone(2) and setns(2) flags.
const (
	CLONE_NEWTIME       = 0x80
	CLONE_PARENT        = 0x8000
	CLONE_CLEAR_SIGHAND = 0x100000000 // clone3(2) only
	CLONE_NEWNS         = 0x20000
	CLONE_NEWCGROUP     = 0x2000000
	CLONE_NEWUTS        = 0x4000000
	CLONE_NEWIPC        = 0x8000000
	CLONE_NEWUSER       = 0x10000000
	CLONE_NEWPID        = 0x20000000
	CLONE_NEWNET        = 0x40000000
	SIGCHLD             = 17
)

// open(2) and *at(2) flags. O_DIRECTORY and O_NOFOLLOW differ between amd64 and arm64 and are not here.
const (
	AT_FDCWD            = -100
	AT_SYMLINK_NOFOLLOW = 0x100
	AT_EMPTY_PATH       = 0x1000
	AT_RECURSIVE        = 0x8000
	O_RDONLY            = 0
	O_WRONLY            = 1
	O_RDWR              = 2
	O_NOCTTY            = 0x100
	O_CLOEXEC           = 0x80000
	O_PATH              = 0x200000
	O_NONBLOCK          = 0x800
)

// openat2(2) resolve flags.
const (
	RESOLVE_NO_XDEV       = 0x1
	RESOLVE_NO_MAGICLINKS = 0x2
	RESOLVE_NO_SYMLINKS   = 0x4
	RESOLVE_IN_ROOT       = 0x10
)

// mount(2) flags.
const (
	MS_RDONLY      = 1
	MS_NOSUID      = 2
	MS_NODEV       = 4
	MS_NOEXEC      = 8
	MS_SYNCHRONOUS = 16
	MS_REMOUNT     = 32
	MS_MANDLOCK    = 64
	MS_DIRSYNC     = 128
	MS_NOSYMFOLLOW = 256
	MS_NOATIME     = 1 << 10
	MS_NODIRATIME  = 1 << 11
	MS_BIND        = 1 << 12
	MS_MOVE        = 1 << 13
	MS_REC         = 1 << 14
	MS_SILENT      = 1 << 15
	MS_UNBINDABLE  = 1 << 17
	MS_PRIVATE     = 1 << 18
	MS_SLAVE       = 1 << 19
	MS_SHARED      = 1 << 20
	MS_I_VERSION   = 1 << 23
	MS_STRICTATIME = 1 << 24
	MS_LAZYTIME    = 1 << 25
	MNT_DETACH     = 2
)

// The mount API of Linux 5.2: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2) (5.12).
const (
	FSOPEN_CLOEXEC           = 1
	FSMOUNT_CLOEXEC          = 1
	FSCONFIG_SET_FLAG        = 0
	FSCONFIG_SET_STRING      = 1
	FSCONFIG_SET_FD          = 5
	FSCONFIG_CMD_CREATE      = 6
	FSCONFIG_CMD_RECONFIGURE = 7
	FSPICK_CLOEXEC           = 1
	FSPICK_EMPTY_PATH        = 8
	OPEN_TREE_CLONE          = 1
	OPEN_TREE_CLOEXEC        = O_CLOEXEC
	MOVE_MOUNT_F_EMPTY_PATH  = 0x4
	MOVE_MOUNT_T_EMPTY_PATH  = 0x40
	MOUNT_ATTR_RDONLY        = 0x1
	MOUNT_ATTR_NOSUID        = 0x2
	MOUNT_ATTR_NODEV         = 0x4
	MOUNT_ATTR_NOEXEC        = 0x8
	MOUNT_ATTR__ATIME        = 0x70
	MOUNT_ATTR_RELATIME      = 0x0
	MOUNT_ATTR_NOATIME       = 0x10
	MOUNT_ATTR_STRICTATIME   = 0x20
	MOUNT_ATTR_NODIRATIME    = 0x80
	MOUNT_ATTR_IDMAP         = 0x100000
	MOUNT_ATTR_NOSYMFOLLOW   = 0x200000
)

// prctl(2), capset(2), seccomp(2), ioctl(2), fcntl(2), close_range(2).
const (
	PR_SET_DUMPABLE          = 4
	PR_SET_KEEPCAPS          = 8
	PR_CAPBSET_DROP          = 24
	PR_SET_NO_NEW_PRIVS      = 38
	PR_SET_THP_DISABLE       = 41
	PR_CAP_AMBIENT           = 47
	PR_CAP_AMBIENT_RAISE     = 2
	PR_CAP_AMBIENT_CLEAR_ALL = 4
	CAP_VERSION_3            = 0x20080522
	SECCOMP_SET_FILTER       = 1
	TIOCSCTTY                = 0x540e
	TIOCSWINSZ               = 0x5414
	TIOCSPTLCK               = 0x40045431
	TIOCGPTPEER              = 0x5441
	F_DUPFD_CLOEXEC          = 1030
	F_SETFD                  = 2
	SOL_SOCKET               = 1
	SCM_RIGHTS               = 1
	KEYCTL_JOIN_SESSION      = 1
	KEYCTL_SETPERM           = 5
	IOPRIO_WHO_PROCESS       = 1
	S_IFIFO                  = 0x1000
	S_IFCHR                  = 0x2000
	S_IFBLK                  = 0x6000
	S_IFREG                  = 0x8000
	PROC_SUPER_MAGIC         = 0x9fa0
)

// Errno is an error number of the kernel (errno(3)).
type Errno uint16

// The errnos that programs tolerate or report.
const (
	EPERM        Errno = 1
	ENOENT       Errno = 2
	EINTR        Errno = 4
	EIO          Errno = 5
	ENXIO        Errno = 6
	ENOEXEC      Errno = 8
	EAGAIN       Errno = 11
	ENOMEM       Errno = 12
	EACCES       Errno = 13
	EBUSY        Errno = 16
	EEXIST       Errno = 17
	ENODEV       Errno = 19
	ENOTDIR      Errno = 20
	EISDIR       Errno = 21
	EINVAL       Errno = 22
	ENOTTY       Errno = 25
	EROFS        Errno = 30
	ENAMETOOLONG Errno = 36
	ENOSYS       Errno = 38
	ELOOP        Errno = 40
)

// Name returns the symbol of the errnos above, or "" for another.
func (e Errno) Name() string {
	switch e {
	case EPERM:
		return "EPERM"
	case ENOENT:
		return "ENOENT"
	case EINTR:
		return "EINTR"
	case EIO:
		return "EIO"
	case ENXIO:
		return "ENXIO"
	case ENOEXEC:
		return "ENOEXEC"
	case EAGAIN:
		return "EAGAIN"
	case ENOMEM:
		return "ENOMEM"
	case EACCES:
		return "EACCES"
	case EBUSY:
		return "EBUSY"
	case EEXIST:
		return "EEXIST"
	case ENODEV:
		return "ENODEV"
	case ENOTDIR:
		return "ENOTDIR"
	case EISDIR:
		return "EISDIR"
	case EINVAL:
		return "EINVAL"
	case ENOTTY:
		return "ENOTTY"
	case EROFS:
		return "EROFS"
	case ENAMETOOLONG:
		return "ENAMETOOLONG"
	case ENOSYS:
		return "ENOSYS"
	case ELOOP:
		return "ELOOP"
	}
	return ""
}

// memfd_create(2) flags.
const (
	MFD_CLOEXEC       = 1
	MFD_ALLOW_SEALING = 2
)
