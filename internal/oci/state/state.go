// Package state owns what a runtime remembers of a container between two invocations: Root/ID/state.json.
//
// It promises that a reader sees a whole file, and that a PID is trusted only together with its start time. It must never
// guess a status from anything but the kernel and the marker of a parked container.
package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
)

// Names of the files in a container's state folder.
const (
	File     = "state.json"
	Parked   = "parked"      // exists until the container was started
	Mounts   = "mounts"      // holds the mounts of a container that is in the runtime's own mount namespace
	Program  = "program.txt" // the listing of what made it
	Watched  = "watched"     // exists when somebody inside may trace: exec only from a read-only mount
	ParkCtl  = "park.ctl"    // FIFOs through which another process releases the container
	ParkStat = "park.status"
	Notify   = "notify" // folder of the socket on which the container tells its service manager that it is ready
)

// Status is the runtime-spec's word for where a container is in its life (runtime.md, State).
type Status string

// The statuses; Paused is runc's addition.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// Bounds of what is read, in bytes: annotations are as large as a config.json may be.
const (
	maxState = 8 << 20
	maxStat  = 4 << 10
)

// State is the file's content.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Pid         int               `json:"pid"`
	StartTime   uint64            `json:"start_time"` // of Pid: field 22 of /proc/PID/stat, clock ticks since boot
	Created     time.Time         `json:"created"`
	CgroupPath  string            `json:"cgroup_path"`
	Cgroups     []plan.Dir        `json:"cgroups"` // one a hierarchy
	Annotations map[string]string `json:"annotations,omitempty"`
	// NoNewKeyring: execs stay in their caller's session keyring, too.
	NoNewKeyring bool `json:"no_new_keyring,omitempty"`
	// Keyring is the name of the session keyring of the container's processes. It cannot be guessed: who knows it may join.
	Keyring string `json:"keyring,omitempty"`
	// NoHooks: the config has neither poststart nor poststop hooks; it need not be read for them.
	NoHooks bool `json:"no_hooks,omitempty"`
	// SharedPids: the kernel does not end the other processes with the first, for they share somebody else's PID namespace.
	SharedPids bool `json:"shared_pids,omitempty"`
	// Notify is the folder that the container sees at /run/notify, "" for none.
	Notify string `json:"notify,omitempty"`
	// Resctrl are the groups of resctrl that the container is in, Removes those that go with it.
	Resctrl []string `json:"resctrl,omitempty"`
	Removes []string `json:"removes,omitempty"`
	// Unit is the scope that systemd made for the container; UserUnit: the user's own instance of systemd.
	Unit     string `json:"systemd_unit,omitempty"`
	UserUnit bool   `json:"systemd_user,omitempty"`
}

// Save writes the state into its folder.
func Save(dir string, s *State) error {
	return atomicfile.Replace(filepath.Join(dir, File), s.encode(), 0o600)
}

// Write makes another file of the state folder.
func Write(dir, name string, text []byte) error {
	return atomicfile.Create(filepath.Join(dir, name), text, 0o600)
}

// Load reads a container's state; errdef.NotFound when there is none.
func Load(root, id string) (*State, error) {
	if err := ValidID(id); err != nil {
		return nil, err
	}
	b, err := atomicfile.Read(filepath.Join(root, id, File), maxState)
	if os.IsNotExist(err) {
		return nil, errdef.New(errdef.NotFound, "container does not exist: %q", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of container %q: %w", id, err)
	}
	s, err := decode(b)
	if err == nil && s.ID != id {
		err = fmt.Errorf("it is of container %q", s.ID)
	}
	if err != nil {
		return nil, errdef.New(errdef.DataLoss, "read state of container %q: %w; %s is damaged, and what is left of the container unknown: once its processes and cgroups are gone remove the folder",
			id, err, filepath.Join(root, id, File))
	}
	return s, nil
}

// ValidID accepts what is safe as a path component: letters, digits and _+-. , as runc does.
func ValidID(id string) error {
	ok := id != "" && id != "." && id != ".." && len(id) <= 1024
	for _, r := range id {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}
	if !ok {
		return errdef.New(errdef.InvalidArgument, "invalid container ID %q: use letters, digits and _ + - .", id)
	}
	return nil
}

// Alive tells whether Pid is still the process that was started, and no zombie.
func (s *State) Alive() bool {
	t, zombie, err := StartTime(s.Pid)
	return err == nil && !zombie && t == s.StartTime
}

// StartTime returns a process's start time and whether it is a zombie or dead (proc_pid_stat(5), fields 22 and 3).
func StartTime(pid int) (ticks uint64, zombie bool, err error) {
	if pid <= 0 {
		return 0, false, errdef.New(errdef.NotFound, "no process %d", pid)
	}
	b, err := atomicfile.ReadRecord("/proc/"+strconv.Itoa(pid)+"/stat", maxStat)
	if err != nil {
		return 0, false, err
	}
	s := string(b)
	if i := strings.LastIndexByte(s, ')'); i >= 0 { // the name may contain anything
		f := strings.Fields(s[i+1:])
		if len(f) > 19 {
			ticks, err = strconv.ParseUint(f[19], 10, 64)
			return ticks, f[0] == "Z" || f[0] == "X", err
		}
	}
	return 0, false, fmt.Errorf("parse /proc/%d/stat", pid)
}
