package runtime

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/oci"
	"github.com/dhow-containers/dhow/internal/oci/compile"
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
	out := stateJSON{Version: s.Version, ID: s.ID, Pid: s.Pid, Status: string(status), Bundle: s.Bundle, Rootfs: s.Rootfs, Created: s.Created, Annotations: s.Annotations, Owner: ""}
	if status == "stopped" {
		out.Pid = 0
	}
	return out, err
}

func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}

func (a *app) state(fs *flag.FlagSet, argv []string) (int, error) {
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	d, err := describe(c)
	if err != nil {
		return 1, err
	}
	return 0, a.printJSON(d)
}

func (a *app) list(fs *flag.FlagSet, argv []string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	quiet := fs.Bool("quiet", false, "print IDs only")
	fs.BoolVar(quiet, "q", false, "short for --quiet")
	if err := parse(fs, argv, 0, 0); err != nil {
		return 1, err
	}
	entries, err := os.ReadDir(a.root)
	if err != nil && !os.IsNotExist(err) {
		return 1, err
	}
	all := []stateJSON{}
	for _, e := range entries {
		c, err := oci.Load(a.root, e.Name())
		if err != nil {
			continue // being made or removed just now
		}
		if d, err := describe(c); err == nil {
			all = append(all, d)
		}
	}
	switch {
	case *quiet:
		for _, d := range all {
			fmt.Fprintln(a.stdout, d.ID)
		}
	case *format == "json":
		return 0, json.NewEncoder(a.stdout).Encode(all)
	case *format == "table":
		w := tabwriter.NewWriter(a.stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, d := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\troot\n", d.ID, d.Pid, d.Status, d.Bundle, d.Created.Format(time.RFC3339Nano))
		}
		return 0, w.Flush()
	default:
		return 1, errdef.New(errdef.InvalidArgument, "list: --format %q is neither table nor json", *format)
	}
	return 0, nil
}

func (a *app) ps(fs *flag.FlagSet, argv []string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "short for --format")
	if err := parse(fs, argv, 1, 1); err != nil {
		return 1, err
	}
	c, err := oci.Load(a.root, fs.Arg(0))
	if err != nil {
		return 1, err
	}
	pids, err := cgroup.Pids(c.State.Cgroups)
	if err != nil {
		return 1, err
	}
	if *format == "json" {
		if pids == nil {
			pids = []int{}
		}
		return 0, json.NewEncoder(a.stdout).Encode(pids)
	}
	fmt.Fprintln(a.stdout, "PID     CMD")
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		fmt.Fprintf(a.stdout, "%-7d %q\n", pid, strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " "))
	}
	return 0, nil
}

func (a *app) features(fs *flag.FlagSet, argv []string) (int, error) {
	if err := parse(fs, argv, 0, 0); err != nil {
		return 1, err
	}
	yes, no := true, false
	var caps []string
	for n := 0; compile.CapName(n) != fmt.Sprintf("CAP_%d", n); n++ {
		caps = append(caps, compile.CapName(n))
	}
	return 0, a.printJSON(features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "poststart", "poststop"},
		MountOptions: compile.MountOptions(),
		Linux: &features.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities:    caps,
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &yes},
			Seccomp:         &features.Seccomp{Enabled: &yes},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
		},
	})
}
