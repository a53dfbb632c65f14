// Package netlink owns the conversation with the kernel about links, addresses, routes, tracked flows and network namespaces.
//
// It promises that a namespace exists only as a file descriptor (nothing is bind-mounted), that every descriptor is
// close-on-exec, and that no operating system thread goes back to the Go scheduler in a foreign namespace. It must never
// decide a name, an address or a policy: callers bring them.
package netlink

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNetns is the network namespace of the calling thread; the process-wide path would name the main thread's.
const threadNetns = "/proc/thread-self/ns/net"

// NewNetns makes a network namespace, runs inside (when not nil) on a thread that is in it, and returns the namespace. The
// caller's Close drops the last reference, and with it every link inside, unless a process has joined it.
func NewNetns(inside func(ns *os.File) error) (*os.File, error) {
	var ns *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		f, err := os.Open(threadNetns)
		if err != nil {
			return fmt.Errorf("open new network namespace: %w", err)
		}
		if inside != nil {
			if err := inside(f); err != nil {
				f.Close()
				return err
			}
		}
		ns = f
		return nil
	})
	return ns, err
}

// Inside runs f on a thread that has joined ns. Sockets that f opens belong to ns wherever they are used later; goroutines
// that f starts do not run in ns.
func Inside(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join network namespace: %w", err)
		}
		return f()
	})
}

// OpenNetns returns the network namespace of a process.
func OpenNetns(pid int) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	return f, nil
}

// Inode identifies a namespace; equal numbers mean the same namespace.
func Inode(ns *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}

// onThread runs f on a locked thread and brings the thread back to the namespace it came from. A thread that cannot return
// stays locked, so the runtime ends it together with the goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNetns)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
