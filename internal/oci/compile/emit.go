package compile

import (
	"path"
	"strconv"
	"strings"

	u "github.com/dhow-containers/dhow/internal/linux/uapi"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// emitter knows the idioms: sequences of calls that belong together.
type emitter struct {
	prog.Builder
	root prog.Reg // the container's root folder
}

// openIn emits openat2(2) of a path under a handle, never leaving it.
func (e *emitter) openIn(note string, dir prog.Reg, path string, flags int64, text string) (prog.Reg, prog.At) {
	how := e.Bytes(prog.U64(uint64(flags), 0, inRoot), "{"+text+", "+inRootText+"}")
	return e.CallR(note, prog.SysOpenat2, prog.R(dir), e.Str(rel(path)), how, prog.Imm(24))
}

// writeFile emits open, write, close of a path below a handle (or an absolute path when dir is 0).
func (e *emitter) writeFile(note string, dir prog.Reg, path, value string, tolerate ...u.Errno) {
	done := e.Label()
	base, p := prog.Imm(u.AT_FDCWD), path
	if dir != 0 {
		base, p = prog.R(dir), rel(path)
	}
	fd, at := e.CallR(note, prog.SysOpenat, base, e.Str(p), prog.Imm(u.O_WRONLY|u.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
	if len(tolerate) > 0 {
		at.Else(done, tolerate...)
	}
	w := e.Call(note, prog.SysWrite, prog.R(fd), e.Bytes([]byte(value), strconv.Quote(value)), prog.Imm(int64(len(value))))
	if len(tolerate) > 0 {
		w.Tolerate(tolerate...)
	}
	e.Call("", prog.SysClose, prog.R(fd))
	e.Bind(done)
}

// ensure returns a handle to a path of the container, which is made where it is missing. A symbolic link in the image leads nowhere but
// inside the root, and one to nothing has that made which it names, as with runc.
func (e *emitter) ensure(dest string, dir bool) prog.Reg {
	return e.ensureThen(dest, dir, func(prog.Reg) {})
}

// ensureThen is ensure, and emits what is to be done with a path that was there.
func (e *emitter) ensureThen(dest string, dir bool, found func(prog.Reg)) prog.Reg {
	dest = path.Clean("/" + dest)
	out, at := e.openIn("", e.root, dest, pathFlags, pathText)
	if dest == "/" {
		found(out)
		return out
	}
	done, missing := e.Label(), e.Label()
	at.Else(missing, u.ENOENT)
	found(out)
	e.Jump(done)
	e.Bind(missing)
	kind := prog.Imm(0, "folder")
	if !dir {
		kind = prog.Imm(1, "file")
	}
	e.Emit(prog.Ins{Op: prog.Make, Args: [6]prog.Arg{prog.R(e.root), e.Str(dest[1:]), kind}, Out: out, Note: "make " + dest})
	e.Bind(done)
	return out
}

// fewEnough is how many of a kind leave their descriptors open until all are closed at once, which costs no calls.
const fewEnough = 100

// letGo closes a descriptor that nobody needs any more, one of so many of a kind, where there would be too many.
func letGo(c *compiler, of int, fd prog.Reg) {
	if of > fewEnough {
		c.Call("", prog.SysClose, prog.R(fd))
	}
}

func (e *emitter) move(fd, target prog.Reg) prog.At {
	return e.Call("", prog.SysMoveMount, prog.R(fd), e.Str(""), prog.R(target), e.Str(""),
		prog.Imm(u.MOVE_MOUNT_F_EMPTY_PATH|u.MOVE_MOUNT_T_EMPTY_PATH, "F_EMPTY_PATH|T_EMPTY_PATH"))
}

// attachAt attaches to a path of the host, as this mount namespace still sees it; only paths of ours come here.
func (e *emitter) attachAt(fd prog.Reg, p string) {
	e.Call("", prog.SysMoveMount, prog.R(fd), e.Str(""), prog.Imm(u.AT_FDCWD), e.Str(p), prog.Imm(u.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
}

// openTree clones a mount: of an absolute path, or with p empty of a handle.
func (e *emitter) openTree(note string, dir prog.Reg, p string, recursive bool) (prog.Reg, prog.At) {
	base := prog.Imm(u.AT_FDCWD)
	if dir != 0 {
		base = prog.R(dir)
	}
	flags, text := int64(u.OPEN_TREE_CLONE|u.OPEN_TREE_CLOEXEC), "CLONE|CLOEXEC"
	if recursive {
		flags, text = flags|u.AT_RECURSIVE, text+"|RECURSIVE"
	}
	if p == "" {
		flags, text = flags|u.AT_EMPTY_PATH, text+"|EMPTY_PATH"
	}
	return e.CallR(note, prog.SysOpenTree, base, e.Str(p), prog.Imm(flags, text))
}

func (e *emitter) setAttr(fd prog.Reg, recursive bool, set, clear, propagation uint64) {
	flags, text := int64(u.AT_EMPTY_PATH), "EMPTY_PATH"
	if recursive {
		flags, text = flags|u.AT_RECURSIVE, text+"|RECURSIVE"
	}
	var parts []string
	if set != 0 {
		parts = append(parts, "set "+attrText(set))
	}
	if clear != 0 {
		if clear&u.MOUNT_ATTR__ATIME == u.MOUNT_ATTR__ATIME {
			parts = append(parts, "clear ATIME|"+attrText(clear&^u.MOUNT_ATTR__ATIME))
		} else {
			parts = append(parts, "clear "+attrText(clear))
		}
	}
	if propagation != 0 {
		parts = append(parts, propagationText(propagation))
	}
	attr := e.Bytes(prog.U64(set, clear, propagation, 0), "{"+strings.Join(parts, ", ")+"}")
	e.Call("", prog.SysMountSetattr, prog.R(fd), e.Str(""), prog.Imm(flags, text), attr, prog.Imm(32))
}

func (e *emitter) fsopen(note, kind string) prog.Reg {
	r, _ := e.CallR(note, prog.SysFsopen, e.Str(kind), prog.Imm(u.FSOPEN_CLOEXEC, "CLOEXEC"))
	return r
}

func (e *emitter) fsconfig(fs prog.Reg, cmd int64, key, value string, fd prog.Reg) {
	switch cmd {
	case u.FSCONFIG_SET_FLAG:
		e.Call("", prog.SysFsconfig, prog.R(fs), prog.Imm(cmd, "SET_FLAG"), e.Str(key), prog.Imm(0), prog.Imm(0))
	case u.FSCONFIG_SET_FD:
		e.Call("", prog.SysFsconfig, prog.R(fs), prog.Imm(cmd, "SET_FD"), e.Str(key), prog.Imm(0), prog.R(fd))
	default:
		e.Call("", prog.SysFsconfig, prog.R(fs), prog.Imm(cmd, "SET_STRING"), e.Str(key), e.Str(value), prog.Imm(0))
	}
}

func (e *emitter) fsmount(note string, fs prog.Reg, attr uint64) prog.Reg {
	e.Call(note, prog.SysFsconfig, prog.R(fs), prog.Imm(u.FSCONFIG_CMD_CREATE, "CMD_CREATE"), prog.Imm(0), prog.Imm(0), prog.Imm(0))
	r, _ := e.CallR("", prog.SysFsmount, prog.R(fs), prog.Imm(u.FSMOUNT_CLOEXEC, "CLOEXEC"), prog.Imm(int64(attr), attrText(attr)))
	return r
}

// struct statx, the same on all architectures: its size and where some of it stands (statx(2)).
const (
	statxSize  = 256
	statxMode  = 28
	statxMajor = 128
	statxMinor = 132
)

// statx emits statx(2) of a path below a handle, or of the handle itself, links not followed.
func (e *emitter) statx(dir prog.Reg, p string, to prog.Arg) {
	const basic = 0x7ff
	flags, text := int64(u.AT_SYMLINK_NOFOLLOW), "NOFOLLOW"
	if p == "" {
		flags, text = u.AT_EMPTY_PATH, "EMPTY_PATH"
	}
	e.Call("", prog.SysStatx, prog.R(dir), e.Str(p), prog.Imm(flags, text), prog.Imm(basic, "BASIC_STATS"), to)
}

func quoted(s string) string { return strconv.Quote(s) }
