package runtime

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/state"
)

// stateJSON is runc's shape: the spec's state and four fields more.
type stateJSON struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func describe(c *oci.Container) (stateJSON, error) {
	status, err := c.Status()
	s := c.State
	out := stateJSON{Version: s.Version, ID: s.ID, Pid: s.Pid, Status: string(status), Bundle: s.Bundle, Rootfs: s.Rootfs, Created: s.Created, Annotations: s.Annotations}
	if status == state.Stopped {
		out.Pid = 0
	}
	return out, err
}

func (a viewer) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a viewer) state(fs *flag.FlagSet, argv []string) (int, error) {
	args, err := parse(fs, argv, exactly(1))
	if err != nil {
		return 1, err
	}
	c, err := a.load(args[0])
	if err != nil {
		return 1, err
	}
	d, err := describe(c)
	if err != nil {
		return 1, err
	}
	return 0, a.printJSON(d)
}

// formats declares --format and checks it.
func formats(fs *flag.FlagSet) func() (json bool, err error) {
	var format string
	both(fs.StringVar, &format, "format", "f", "table", "table or json")
	return func() (bool, error) {
		if format != "json" && format != "table" {
			return false, errdef.New(errdef.InvalidArgument, "invalid format option %q: use table or json", format)
		}
		return format == "json", nil
	}
}

func (a viewer) list(fs *flag.FlagSet, argv []string) (int, error) {
	format := formats(fs)
	var quiet bool
	both(fs.BoolVar, &quiet, "quiet", "q", false, "print IDs only")
	if _, err := parse(fs, argv, exactly(0)); err != nil {
		return 1, err
	}
	asJSON, err := format()
	if err != nil && !quiet {
		return 1, err
	}
	all, err := a.containers()
	if err != nil {
		return 1, err
	}
	switch {
	case quiet:
		for _, d := range all {
			if _, err := fmt.Fprintln(a.stdout, d.ID); err != nil {
				return 1, err
			}
		}
	case asJSON:
		return 0, json.NewEncoder(a.stdout).Encode(all)
	default:
		w := tabwriter.NewWriter(a.stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, d := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", d.ID, d.Pid, d.Status, d.Bundle, d.Created.Format(time.RFC3339Nano), d.Owner)
		}
		return 0, w.Flush()
	}
	return 0, nil
}

// containers reads the state of all. One that is being made or removed just now is left out.
func (a viewer) containers() ([]stateJSON, error) {
	entries, err := os.ReadDir(a.root)
	if err != nil && !(os.IsNotExist(err) && !a.rootSet) { // nobody has made a container yet
		return nil, err
	}
	all := []stateJSON{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c, err := a.load(e.Name())
		if err != nil {
			if !errdef.Is(err, errdef.NotFound) {
				a.warn("load container %s: %v", e.Name(), err)
			}
			continue
		}
		d, err := describe(c)
		if err != nil {
			a.warn("status of container %s: %v", e.Name(), err)
			continue
		}
		d.Owner = owner(e)
		all = append(all, d)
	}
	return all, nil
}

// owner names the user whose container it is.
func owner(e fs.DirEntry) string {
	info, err := e.Info()
	if err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}

func (a viewer) ps(fs *flag.FlagSet, argv []string) (int, error) {
	format := formats(fs)
	args, err := parse(fs, argv, thenTheirs(-1))
	if err != nil {
		return 1, err
	}
	asJSON, err := format()
	if err != nil {
		return 1, err
	}
	c, err := a.load(args[0])
	if err != nil {
		return 1, err
	}
	pids, err := oci.Pids(&c.State)
	if err != nil {
		return 1, err
	}
	if asJSON {
		return 0, json.NewEncoder(a.stdout).Encode(append([]int{}, pids...))
	}
	return 0, a.psTable(pids, args[1:])
}

// psTable has the host's ps list everything, and keeps the lines of the container's processes.
func (a viewer) psTable(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	ps, err := exec.LookPath("ps")
	if err != nil {
		return errdef.New(errdef.NotImplemented, "ps: %w (Debian package procps); --format json needs none", err)
	}
	out, err := exec.Command(ps, options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(ps), strings.Join(options, " "), err, strings.TrimSpace(string(out)))
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errdef.New(errdef.InvalidArgument, "couldn't find PID field in ps output: %q", lines[0])
	}
	kept := lines[:1:1]
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid in ps output: %q", line)
		}
		if slices.Contains(pids, pid) {
			kept = append(kept, line)
		}
	}
	_, err = fmt.Fprintln(a.stdout, strings.Join(kept, "\n"))
	return err
}
