package logfile

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a follower looks where inotify is not to be had (its instances are limited per user).
const pollEvery = 100 * time.Millisecond

// watcher tells a follower that something in the log's folder changed.
type watcher struct {
	f      *os.File // inotify; nil: poll
	ended  <-chan struct{}
	closed chan struct{}
	once   sync.Once
	buf    [4096]byte
}

// newWatcher watches the folder of path: writes to files in it, and new names. One goroutine waits for ended; close ends it.
func newWatcher(path string, ended <-chan struct{}) (*watcher, error) {
	w := &watcher{ended: ended, closed: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		w.f = os.NewFile(uintptr(fd), "inotify")
		_, err = unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO)
	}
	if err == unix.ENOSPC || err == unix.EMFILE || err == unix.ENOSYS { // the limits of inotify
		if w.f != nil {
			w.f.Close()
			w.f = nil
		}
		err = nil
	}
	if err != nil {
		if w.f != nil {
			w.f.Close()
		}
		return nil, os.NewSyscallError("inotify", err)
	}
	if w.f != nil && ended != nil {
		go func() {
			select {
			case <-ended:
				w.f.SetReadDeadline(time.Unix(1, 0))
			case <-w.closed:
			}
		}()
	}
	return w, nil
}

// done reports whether the container has ended.
func (w *watcher) done() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// wait returns nil when something may have changed or the container has ended, io.EOF when until has passed.
func (w *watcher) wait(ctx context.Context, until time.Time) error {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, until, io.EOF)
		defer cancel()
	}
	if w.f == nil {
		t := time.NewTimer(pollEvery)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ended:
		case <-t.C:
		}
		return nil
	}
	w.f.SetReadDeadline(time.Time{}) // an earlier ctx may have left its mark
	if w.done() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := w.f.Read(w.buf[:])
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		return nil // the container has ended, or events
	}
	return err
}

func (w *watcher) close() {
	w.once.Do(func() {
		close(w.closed)
		if w.f != nil {
			w.f.Close()
		}
	})
}
