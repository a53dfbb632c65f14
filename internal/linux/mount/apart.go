package mount

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart runs f on a thread of its own, whose working folder and root nobody shares, and which ends with f: f may change its mount
// namespace. What is meant to outlive f are descriptors.
func Apart(f func() error) error {
	c := make(chan error)
	var work func()
	work = func() { // sends exactly once
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread can't end, and it is the one that /proc/self shows: hold it while another does the work.
			done := make(chan struct{})
			go func() { work(); close(done) }()
			<-done
			runtime.UnlockOSThread()
			return
		}
		err := unix.Unshare(unix.CLONE_FS)
		if err != nil {
			err = fmt.Errorf("unshare working folder: %w", err)
		} else {
			err = f()
		}
		c <- err
	}
	go work()
	return <-c
}

// Private gives the calling thread a copy of the mount namespace that nothing leaves. It is for f of Apart.
func Private() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}
