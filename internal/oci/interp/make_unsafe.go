package interp

import (
	"syscall"
	"unsafe"

	"github.com/dhow-containers/dhow/internal/linux/uapi"
)

const (
	pathMax     = 4096
	nameMax     = 255
	mostLinks   = 40 // as the kernel's path_resolution(7)
	sysOpenat2  = 437
	folderMode  = 0o755
	fileMode    = 0o644
	strictFlags = uapi.RESOLVE_IN_ROOT | uapi.RESOLVE_NO_MAGICLINKS | uapi.RESOLVE_NO_SYMLINKS
)

// walk is what makePath writes into: the path so far, free of links; what is left to go, at the end of its buffer; a name, a link's text.
type walk struct {
	at         [pathMax]byte
	rest       [2 * pathMax]byte
	link       [pathMax]byte
	name       [nameMax + 1]byte
	how        [3]uint64 // struct open_how
	n, p, next int       // len of at; where rest begins, and where it goes on behind the component at p
}

// makePath follows a path below a folder, makes what is missing of it and returns a handle to it. A symbolic link to nothing leads to
// what it names, below the folder, and that is made. It reads every link itself, and lets the kernel follow none: what is swapped for a
// link behind our back is an error.
//
//go:norace
//go:nosplit
func makePath(m *machine, i int, o *op) uintptr {
	w, path := m.walk, m.data[o.args[1]]
	w.n, w.p = 0, len(w.rest)-(len(path)-1) // without the NUL
	if w.p < pathMax {
		die(m, i, uintptr(uapi.ENAMETOOLONG))
	}
	copy(w.rest[w.p:], path)
	for links := 0; step(w); w.p = w.next {
		size := w.next - w.p
		if size > nameMax || w.n+1+size >= pathMax {
			die(m, i, uintptr(uapi.ENAMETOOLONG))
		}
		copy(w.name[:], w.rest[w.p:w.next])
		w.name[size] = 0
		if size == 1 && w.name[0] == '.' {
			continue
		}
		if size == 2 && w.name[0] == '.' && w.name[1] == '.' {
			for w.n > 0 && w.at[w.n-1] != '/' {
				w.n--
			}
			w.n = max(0, w.n-1)
			continue
		}
		parent := below(m, i, o)
		n, _, e := syscall.RawSyscall6(syscall.SYS_READLINKAT, parent, uintptr(unsafe.Pointer(&w.name)), uintptr(unsafe.Pointer(&w.link)), pathMax, 0, 0)
		if e == 0 {
			links++
			if links > mostLinks {
				die(m, i, uintptr(uapi.ELOOP))
			}
			if int(n) >= pathMax || int(n) > w.next {
				die(m, i, uintptr(uapi.ENAMETOOLONG))
			}
			if w.link[0] == '/' {
				w.n = 0
			}
			w.next -= int(n) // the text comes before what is left
			copy(w.rest[w.next:], w.link[:n])
			syscall.RawSyscall(syscall.SYS_CLOSE, parent, 0, 0)
			continue
		}
		if e == syscall.ENOENT {
			e = makeName(w, parent, o.args[2] == 1)
		}
		if e != 0 && e != syscall.EINVAL && e != syscall.EEXIST { // EINVAL: no link
			die(m, i, uintptr(e))
		}
		syscall.RawSyscall(syscall.SYS_CLOSE, parent, 0, 0)
		w.at[w.n] = '/'
		copy(w.at[w.n+1:], w.name[:size])
		w.n += 1 + size
	}
	return below(m, i, o)
}

// step finds the next component of what is left, and tells whether there is one.
//
//go:norace
//go:nosplit
func step(w *walk) bool {
	for w.p < len(w.rest) && w.rest[w.p] == '/' {
		w.p++
	}
	w.next = w.p
	for w.next < len(w.rest) && w.rest[w.next] != '/' {
		w.next++
	}
	return w.p < w.next
}

// makeName makes the name in a folder: as a folder, or as a file where it is the last and that is wanted.
//
//go:norace
//go:nosplit
func makeName(w *walk, parent uintptr, file bool) syscall.Errno {
	for k := w.next; k < len(w.rest); k++ {
		file = file && w.rest[k] == '/'
	}
	if file {
		_, _, e := syscall.RawSyscall6(syscall.SYS_MKNODAT, parent, uintptr(unsafe.Pointer(&w.name)), uapi.S_IFREG|fileMode, 0, 0, 0)
		return e
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_MKDIRAT, parent, uintptr(unsafe.Pointer(&w.name)), folderMode)
	return e
}

// below returns a handle to the path so far.
//
//go:norace
//go:nosplit
func below(m *machine, i int, o *op) uintptr {
	w := m.walk
	w.at[w.n] = 0
	at := &w.at
	if w.n == 0 {
		w.at[0], w.at[1] = '/', 0
	}
	w.how = [3]uint64{uapi.O_PATH | uapi.O_CLOEXEC, 0, strictFlags}
	fd, _, e := syscall.RawSyscall6(sysOpenat2, m.regs[o.args[0]], uintptr(unsafe.Pointer(at)), uintptr(unsafe.Pointer(&w.how)), unsafe.Sizeof(w.how), 0, 0)
	if e != 0 {
		die(m, i, uintptr(e))
	}
	return fd
}
