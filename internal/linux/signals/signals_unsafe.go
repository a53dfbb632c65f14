// Package signals owns the reception of signals by a program that has one thing to wait for: a handler of a few instructions writes each
// signal's number into a pipe, which is polled along with whatever else there is.
//
// os/signal needs two threads more and, for each signal, a handshake between them: a millisecond that a container would wait for. The
// package promises that no signal is lost between Pipe and the end of the process. It must never run Go code in a handler.
package signals

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipe is what the handler writes to; it has no other way to know. Pipe sets it once.
//
//lint:ignore U1000 the handler, in assembly, reads it
var pipe int32

// action is the kernel's struct sigaction of amd64 and arm64.
type action struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	saSiginfo, saRestorer, saOnstack, saRestart = 0x4, 0x04000000, 0x08000000, 0x10000000
	all                                         = ^uint64(0)
)

// Pipe makes the handler the handler of sigs, for the rest of this process's life, and returns the descriptor from which Read gets them.
// It may be called once. Programs executed later have the default handlers (execve(2)).
func Pipe(sigs ...syscall.Signal) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, fmt.Errorf("receive signals: %w", err)
	}
	pipe = int32(p[1])
	a := action{handler: handler(), flags: saSiginfo | saRestorer | saOnstack | saRestart, restorer: restorer(), mask: all}
	for _, s := range sigs {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0); e != 0 {
			return -1, fmt.Errorf("receive signal %d: %w", s, e)
		}
	}
	return p[0], nil
}

// Read returns the signals that have arrived; none when none has.
func Read(fd int) []syscall.Signal {
	var b [4 * 64]byte
	n, _ := unix.Read(fd, b[:])
	return Decode(b[:max(n, 0)])
}

// Decode tells what somebody read who waits in another way.
func Decode(b []byte) []syscall.Signal {
	var out []syscall.Signal
	for i := 0; i+4 <= len(b); i += 4 {
		out = append(out, syscall.Signal(b[i]))
	}
	return out
}

// handler and restorer return the addresses of the two routines in assembly.
func handler() uintptr
func restorer() uintptr
