// Package tty owns what dhow does to terminals: raw mode, window sizes, and fresh pseudo-terminal pairs.
//
// It promises that a restore function puts back exactly what RawMode found and may be called more than once, and that every
// file it opens is close-on-exec. It must never make a terminal the controlling one of the calling process.
package tty

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// RawMode switches the terminal fd to raw mode (cfmakeraw(3)): no echo, no line editing, no signals, no output processing.
// restore puts the earlier settings back; only its first call acts.
func RawMode(fd int) (restore func() error, err error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("terminal %d: tcgetattr: %w", fd, err)
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN] = 1
	raw.Cc[unix.VTIME] = 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("terminal %d: tcsetattr: %w", fd, err)
	}
	var once sync.Once
	return func() (err error) {
		once.Do(func() {
			if err = unix.IoctlSetTermios(fd, unix.TCSETS, old); err != nil {
				err = fmt.Errorf("terminal %d: restore: %w", fd, err)
			}
		})
		return err
	}, nil
}

// Size returns the window size of the terminal fd in character cells.
func Size(fd int) (rows, cols uint16, err error) {
	ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, fmt.Errorf("terminal %d: window size: %w", fd, err)
	}
	return ws.Row, ws.Col, nil
}

// SetSize sets the window size of the terminal fd (either end of a pair); its foreground process group gets SIGWINCH when
// the size changed.
func SetSize(fd int, rows, cols uint16) error {
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return fmt.Errorf("terminal %d: set window size: %w", fd, err)
	}
	return nil
}

// OpenPTY opens a pseudo-terminal pair of the caller's own devpts.
func OpenPTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("pty number: %w", err)
	}
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock pty: %w", err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	sfd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", name, err)
	}
	// Nonblocking makes the runtime poll the master, so that Close wakes a reader. The slave stays blocking: its flags are
	// shared with whatever process inherits it.
	if err = unix.SetNonblock(fd, true); err != nil {
		unix.Close(sfd)
		return nil, nil, fmt.Errorf("pty master: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), os.NewFile(uintptr(sfd), name), nil
}
