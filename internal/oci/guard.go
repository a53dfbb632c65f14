package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/selfexe"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// A process that enters a PID namespace has our program as /proc/PID/exe until it calls execve. Whoever in there has CAP_SYS_PTRACE in the
// host's user namespace could reach the file through it; so a program that is about to be seen by such a process runs from a
// read-only mount (package selfexe). The engine starts every shim that way; the runtime's command line asks the guards, since
// beginning anew costs a millisecond that nearly all containers can save.

const tracer = "CAP_SYS_PTRACE"

// GuardCreate returns when Create may be called from this process; it may begin the process anew. Call it before anything was made.
func GuardCreate(s *bundle.Spec) error {
	if joinsPids(s) != "" && !ownUsers(s) {
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

// traces tells whether a process may trace others. Without a list it keeps the rights that the runtime has.
func traces(c *specs.LinuxCapabilities) bool {
	return c == nil || slices.Contains(slices.Concat(c.Bounding, c.Permitted, c.Effective, c.Inheritable, c.Ambient), tracer)
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

// ownUsers tells whether capabilities inside are worth nothing against a process of the host's (user_namespaces(7)).
func ownUsers(s *bundle.Spec) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}
