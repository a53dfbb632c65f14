package runtime

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/signals"
	"github.com/dhow-containers/dhow/internal/oci"
)

// supervisor stands between our caller and a process in the foreground.
type supervisor struct {
	arrived int // descriptor that the signals come from
	tty     *foreground
}

// begin receives what is passed on. Each signal costs a system call; the real-time ones and those that tell of our own faults are left out.
// One that adopts becomes the parent of orphans: only those of a container without a PID namespace of its own can come.
func (s *supervisor) begin(terminal, adopts bool) (err error) {
	list := []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGALRM, unix.SIGPWR}
	if adopts {
		list = append(list, unix.SIGCHLD)
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if terminal {
		s.tty = &foreground{}
	}
	s.arrived, err = signals.Pipe(list...)
	return err
}

func (s *supervisor) console() func(*os.File) error {
	if s.tty == nil {
		return nil
	}
	return s.tty.take
}

// wait passes signals on until the process ends, and returns its exit code (128+n after signal n).
func (s *supervisor) wait(p *oci.Process) int {
	if s.tty != nil {
		signal.Ignore(unix.SIGPIPE) // who reads what the terminal prints may be gone; without a terminal we print nothing
		s.tty.begin()
		defer s.tty.end()
	}
	fds := []unix.PollFd{{Fd: int32(p.Pidfd.Fd()), Events: unix.POLLIN}, {Fd: int32(s.arrived), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			break // reap waits as well
		}
		for _, sig := range signals.Read(s.arrived) {
			switch sig {
			case unix.SIGWINCH:
				if s.tty != nil {
					s.tty.resize()
				}
			case unix.SIGCHLD:
				if code, ended := reap(p.Pid, false); ended {
					return code
				}
			default:
				unix.PidfdSendSignal(int(fds[0].Fd), sig, nil, 0)
			}
		}
	}
	code, _ := reap(p.Pid, true)
	return code
}

// interrupted is the signal that ended the waiting for a process to begin.
type interrupted syscall.Signal

// Error tells which it was.
func (i interrupted) Error() string {
	return unix.SignalName(syscall.Signal(i)) + " came before the container was resumed; nothing was executed"
}

// awaits returns when something can be read from line, or with the signal that would end the process if there were one.
func (s *supervisor) awaits(line int) error {
	fds := []unix.PollFd{{Fd: int32(line), Events: unix.POLLIN}, {Fd: int32(s.arrived), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return err
		}
		for _, sig := range signals.Read(s.arrived) {
			switch sig {
			case unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT:
				return interrupted(sig)
			}
		}
	}
	return nil
}

// reap takes the statuses of dead children, without waiting where wait is false; it returns the process's exit code once that has ended.
func reap(pid int, wait bool) (code int, ended bool) {
	which, options := pid, 0
	if !wait {
		which, options = -1, unix.WNOHANG
	}
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(which, &ws, options, nil)
		switch {
		case err == syscall.EINTR || err == nil && got > 0 && got != pid:
		case err != nil || got == 0:
			return 0, wait
		case ws.Signaled():
			return 128 + int(ws.Signal()), true
		default:
			return ws.ExitStatus(), true
		}
	}
}
