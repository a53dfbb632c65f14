package mount

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// RootOf makes a detached, read-only copy of the mount that is the root of a process's mount namespace, without what is mounted below
// it (a clone of the same file system: what the process changes shows). The process is given by its pidfd.
func RootOf(pidfd *os.File) (*os.File, error) {
	type result struct {
		m   *os.File
		err error
	}
	c := make(chan result)
	var work func()
	work = func() { // sends exactly once
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and leaves that namespace so
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread can't end, and it is the one that /proc/self shows: hold it while another does the work.
			done := make(chan struct{})
			go func() { work(); close(done) }()
			<-done
			runtime.UnlockOSThread()
			return
		}
		m, err := rootOf(pidfd)
		c <- result{m, err}
	}
	go work()
	r := <-c
	return r.m, r.err
}

func rootOf(pidfd *os.File) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("unshare working folder: %w", err)
	}
	if err := unix.Setns(int(pidfd.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("enter mount namespace: %w", err)
	}
	m, err := Clone(nil, "/", false)
	if err != nil {
		return nil, err
	}
	err = SetAttr(m, false, Attr{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}
