package runtime

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci"
)

// notifySocket is the variable that names a service manager's socket (sd_notify(3)).
const notifySocket = "NOTIFY_SOCKET"

// barrierWait bounds how long a service manager may take to handle what it was told.
const barrierWait = 30 * time.Second

// notifier receives what a container tells its service manager, and passes on that it is ready. A nil notifier does nothing.
type notifier struct {
	host string
	path string
	fd   int
}

// listenNotify binds the socket that the container finds at its NOTIFY_SOCKET, if its creator asked for one.
func listenNotify(c *oci.Container, host string) (*notifier, error) {
	dir := c.State.Notify
	if host == "" || dir == "" {
		return nil, nil
	}
	n := &notifier{host: host, path: filepath.Join(dir, "notify.sock")}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	n.fd = fd
	os.Remove(n.path) // of a start that was cut off
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: n.path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("notify socket %s: %w", n.path, err)
	}
	if err := os.Chmod(n.path, 0o777); err != nil { // the container's user writes to it
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *notifier) close() {
	if n != nil {
		unix.Close(n.fd)
		os.Remove(n.path)
	}
}

// forward waits until the container says READY or its process ends, and tells the host: ready, by which process, and once it has heard that.
func (n *notifier) forward(pid int) error {
	if n == nil {
		return nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended already
	}
	defer unix.Close(pidfd)
	buf := make([]byte, 4096)
	for {
		fds := []unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("notify socket: %w", err)
		}
		if fds[0].Revents == 0 {
			return nil
		}
		got, err := unix.Read(n.fd, buf)
		if err != nil {
			continue
		}
		for line := range bytes.SplitSeq(buf[:got], []byte{'\n'}) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return n.tell(string(line), pid)
			}
		}
	}
}

func (n *notifier) tell(ready string, pid int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: n.host}); err != nil {
		return fmt.Errorf("%s=%s: %w", notifySocket, n.host, err)
	}
	for _, line := range []string{ready, "MAINPID=" + strconv.Itoa(pid)} {
		if _, err := unix.Write(fd, []byte(line+"\n")); err != nil {
			return fmt.Errorf("%s=%s: %w", notifySocket, n.host, err)
		}
	}
	return barrier(fd)
}

// barrier waits until all before it was handled: the other side then closes the pipe's end that it gets (sd_notify_barrier(3)).
func barrier(fd int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(p[0])
	err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(p[1]), nil, 0)
	unix.Close(p[1])
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	until := time.Now().Add(barrierWait)
	for { // a manager that does not know the word never closes it: time passes, and that is all
		left := time.Until(until)
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(p[0]), Events: unix.POLLHUP}}, int(max(left, 0)/time.Millisecond)); err != unix.EINTR {
			return nil
		}
	}
}
