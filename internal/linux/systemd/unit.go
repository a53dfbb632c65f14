package systemd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

const (
	managerDest      = "org.freedesktop.systemd1"
	managerPath      = "/org/freedesktop/systemd1"
	managerInterface = "org.freedesktop.systemd1.Manager"

	unitExists = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"
)

func (c *Conn) manager(member, sig string, args func(*encoder)) (message, error) {
	var e encoder
	if args != nil {
		args(&e)
	}
	return c.call(&call{dest: managerDest, path: managerPath, iface: managerInterface, member: member, sig: sig, body: e.buf})
}

// Start makes the unit around a process and returns when that is in the unit's cgroup. A unit of the same name that failed and lingers
// is cleared away first.
func (c *Conn) Start(u *plan.Unit, pid int) error {
	properties := append(slices.Clone(u.Properties), plan.Property{Name: "PIDs", Type: "au", Value: []uint32{uint32(pid)}})
	err := c.start(u.Name, properties)
	if named(err, unitExists) {
		c.manager("ResetFailedUnit", "s", func(e *encoder) { e.str(u.Name) }) // its answer shows in the next
		err = c.start(u.Name, properties)
	}
	if old, ok := older(err, properties); ok {
		err = c.start(u.Name, old)
	}
	if named(err, unitExists) {
		return errdef.New(errdef.Conflict, "start unit %s: it exists already; choose another name in linux.cgroupsPath", u.Name)
	}
	if err != nil {
		return fmt.Errorf("start unit %s: %w", u.Name, err)
	}
	return nil
}

func (c *Conn) start(name string, properties []plan.Property) error {
	return c.job(func() (message, error) {
		var unknown bool
		r, err := c.manager("StartTransientUnit", "ssa(sv)a(sa(sv))", func(e *encoder) {
			e.str(name)
			e.str("replace")
			unknown = !e.properties(properties)
			e.array(8, func() {})
		})
		if unknown {
			err = errdef.New(errdef.InvalidArgument, "a property of a type that has no wire form")
		}
		return r, err
	})
}

// older returns the properties that systemd before version 244 knows too, where err says that one is unknown. The same limits are
// written to the cgroup's files anyway.
func older(err error, properties []plan.Property) ([]plan.Property, bool) {
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Text, "nknown property") && !strings.HasSuffix(e.Name, "PropertyReadOnly") &&
		!strings.HasSuffix(e.Name, "UnknownProperty") {
		return nil, false
	}
	young := func(p plan.Property) bool {
		return p.Name == "AllowedCPUs" || p.Name == "AllowedMemoryNodes" || p.Name == "CPUQuotaPeriodUSec"
	}
	if !slices.ContainsFunc(properties, young) {
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(properties), young), true
}

func named(err error, name string) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == name
}

// job makes a call that answers with a job, and waits until the job is done.
func (c *Conn) job(start func() (message, error)) error {
	c.signals = nil
	r, err := start()
	if err != nil {
		return err
	}
	job := r.body.str()
	if r.body.bad || job == "" {
		return errdef.New(errdef.DataLoss, "systemd answered without a job")
	}
	deadline := time.Now().Add(patience)
	for {
		for _, m := range c.signals {
			if done, err := ended(m, job); done {
				return err
			}
		}
		c.signals = nil
		if time.Now().After(deadline) {
			return errdef.New(errdef.Unavailable, "job %s not done after %v", job, patience)
		}
		m, err := c.receive()
		if err != nil {
			return err
		}
		if m.kind == signalKind {
			c.signals = append(c.signals, m)
		}
	}
}

// ended reads JobRemoved(u id, o job, s unit, s result).
func ended(m message, job string) (bool, error) {
	if m.member != "JobRemoved" || m.signature != "uoss" {
		return false, nil
	}
	d := m.body
	d.u32()
	path, _, result := d.str(), d.str(), d.str()
	switch {
	case d.bad || path != job:
		return false, nil
	case result == "done":
		return true, nil
	}
	return true, errdef.New(errdef.System, "its job ended with %q", result)
}

// Set changes properties of a unit that runs, until it ends.
func (c *Conn) Set(name string, properties []plan.Property) error {
	set := func(list []plan.Property) error {
		_, err := c.manager("SetUnitProperties", "sba(sv)", func(e *encoder) {
			e.str(name)
			e.u32(1) // runtime: not in /etc
			e.properties(list)
		})
		return err
	}
	err := set(properties)
	if old, ok := older(err, properties); ok {
		err = set(old)
	}
	if err != nil {
		return fmt.Errorf("set properties of unit %s: %w", name, err)
	}
	return nil
}

// Attach moves a process into the cgroup of a unit (systemd 238).
func (c *Conn) Attach(name string, pid int) error {
	_, err := c.manager("AttachProcessesToUnit", "ssau", func(e *encoder) {
		e.str(name)
		e.str("")
		e.value([]uint32{uint32(pid)})
	})
	if err != nil {
		return fmt.Errorf("attach process to unit %s: %w", name, err)
	}
	return nil
}

// Stop ends a unit and forgets its failure, if it failed. One that is gone is no error.
func (c *Conn) Stop(name string) error {
	err := c.job(func() (message, error) {
		return c.manager("StopUnit", "ss", func(e *encoder) {
			e.str(name)
			e.str("replace")
		})
	})
	if err != nil && !named(err, noSuchUnit) {
		return fmt.Errorf("stop unit %s: %w", name, err)
	}
	_, err = c.manager("ResetFailedUnit", "s", func(e *encoder) { e.str(name) })
	if err != nil && !named(err, noSuchUnit) {
		return fmt.Errorf("reset unit %s: %w", name, err)
	}
	return nil
}

// ActiveState tells whether a unit is "active", "failed", "inactive" and so on; one that systemd does not know is a named error.
func (c *Conn) ActiveState(name string) (string, error) {
	r, err := c.manager("GetUnit", "s", func(e *encoder) { e.str(name) })
	if err != nil {
		return "", err
	}
	var e encoder
	e.str("org.freedesktop.systemd1.Unit")
	e.str("ActiveState")
	r, err = c.call(&call{dest: managerDest, path: r.body.str(), iface: "org.freedesktop.DBus.Properties", member: "Get", sig: "ss", body: e.buf})
	if err != nil {
		return "", err
	}
	if r.body.sign() != "s" {
		return "", errdef.New(errdef.DataLoss, "unit %s: systemd answered with no state", name)
	}
	return r.body.str(), nil
}
