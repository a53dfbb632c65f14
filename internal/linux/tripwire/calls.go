package tripwire

import (
	"maps"

	"golang.org/x/sys/unix"
)

// kinds are the calls that change what a disk holds; openat counts when it may make or cut a file.
var kinds = func() map[int32]kind {
	all := map[int32]kind{
		unix.SYS_WRITE: {name: "write", fd: true}, unix.SYS_PWRITE64: {name: "pwrite64", fd: true}, unix.SYS_WRITEV: {name: "writev", fd: true},
		unix.SYS_PWRITEV: {name: "pwritev", fd: true}, unix.SYS_PWRITEV2: {name: "pwritev2", fd: true}, unix.SYS_SENDFILE: {name: "sendfile", fd: true},
		unix.SYS_FSYNC: {name: "fsync", fd: true}, unix.SYS_FDATASYNC: {name: "fdatasync", fd: true}, unix.SYS_SYNCFS: {name: "syncfs", fd: true},
		unix.SYS_SYNC_FILE_RANGE: {name: "sync_file_range", fd: true}, unix.SYS_FTRUNCATE: {name: "ftruncate", fd: true},
		unix.SYS_FALLOCATE: {name: "fallocate", fd: true}, unix.SYS_FCHMOD: {name: "fchmod", fd: true}, unix.SYS_FCHOWN: {name: "fchown", fd: true},
		unix.SYS_FSETXATTR: {name: "fsetxattr", fd: true}, unix.SYS_OPENAT: {name: "openat"}, unix.SYS_UNLINKAT: {name: "unlinkat"},
		unix.SYS_MKDIRAT: {name: "mkdirat"}, unix.SYS_MKNODAT: {name: "mknodat"}, unix.SYS_FCHMODAT: {name: "fchmodat"},
		unix.SYS_FCHMODAT2: {name: "fchmodat2"}, unix.SYS_FCHOWNAT: {name: "fchownat"}, unix.SYS_UTIMENSAT: {name: "utimensat"},
		unix.SYS_RENAMEAT2: {name: "renameat2", at: 2}, unix.SYS_LINKAT: {name: "linkat", at: 2}, unix.SYS_SYMLINKAT: {name: "symlinkat", at: 1},
		unix.SYS_RENAMEAT: {name: "renameat", at: 2}, unix.SYS_SETXATTR: {name: "setxattr", at: -1}, unix.SYS_LSETXATTR: {name: "lsetxattr", at: -1},
		unix.SYS_TRUNCATE: {name: "truncate", at: -1},
	}
	maps.Copy(all, older)
	return all
}()
