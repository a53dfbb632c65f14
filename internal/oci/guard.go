package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/selfexe"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// A process that enters a PID namespace has our program as /proc/PID/exe until it calls execve. Whoever in there has CAP_SYS_PTRACE in the
// host's user namespace could reach the file through it; so a program that is about to be seen by such a process runs from a
// read-only mount (package selfexe). The engine starts every shim that way; the runtime's command line asks the guards, since
// beginning anew costs a millisecond that nearly all containers can save. The same is true of the first process until start: startContainer
// hooks and execs into a container that is created and not started have it before their eyes.

const tracer = "CAP_SYS_PTRACE"

// GuardCreate returns when Create may be called from this process; it may begin the process anew. Call it before anything was made.
func GuardCreate(s *bundle.Spec) error {
	if !ownUsers(s) && (joinsPids(s) != "" || s.Process != nil && traces(s.Process.Capabilities)) {
		return selfexe.Reexec()
	}
	return nil
}

// GuardExec is GuardCreate for Exec.
func (c *Container) GuardExec() error {
	if _, err := os.Stat(filepath.Join(c.dir(), state.Watched)); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return selfexe.Reexec()
}

// watch marks containers into which somebody who may trace has come: by its own config, by an exec, or by joining a PID namespace.
func watch(root, id string, s *bundle.Spec, p *specs.Process) error {
	if p == nil || ownUsers(s) || !traces(p.Capabilities) {
		return nil
	}
	if err := mark(filepath.Join(root, id)); err != nil {
		return err
	}
	if path := joinsPids(s); path != "" {
		return markSharing(root, path)
	}
	return nil
}

// watchRestored marks every container that comes out of a checkpoint: what its processes may do is not config.json's to say alone, for an
// exec may have given them more. They are in its PID namespace, be it another container's.
func watchRestored(root, id string, s *bundle.Spec) error {
	if ownUsers(s) {
		return nil
	}
	if err := mark(filepath.Join(root, id)); err != nil {
		return err
	}
	if path := joinsPids(s); path != "" {
		return markSharing(root, path)
	}
	return nil
}

// watchExec is watch for an exec, which the kernel can tell of whom it has rights over.
func watchExec(c *Container, p *specs.Process) error {
	if p == nil || !traces(p.Capabilities) || differs("/proc/"+strconv.Itoa(c.State.Pid)+"/ns/user", "/proc/self/ns/user") {
		return nil
	}
	if err := unseen(c.dir(), &c.State); err != nil {
		return err
	}
	return mark(c.dir())
}

// unseen refuses to show a process that waits for start and runs from our program's own file to somebody who may trace it.
func unseen(dir string, s *state.State) error {
	if _, err := os.Stat(filepath.Join(dir, state.Parked)); err != nil {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/"+strconv.Itoa(s.Pid)+"/exe", &fs); err != nil || fs.Flags&unix.ST_RDONLY != 0 {
		return nil // it is gone, or nobody can write to what it runs from
	}
	return errdef.New(errdef.Conflict, "container %q was created without %s and is not started: a process with that capability would reach this program's file; start it first", s.ID, tracer)
}

// traces tells whether a process may trace others. Without a list it keeps the rights that the runtime has.
func traces(c *specs.LinuxCapabilities) bool {
	return c != nil && slices.Contains(slices.Concat(c.Bounding, c.Permitted, c.Effective, c.Inheritable, c.Ambient), tracer)
}

func mark(dir string) error {
	return os.WriteFile(filepath.Join(dir, state.Watched), nil, 0o600)
}

// markSharing marks every container of root that lives in the PID namespace at path.
func markSharing(root, path string) error {
	var ns unix.Stat_t
	if err := unix.Stat(path, &ns); err != nil {
		return nil // the Program will say so
	}
	es, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range es {
		s, err := state.Load(root, e.Name())
		if err != nil || s.Pid == 0 {
			continue
		}
		var theirs unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(s.Pid)+"/ns/pid", &theirs) == nil && theirs.Ino == ns.Ino {
			if err := unseen(filepath.Join(root, e.Name()), s); err != nil {
				return err
			}
			if err := mark(filepath.Join(root, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// joinsPids returns the path of the PID namespace that the config joins.
func joinsPids(s *bundle.Spec) string {
	if s.Linux == nil {
		return ""
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path
		}
	}
	return ""
}

// ownUsers tells whether capabilities inside are worth nothing against a process of the host's (user_namespaces(7)). To join the user
// namespace that we are in ourselves is to have none.
func ownUsers(s *bundle.Spec) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.UserNamespace && (n.Path == "" || differs(n.Path, "/proc/self/ns/user"))
	})
}

// differs tells whether two files are there and not the same.
func differs(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && (x.Ino != y.Ino || x.Dev != y.Dev)
}
