// Package mount owns the mount calls that work on file descriptors: fsopen, fsconfig, fsmount, open_tree, mount_setattr,
// move_mount, and umount2.
//
// It promises that every descriptor it returns is close-on-exec, that an interrupted call is retried, and that an error carries
// the kernel's own explanation (the messages of the file system context) beside the errno. A mount that it returns is detached:
// nobody else sees it, and it is gone when its last descriptor is closed. It must never look up a path it was not given.
package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Context is a file system being configured: fsopen(2). It is not safe for concurrent use.
type Context struct {
	fstype string
	f      *os.File
}

// Open begins the configuration of a new file system instance.
func Open(fstype string) (*Context, error) {
	fd, err := retryFd(func() (int, error) { return unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC) })
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	return &Context{fstype: fstype, f: os.NewFile(uintptr(fd), "fsopen:"+fstype)}, nil
}

// Close gives the context up; mounts made from it stay.
func (c *Context) Close() error { return c.f.Close() }

// Set sets a parameter to a string.
func (c *Context) Set(key, value string) error {
	return c.explain(retry(func() error { return unix.FsconfigSetString(c.fd(), key, value) }), key+"="+value)
}

// Flag sets a parameter without a value.
func (c *Context) Flag(key string) error {
	return c.explain(retry(func() error { return unix.FsconfigSetFlag(c.fd(), key) }), key)
}

// SetFile sets a parameter to an open file or detached mount (FSCONFIG_SET_FD).
func (c *Context) SetFile(key string, f *os.File) error {
	return c.explain(retry(func() error { return unix.FsconfigSetFd(c.fd(), key, int(f.Fd())) }), key+"=<"+f.Name()+">")
}

// Create makes the superblock with what was set.
func (c *Context) Create() error {
	return c.explain(retry(func() error { return unix.FsconfigCreate(c.fd()) }), "create")
}

// Mount makes a detached mount of the created superblock; attrs are MOUNT_ATTR_* bits.
func (c *Context) Mount(attrs int) (*os.File, error) {
	fd, err := retryFd(func() (int, error) { return unix.Fsmount(c.fd(), unix.FSMOUNT_CLOEXEC, attrs) })
	if err != nil {
		return nil, c.explain(err, "fsmount")
	}
	return os.NewFile(uintptr(fd), "fsmount:"+c.fstype), nil
}

func (c *Context) fd() int { return int(c.f.Fd()) }

// Error is a refused mount call: what was asked, what the kernel said in words, and the errno.
type Error struct {
	FSType string
	Step   string   // the parameter, or create, or fsmount
	Log    []string // the kernel's messages, errors and warnings, in order
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("mount %s: %s: %v", e.FSType, e.Step, e.Err)
	if len(e.Log) > 0 {
		s += " (" + strings.Join(e.Log, "; ") + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func (c *Context) explain(err error, step string) error {
	if err == nil {
		return nil
	}
	return &Error{FSType: c.fstype, Step: step, Log: c.messages(), Err: err}
}

// messages drains the context's log; each read returns one line "e text", ENODATA when there are no more.
func (c *Context) messages() []string {
	var log []string
	buf := make([]byte, 1024)
	for len(log) < 16 {
		n, err := unix.Read(c.fd(), buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EMSGSIZE) {
			continue
		}
		if err != nil || n < 2 {
			return log
		}
		log = append(log, strings.TrimSpace(string(buf[2:n])))
	}
	return log
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func retryFd(f func() (int, error)) (int, error) {
	for {
		fd, err := f()
		if err != unix.EINTR {
			return fd, err
		}
	}
}
