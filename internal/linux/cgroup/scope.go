package cgroup

import (
	"os"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/linux/systemd"
)

// Scope names a unit of systemd's that holds a container; with User, of the caller's own instance. The zero Scope is none.
type Scope struct {
	Name string
	User bool
}

// dial finds systemd by the environment, as everybody who speaks to it does.
func (s Scope) dial() (*systemd.Conn, error) {
	return systemd.Dial(systemd.Addresses(s.User, os.Geteuid(), os.Getenv))
}

// StartScope has systemd make a unit around a process.
func StartScope(u *plan.Unit, pid int) error {
	conn, err := Scope{u.Name, u.User}.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Start(u, pid)
}

// Stop ends the unit, which kills what is in it. One that is gone is no error.
func (s Scope) Stop() error {
	if s.Name == "" {
		return nil
	}
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Stop(s.Name)
}

// Set changes properties, so that systemd does not write the old limits over new ones.
func (s Scope) Set(properties []plan.Property) error {
	if s.Name == "" || len(properties) == 0 {
		return nil
	}
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Set(s.Name, properties)
}

// Attach moves a process into the unit.
func (s Scope) Attach(pid int) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Attach(s.Name, pid)
}
