package explain

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/linux/cgroup/plan"
	netplan "github.com/dhow-containers/dhow/internal/network/plan"
	"github.com/dhow-containers/dhow/internal/oci/prog"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Subject is what Make looks at: everything that the engine knows of one container.
type Subject struct {
	ID, Name, Image, Status string
	// Pid is the first process on the host, 0 when there is none.
	Pid int
	// Spec is config.json as it is, or (for a container that has never run) as it would be; Why maps its entries to flags and fields.
	Spec   *bundle.Spec
	Rootfs *bundle.Rootfs
	Why    map[string]string
	// State is the runtime's state, nil when there is none. ProgramFile is the listing.
	State       *state.State
	ProgramFile string
	Layout      plan.Layout
	// Network is what was carried out for the container, or for the one whose network it shares; nil means that nothing was.
	Network *netplan.Plan
	Table   string // nft table
	// Joined names, by namespace type, whose namespace it was asked to share: "container web".
	Joined map[string]string
	// Peers are the other running containers.
	Peers   []Peer
	Volumes []Volume
	// Published are the ports that were asked for; they show while there is no plan.
	Published []Publication
	// Usage returns the bytes of the writable layer.
	Usage func() (int64, error)
	Now   time.Time
}

// Peer is another running container.
type Peer struct {
	Name string
	Pid  int
}

// Volume is a named or anonymous volume of the container.
type Volume struct{ Name, Source, Destination, Why string }

// Publication is a published port: "80/tcp" on Host, which may be empty or a range.
type Publication struct{ Port, Host, Why string }

// view is one look at one container: the subject and what several sections share.
type view struct {
	Subject
	status    map[string]string // /proc/PID/status
	mounts    []mountEntry      // /proc/PID/mountinfo
	mountsErr error
	notes     []string
}

// Make looks. It never fails: what could not be read says so in its place.
func Make(s Subject) *Report {
	v := &view{Subject: s}
	if v.Spec == nil {
		v.Spec = &bundle.Spec{}
	}
	if v.State != nil && !v.State.Alive() {
		v.Pid = 0
	}
	if v.Pid > 0 {
		v.look()
	} else {
		v.notes = append(v.notes, "it does not run: the kernel's side is empty")
	}
	r := &Report{ID: s.ID, Name: s.Name, Image: s.Image, Status: s.Status, Pid: v.Pid, At: s.Now.UTC()}
	for _, section := range []func(*view) Section{
		processSection, namespacesSection, cgroupsSection, rootfsSection, mountsSection, pathsSection, devicesSection, capabilitiesSection, securitySection, limitsSection, networkSection, portsSection, volumesSection, processesSection,
	} {
		if sec := section(v); len(sec.Rows) > 0 {
			r.Sections = append(r.Sections, sec)
		}
	}
	r.Program = v.program()
	if v.Pid > 0 && v.State != nil && !v.State.Alive() {
		v.notes = append(v.notes, "it ended while it was looked at: look again")
	}
	for _, sec := range r.Sections {
		for _, row := range sec.Rows {
			if row.Differs {
				r.Differences++
			}
		}
	}
	r.Notes = v.notes
	return r
}

// look reads what several sections need.
func (v *view) look() {
	b, err := v.proc("status")
	if err != nil {
		v.notes = append(v.notes, fmt.Sprintf("its first process cannot be read: %v", err))
	}
	v.status = fields(b)
	b, err = v.proc("mountinfo")
	if err == nil {
		v.mounts, err = parseMountinfo(b)
	}
	v.mountsErr = err
}

// why is the reason of an entry of the configuration; entries that name nobody are the engine's own defaults.
func (v *view) why(keys ...string) string {
	for _, k := range keys {
		if w := v.Why[k]; w != "" {
			return w
		}
	}
	return "default"
}

// program reads the listing and counts its lanes.
func (v *view) program() Program {
	p := Program{Path: v.ProgramFile}
	if v.ProgramFile == "" {
		p.Note = "there is none before the first start"
		return p
	}
	b, err := read(v.ProgramFile, maxProgram)
	if err != nil {
		return Program{Note: fmt.Sprintf("not read: %v", err)}
	}
	lines, err := prog.ParseListing(bytes.NewReader(b))
	if err != nil {
		return Program{Note: err.Error()}
	}
	for _, l := range lines {
		if l.Lane == "host" {
			p.Host++
		} else {
			p.Child++
		}
	}
	p.Lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	return p
}
