package tripwire

import "golang.org/x/sys/unix"

// older are calls that newer architectures never had.
var older = map[int32]kind{
	unix.SYS_CREAT: {name: "creat", at: -1}, unix.SYS_UNLINK: {name: "unlink", at: -1}, unix.SYS_RMDIR: {name: "rmdir", at: -1},
	unix.SYS_MKDIR: {name: "mkdir", at: -1}, unix.SYS_CHMOD: {name: "chmod", at: -1}, unix.SYS_LCHOWN: {name: "lchown", at: -1},
}
