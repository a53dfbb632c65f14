// Package tripwire owns the watching of a program's system calls, one at a time and before they happen, through a seccomp listener.
//
// It promises that watched calls of all threads and descendants pass in one order, each after the watcher has returned, so that a
// program can be killed, or its disk taken away, at exactly the Nth of them. It must never change a call, and is meant for tests.
package tripwire

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Call is a system call that waits for the watcher.
type Call struct {
	PID  int // the thread
	NR   int32
	Args [6]uint64
}

// kind says where a call's path is.
type kind struct {
	name string
	fd   bool // the first argument is the file's descriptor
	at   int  // or: the index of a folder's descriptor, behind which the path stands; -1: the first argument is the path
}

// Name is the call's name.
func (c Call) Name() string { return kinds[c.NR].name }

// Path is the file that the call is about, as its process sees it; empty when that cannot be told. Of two paths it is the second one.
func (c Call) Path() string {
	k := kinds[c.NR]
	switch {
	case k.fd:
		return c.link(fmt.Sprintf("fd/%d", int32(c.Args[0])))
	case k.at < 0:
		return c.absolute("cwd", c.text(c.Args[0]))
	}
	dir := "cwd"
	if fd := int32(c.Args[k.at]); fd != unix.AT_FDCWD {
		dir = fmt.Sprintf("fd/%d", fd)
	}
	return c.absolute(dir, c.text(c.Args[k.at+1]))
}

func (c Call) link(what string) string {
	p, _ := os.Readlink(fmt.Sprintf("/proc/%d/%s", c.PID, what))
	return p
}

func (c Call) absolute(dir, p string) string {
	if p == "" || strings.HasPrefix(p, "/") {
		return p
	}
	return filepath.Join(c.link(dir), p)
}

// text reads a path out of the process.
func (c Call) text(at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.PID))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, unix.PathMax)
	n, _ := f.ReadAt(b, int64(at)) // short at the end of a mapping
	s, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(s)
}
