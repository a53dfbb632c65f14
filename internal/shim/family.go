package shim

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/shim/wire"
)

// family waits for the processes that are children of the shim: those it knows (init and execs, each by its pidfd) and
// orphans of the container that the kernel handed to it. While the runtime is at work (begin, end) it waits for none but the known:
// the runtime has children of its own in between, and waits for them itself.
type family struct {
	mu   sync.Mutex
	busy int
	kids map[int]*child
}

// child is a process that the shim waits for.
type child struct {
	pid   int
	pidfd *os.File
	exit  wire.Exit     // valid once ended is closed
	ended chan struct{} // closed when it has been reaped
}

func newFamily() *family { return &family{kids: map[int]*child{}} }

func (f *family) begin() {
	f.mu.Lock()
	f.busy++
	f.mu.Unlock()
}

func (f *family) end() {
	f.mu.Lock()
	f.busy--
	f.mu.Unlock()
	f.orphans()
}

// adopt makes pid, a child that nobody has waited for, a known one; between begin and end. One goroutine waits for its end.
func (f *family) adopt(pid int) *child {
	c := &child{pid: pid, ended: make(chan struct{})}
	f.mu.Lock()
	f.kids[pid] = c
	f.mu.Unlock()
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == nil {
		c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	go f.await(c)
	return c
}

func (f *family) await(c *child) {
	if c.pidfd != nil {
		if rc, err := c.pidfd.SyscallConn(); err == nil {
			// The callback is tried once before and again whenever the pidfd becomes readable.
			if rc.Read(func(uintptr) bool { return f.collect(c, unix.WNOHANG) }) == nil {
				return
			}
		}
	}
	f.waitBlocking(c) // Linux before 5.10, or no descriptor left: costs a thread
}

// collect reaps c if it has ended.
func (f *family) collect(c *child, flags int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kids[c.pid] != c {
		return true
	}
	var ws unix.WaitStatus
	pid, err := unix.Wait4(c.pid, &ws, flags, nil)
	if pid != c.pid && err != unix.ECHILD {
		return false
	}
	f.deliver(c, ws, err)
	return true
}

func (f *family) waitBlocking(c *child) {
	for {
		// Without reaping, so that the lock need not be held meanwhile.
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if f.collect(c, unix.WNOHANG) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// orphans reaps what has ended and is not known. A known child that it meets is delivered, not lost.
func (f *family) orphans() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.busy == 0 {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
		if c := f.kids[pid]; c != nil {
			f.deliver(c, ws, nil)
		}
	}
}

// deliver records the end of a known child. The caller holds mu.
func (f *family) deliver(c *child, ws unix.WaitStatus, err error) {
	delete(f.kids, c.pid)
	c.exit = exitOf(ws)
	if err != nil { // somebody else waited for it: must not happen, but must not hang either
		c.exit = wire.Exit{Code: 255, Error: "its exit status was lost: " + err.Error()}
	}
	c.exit.At = time.Now().UTC()
	close(c.ended)
}

// exitOf translates a wait status as a shell does.
func exitOf(ws unix.WaitStatus) wire.Exit {
	if ws.Signaled() {
		return wire.Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return wire.Exit{Code: ws.ExitStatus()}
}

// signal sends a signal to a child, never to a process that took over its number.
func (f *family) signal(c *child, sig unix.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kids[c.pid] != c {
		return errdef.New(errdef.Conflict, "signal process %d: it has ended", c.pid)
	}
	// Not reaped: the number is still its own.
	if err := unix.Kill(c.pid, sig); err != nil {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// parseStartTime finds the 22nd field of a /proc/PID/stat line; the second, a name in parentheses, may hold anything.
func parseStartTime(b []byte) uint64 {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
