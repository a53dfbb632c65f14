package tripwire

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notif is struct seccomp_notif, and answer struct seccomp_notif_resp (seccomp_unotify(2)).
type notif struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id     uint64
	val    int64
	errno  int32
	action uint32
}

// Arm makes start, which must start a program with a fork of the calling thread, start one whose calls that change a disk wait for see.
// The calling goroutine must not outlive that: its thread is watched, too, and ends with it. see is called by one goroutine; a call for
// which it is false is never made and never returns, so its process must have been killed. It ends with stop, which must be when nothing that was started makes calls any more: they would fail.
func Arm(start func() error, see func(Call) bool) (stop func(), err error) {
	runtime.LockOSThread() // never unlocked
	fd, err := install()
	if err != nil {
		return nil, fmt.Errorf("install a seccomp listener: %w", err)
	}
	l := os.NewFile(uintptr(fd), "seccomp listener")
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		defer l.Close()
		for !stopped.Load() && serve(fd, see) {
		}
	}()
	stop = func() { stopped.Store(true); <-done }
	if err := start(); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// lookAround is how often stop is looked for while no call comes: in milliseconds.
const lookAround = 20

// install puts the filter on this thread alone: those to come inherit it.
func install() (int, error) {
	const nr, arg2 = 0, 16 + 2*8 // offsets in struct seccomp_data
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	prog := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, nr)}
	jump := func(n uint32, yes, no uint8) {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: n})
	}
	notify := stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF)
	for n := range kinds {
		if n == unix.SYS_OPENAT {
			continue
		}
		jump(uint32(n), 0, 1)
		prog = append(prog, notify)
	}
	jump(unix.SYS_OPENAT, 0, 3)
	prog = append(prog, stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, arg2),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 0, Jf: 1, K: unix.O_CREAT | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY},
		notify, stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&f)))
	if e != 0 {
		return -1, e
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// serve lets one call pass; false when there will be none.
func serve(fd int, see func(Call) bool) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, lookAround); err == unix.EINTR || err == nil && n == 0 {
		return true
	} else if err != nil || p[0].Revents&unix.POLLIN == 0 {
		return false
	}
	var n notif
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); e != 0 {
		return e == unix.EINTR || e == unix.ENOENT // it was killed meanwhile
	}
	if !see(Call{PID: int(n.pid), NR: n.nr, Args: n.args}) {
		return true
	}
	a := answer{id: n.id, action: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
	return true
}
