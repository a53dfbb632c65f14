// Package agent is the other side of a seccomp listener (seccomp_unotify(2)): it receives the calls that a filter with SCMP_ACT_NOTIFY
// holds back, and answers them.
//
// It promises one notification a Receive and one answer an Answer. It is for tests that play the agent of a container; it must
// never be part of the runtime, which only hands listeners on.
package agent

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call that waits for its answer: struct seccomp_notif.
type Call struct {
	ID    uint64
	Pid   uint32 // as our PID namespace numbers it
	flags uint32
	Nr    int32
	Arch  uint32 // AUDIT_ARCH
	IP    uint64
	Args  [6]uint64
}

// Answer is what becomes of a call: struct seccomp_notif_resp.
type Answer struct {
	ID    uint64
	Value int64
	Errno int32  // negative, or 0
	Flags uint32 // Continue
}

// Continue lets the kernel make the call after all.
const Continue = 1

const (
	ioctlReceive = 0xc0502100
	ioctlSend    = 0xc0182101
)

// Receive waits for a call. ENOENT tells that its process died meanwhile; the end of the last process with the filter is not told here but by
// poll(2) (POLLHUP).
func Receive(fd int) (Call, error) {
	var c Call
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&c)))
	if e != 0 {
		return c, e
	}
	return c, nil
}

// Send answers a call.
func Send(fd int, a Answer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&a)))
	if e != 0 {
		return e
	}
	return nil
}

// Serve answers every call by a function of its own until all processes with the filter are gone.
func Serve(fd int, answer func(Call) Answer) error {
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return err
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		c, err := Receive(fd)
		if err == unix.ENOENT || err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		a := answer(c)
		a.ID = c.ID
		if err := Send(fd, a); err != nil && err != unix.ENOENT {
			return err
		}
	}
}
