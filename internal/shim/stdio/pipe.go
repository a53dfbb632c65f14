package stdio

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// OutPipe makes a pipe for a process's output: ours is non-blocking, theirs is not.
func OutPipe() (ours, theirs *os.File, err error) { return pipe(0) }

// InPipe makes a pipe for a process's input.
func InPipe() (ours, theirs *os.File, err error) { return pipe(1) }

// pipe makes a pipe of which end mine is ours. O_NONBLOCK belongs to the open file, so that os.Pipe, which sets it on both
// ends, would hand the container a non-blocking descriptor.
func pipe(mine int) (ours, theirs *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(p[mine], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[mine]), "|ours"), os.NewFile(uintptr(p[1-mine]), "|theirs"), nil
}

// Master returns the master side of a terminal as a file under the runtime's poller. f is closed.
func Master(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// Peer opens the slave of a terminal.
func Peer(master *os.File) (slave *os.File, err error) {
	rc, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := rc.Control(func(fd uintptr) { slave, err = tty.Peer(int(fd)) }); cerr != nil {
		return nil, cerr
	}
	return slave, err
}

// Resize sets a terminal's size; zero leaves it.
func Resize(master *os.File, height, width uint16) error {
	if height == 0 && width == 0 {
		return nil
	}
	rc, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}); err != nil {
		return err
	}
	return os.NewSyscallError("ioctl TIOCSWINSZ", serr)
}

// Input is a process's standard input. A nil Input swallows what is written.
type Input struct {
	f   *os.File
	tty bool
}

// NewInput returns the input behind f: the writing end of a pipe, or a terminal's master (which the Pump closes).
func NewInput(f *os.File, tty bool) *Input { return &Input{f: f, tty: tty} }

// Write gives p to the process, waiting while it does not read. os.File puts concurrent writes one after the other.
func (i *Input) Write(p []byte) (int, error) {
	if i == nil {
		return len(p), nil
	}
	return i.f.Write(p)
}

// Close ends the input; writers that wait return with an error. A terminal has no end of input but its own ^D.
func (i *Input) Close() {
	if i != nil && !i.tty {
		i.f.Close()
	}
}
