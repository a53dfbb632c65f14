package tty

import (
	"os"

	"golang.org/x/sys/unix"
)

// Peer opens the slave of a terminal by its master, whatever devpts it belongs to and whoever hides its path (TIOCGPTPEER, Linux 4.13).
func Peer(master int) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	return os.NewFile(fd, "terminal's slave"), nil
}
