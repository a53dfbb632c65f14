package create

import (
	"encoding/csv"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// devices are host devices given to the container.
type devices struct {
	list  []string
	rules []string
	gpus  gpus
}

func (d *devices) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&d.list, "device", nil, "Add a host device (path[:path in container[:rwm]], or a CDI name)")
	fs.StringArrayVar(&d.rules, "device-cgroup-rule", nil, "Add a rule to the allowed devices (e.g. 'c 1:3 rwm')")
	fs.Var(&d.gpus, "gpus", "GPU devices to add (all, a number, or device=ID,...)")
}

func (d *devices) apply(b *request) error {
	// A CDI name is vendor.example/class=name.
	cdi := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$`)
	rule := regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`)
	var names []string
	for _, s := range d.list {
		if cdi.MatchString(s) {
			names = append(names, s)
			continue
		}
		m, err := parseDevice(s)
		if err != nil {
			return err
		}
		b.host.Devices = append(b.host.Devices, m)
	}
	b.host.DeviceRequests = d.gpus
	if len(names) > 0 {
		b.host.DeviceRequests = append(b.host.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: names})
	}
	for _, r := range d.rules {
		if !rule.MatchString(r) {
			return fmt.Errorf("--device-cgroup-rule %q: want 'TYPE MAJOR:MINOR ACCESS', e.g. 'c 1:3 rwm'", r)
		}
	}
	b.host.DeviceCgroupRules = d.rules
	return nil
}

func parseDevice(s string) (m container.DeviceMapping, err error) {
	parts := strings.Split(s, ":")
	m = container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	perms := func(p string) bool {
		seen := map[rune]bool{}
		for _, c := range p {
			if !strings.ContainsRune("rwm", c) || seen[c] {
				return false
			}
			seen[c] = true
		}
		return p != ""
	}
	switch len(parts) {
	case 1:
	case 2:
		if perms(parts[1]) {
			m.CgroupPermissions = parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 3:
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
		if !perms(parts[2]) {
			return m, fmt.Errorf("--device %q: %q is not a combination of r, w and m", s, parts[2])
		}
	default:
		return m, fmt.Errorf("--device %q: want path[:path in container[:rwm]]", s)
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("--device %q: %q is not an absolute path", s, m.PathInContainer)
	}
	return m, nil
}

type gpus []container.DeviceRequest

func (g *gpus) Type() string   { return "gpu-request" }
func (g *gpus) String() string { return "" }

func (g *gpus) Set(s string) error {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	r := container.DeviceRequest{}
	seen := map[string]bool{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			k, v = "count", f
		}
		if seen[k] {
			return fmt.Errorf("%s is given twice", k)
		}
		seen[k] = true
		switch k {
		case "driver":
			r.Driver = v
		case "count":
			if v == "all" {
				r.Count = -1
			} else if r.Count, err = strconv.Atoi(v); err != nil {
				return fmt.Errorf("count %q: want a number or all", v)
			}
		case "device":
			r.DeviceIDs = strings.Split(v, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(v, ","), "gpu")}
		case "options":
			o, err := csv.NewReader(strings.NewReader(v)).Read()
			if err != nil {
				return fmt.Errorf("options: %w", err)
			}
			r.Options = pairs(o)
		default:
			return fmt.Errorf("unexpected key %q", k)
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	*g = append(*g, r)
	return nil
}
