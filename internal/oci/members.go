package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// Pids returns a container's processes: those in its cgroups, or where it has none (rootless), those in its PID namespace.
func Pids(s *state.State) ([]int, error) {
	if len(s.Cgroups) > 0 {
		return cgroup.Pids(s.Cgroups)
	}
	if !s.Alive() {
		return nil, nil
	}
	own, err := pidNamespace("self")
	if err != nil {
		return nil, err
	}
	theirs, err := pidNamespace(strconv.Itoa(s.Pid))
	if err != nil {
		return nil, err
	}
	if own == theirs { // shared with the host: only its first process is known to be the container's
		return []int{s.Pid}, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := pidNamespace(e.Name()); err == nil && ns == theirs {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func pidNamespace(pid string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+pid+"/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("namespace pid of process %s: %w", pid, err)
	}
	return st.Ino, nil
}

// killAll kills every process of the container.
func killAll(c *Container) error {
	if len(c.State.Cgroups) > 0 {
		return cgroup.Kill(c.State.Cgroups) // by the kernel, or again until nobody is left: nothing that forks meanwhile escapes
	}
	c.killInit() // the kernel takes the rest of its PID namespace along
	return nil
}

// unoccupied refuses cgroups that processes live in already: they would be limited, paused and killed with the container.
func unoccupied(dirs []plan.Dir) error {
	pid, where, err := cgroup.Occupant(dirs)
	if err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	if pid == 0 {
		return nil
	}
	return errdef.New(errdef.Conflict, "linux.cgroupsPath: %s is not empty: process %d is in it; give the container a cgroup of its own", where, pid)
}

// frozen tells whether the container is paused.
func frozen(s *state.State) bool {
	if len(s.Cgroups) == 0 {
		return false
	}
	is, err := cgroup.Frozen(s.Cgroups)
	return err == nil && is
}

func needCgroups(s *state.State, what string) error {
	if len(s.Cgroups) == 0 {
		return errdef.New(errdef.Unavailable, "cannot %s container %s: it is in no cgroup of its own, since we may not make any here", what, s.ID)
	}
	return nil
}

// mapIDs runs newuidmap or newgidmap for the child.
func mapIDs(h prog.HookCall, pid int) error {
	cmd := exec.Command(h.Path, append([]string{strconv.Itoa(pid)}, h.Args...)...)
	cmd.Env = []string{}
	var out beginning
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if text := strings.TrimSpace(string(out)); errors.As(err, &exit) && text != "" {
		return errdef.New(errdef.Forbidden, "%s (are these IDs yours in /etc/subuid and /etc/subgid?)", text)
	}
	return fmt.Errorf("%s: %w", h.Path, err)
}
