package runtime

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// firstPassed is the first descriptor after the standard three.
const firstPassed = 3

// activated returns the number of sockets that a service manager passed on to us (sd_listen_fds(3)).
func activated(env func(string) string, pid func() int) int {
	if p, err := strconv.Atoi(env("LISTEN_PID")); err != nil || p != pid() {
		return 0
	}
	n, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// inherited checks that our caller gave us the descriptors that the container shall have: what we opened ourselves closes on exec.
func inherited(listen, preserve int) error {
	if preserve < 0 {
		return errdef.New(errdef.InvalidArgument, "--preserve-fds %d: is negative", preserve)
	}
	for k := range listen + preserve {
		flags, err := unix.FcntlInt(uintptr(firstPassed+k), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC != 0 {
			err = unix.EBADF
		}
		switch {
		case err == nil:
		case k < listen:
			return errdef.New(errdef.InvalidArgument, "LISTEN_FDS=%d: descriptor %d: %w", listen, firstPassed+k, err)
		default:
			return errdef.New(errdef.InvalidArgument, "unable to stat preserved-fd %d (of %d): %w", k-listen, preserve, err)
		}
	}
	return nil
}

// sendFile passes a descriptor to whoever listens on a unix socket: one message with the descriptor as ancillary data.
func sendFile(socket string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	return unix.Sendmsg(fd, []byte(f.Name()), unix.UnixRights(int(f.Fd())), nil, 0)
}
