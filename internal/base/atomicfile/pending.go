package atomicfile

import (
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Pending is a file that gets its name when it is whole. Until then it has none, so that whatever ends the process leaves nothing; a file
// system that has no such files (O_TMPFILE) gives it a hidden name. It need not be durable.
type Pending struct {
	*os.File
	dir        *os.File
	base, temp string
	named      bool
}

// Begin makes a file of mode 0600 that Commit names base in the open folder dir, which stays the caller's.
func Begin(dir *os.File, base string) (*Pending, error) {
	p := &Pending{dir: dir, base: base, temp: fmt.Sprintf(".%.100s.%08x", base, rand.Uint32())}
	at := int(dir.Fd())
	fd, err := unix.Openat(at, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP || err == unix.EISDIR {
		fd, err = unix.Openat(at, p.temp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		p.named = err == nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "create " + base + " in", Path: dir.Name(), Err: err}
	}
	p.File = os.NewFile(uintptr(fd), base)
	return p, nil
}

// Commit gives the file its name, in the place of what has it.
func (p *Pending) Commit() error {
	at, err := int(p.dir.Fd()), error(nil)
	if !p.named {
		self := fmt.Sprintf("/proc/self/fd/%d", p.Fd())
		err = unix.Linkat(unix.AT_FDCWD, self, at, p.base, unix.AT_SYMLINK_FOLLOW)
		if err == unix.EEXIST { // links replace nothing
			err = unix.Linkat(unix.AT_FDCWD, self, at, p.temp, unix.AT_SYMLINK_FOLLOW)
			p.named = err == nil
		}
	}
	if p.named {
		if err = unix.Renameat(at, p.temp, at, p.base); err == nil {
			p.named = false
		}
	}
	if err != nil {
		return &os.PathError{Op: "name " + p.base + " in", Path: p.dir.Name(), Err: err}
	}
	return nil
}

// Close lets go of the file; one that was not committed is gone.
func (p *Pending) Close() error {
	if p.named {
		_ = unix.Unlinkat(int(p.dir.Fd()), p.temp, 0)
	}
	return p.File.Close()
}
