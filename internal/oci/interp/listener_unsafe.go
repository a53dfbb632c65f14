package interp

import (
	"syscall"
	"unsafe"
)

// listener takes the seccomp listener out of the child and hands it on. The child cannot tell when it has it: from the instant that its
// filter counts, any call of its may wait for whoever holds the listener. So it told the number beforehand (the lowest that is free is what
// the kernel takes), and we look until it is there, or until the child says why not.
//
// A Park without a report follows: without it the child might execute, and so close its listener, before we looked.
func (r *Running) listener(number int) error {
	index := r.listen
	r.listen = 0
	o := &r.m.ops[index]
	if r.env.Listener == nil {
		return &StepError{Index: index, Errno: syscall.ENOSYS}
	}
	pidfd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(r.Pid), 0, 0)
	if errno != 0 {
		return &StepError{Index: index, Errno: errno}
	}
	defer syscall.Close(int(pidfd))
	for pause := 20; ; pause = min(2*pause, 1000) {
		fd, _, errno := syscall.Syscall(sysPidfdGetfd, pidfd, uintptr(number), 0)
		if errno == syscall.EBADF {
			if readable(r.line, pause) {
				return nil // it failed, as follow will read
			}
			continue
		}
		if errno != 0 {
			return &StepError{Index: index, Errno: errno}
		}
		err := r.env.Listener(int(r.m.regs[o.args[1]]), int(fd), r.Pid)
		syscall.Close(int(fd))
		if err != nil {
			return &StepError{Index: index, Err: err}
		}
		r.parked = true
		return nil
	}
}

// readable waits at most so many microseconds for something to read, or for the other end to be closed.
func readable(fd, micros int) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: 1} // POLLIN
	limit := syscall.NsecToTimespec(int64(micros) * 1000)
	n, _, _ := syscall.Syscall6(sysPpoll, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return int(n) == 1
}

const (
	sysPidfdOpen  = 434
	sysPidfdGetfd = 438
	sysPpoll      = syscall.SYS_PPOLL
)
