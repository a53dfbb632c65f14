// Package device owns the host's devices that a container is made with: network devices that move into it, loop devices below its layers.
//
// It promises that a network device whose container was not made comes back, and that a loop device frees itself with its last user. It must
// never decide which devices a container gets.
package device

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/netdev"
)

// Networks are the network devices that a container being made was given.
type Networks struct{ moved []*netdev.Moved }

// Move moves one into the container's network namespace, under another name unless as is empty.
func (n *Networks) Move(name, as string, ns int) error {
	m, err := netdev.Move(name, as, ns)
	if err == nil {
		n.moved = append(n.moved, m)
	}
	return err
}

// Back returns them to where they were, the last one first.
func (n *Networks) Back() error {
	var errs []error
	for i := len(n.moved) - 1; i >= 0; i-- {
		if err := n.moved[i].Back(); err != nil {
			errs = append(errs, fmt.Errorf("take a network device back: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Stay leaves them to the container: when its network namespace ends the kernel returns physical devices to the host and removes others.
func (n *Networks) Stay() {
	for _, m := range n.moved {
		m.Close()
	}
}

// Loop attaches a loop device to a file, or finds the one that other containers use. The descriptor holds it, and so does a mount.
func Loop(file string) (fd int, path string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return -1, "", err
	}
	defer f.Close()
	d, err := mount.Loop(f)
	if err != nil {
		return -1, "", err
	}
	defer d.Close()
	fd, err = unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return fd, d.Name(), err
}
