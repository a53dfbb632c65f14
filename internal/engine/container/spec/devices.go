package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// DevicePaths lists the device nodes that Build will look up in Host.Devices for c.
func DevicePaths(c *api.Container) []string {
	var out []string
	for _, d := range c.HostConfig.Devices {
		out = append(out, d.PathOnHost)
	}
	for _, w := range c.HostConfig.BlkioWeightDevice {
		out = append(out, w.Path)
	}
	for _, list := range throttles(&c.HostConfig.Resources) {
		for _, t := range list {
			out = append(out, t.Path)
		}
	}
	return out
}

func throttles(r *container.Resources) map[string][]*blkiodev.ThrottleDevice {
	return map[string][]*blkiodev.ThrottleDevice{
		"--device-read-bps": r.BlkioDeviceReadBps, "--device-write-bps": r.BlkioDeviceWriteBps,
		"--device-read-iops": r.BlkioDeviceReadIOps, "--device-write-iops": r.BlkioDeviceWriteIOps,
	}
}

var cgroupRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// devices lists nodes to make and what the device cgroup allows; the nodes every container has are the runtime's business.
func (b *builder) devices() error {
	h := b.in.Container.HostConfig
	if h.Privileged {
		b.s.Linux.Devices = b.in.Host.AllDevices
		b.s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		b.because("linux.devices", "flag --privileged")
		b.because("linux.resources.devices", "flag --privileged")
		return nil
	}
	rules := deviceRules()
	for i, d := range h.Devices {
		found := b.in.Host.Devices[d.PathOnHost]
		if len(found) == 0 {
			return errdef.New(errdef.InvalidArgument, "HostConfig.Devices[%d]: %s is no device node on the host", i, d.PathOnHost)
		}
		access := d.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return errdef.New(errdef.InvalidArgument, "HostConfig.Devices[%d]: permissions %q: use letters of rwm", i, access)
		}
		inside := d.PathInContainer
		if inside == "" {
			inside = d.PathOnHost
		}
		for _, node := range found {
			hostPath := node.Path
			node.Path = clean(inside + strings.TrimPrefix(hostPath, d.PathOnHost))
			b.s.Linux.Devices = append(b.s.Linux.Devices, node)
			rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: ptr(node.Major), Minor: ptr(node.Minor), Access: access})
			b.because("linux.devices "+node.Path, "flag --device "+d.PathOnHost)
		}
	}
	for i, r := range h.DeviceCgroupRules {
		m := cgroupRule.FindStringSubmatch(r)
		if m == nil {
			return errdef.New(errdef.InvalidArgument, "HostConfig.DeviceCgroupRules[%d] %q: use \"TYPE MAJOR:MINOR rwm\"", i, r)
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Major: number(m[2]), Minor: number(m[3]), Access: m[4]})
		b.because(fmt.Sprintf("linux.resources.devices %s", r), "flag --device-cgroup-rule "+r)
	}
	b.s.Linux.Resources.Devices = rules
	return nil
}

// number is nil for the wildcard.
func number(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func (b *builder) blockIO(r *container.Resources, out *specs.LinuxResources) error {
	if r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return errdef.New(errdef.InvalidArgument, "HostConfig.BlkioWeight %d: must be between 10 and 1000", r.BlkioWeight)
	}
	io := &specs.LinuxBlockIO{}
	used := false
	if r.BlkioWeight > 0 {
		io.Weight, used = ptr(r.BlkioWeight), true
	}
	for _, w := range r.BlkioWeightDevice {
		d, err := blockDevice(b.in.Host, w.Path)
		if err != nil {
			return err
		}
		wd := specs.LinuxWeightDevice{Weight: ptr(w.Weight)}
		wd.Major, wd.Minor = d.Major, d.Minor
		io.WeightDevice, used = append(io.WeightDevice, wd), true
		b.because("linux.resources.blockIO.weightDevice "+w.Path, "flag --blkio-weight-device "+w.String())
	}
	into := map[string]*[]specs.LinuxThrottleDevice{
		"--device-read-bps": &io.ThrottleReadBpsDevice, "--device-write-bps": &io.ThrottleWriteBpsDevice,
		"--device-read-iops": &io.ThrottleReadIOPSDevice, "--device-write-iops": &io.ThrottleWriteIOPSDevice,
	}
	for flag, list := range throttles(r) {
		for _, t := range list {
			d, err := blockDevice(b.in.Host, t.Path)
			if err != nil {
				return err
			}
			td := specs.LinuxThrottleDevice{Rate: t.Rate}
			td.Major, td.Minor = d.Major, d.Minor
			*into[flag], used = append(*into[flag], td), true
			b.because("linux.resources.blockIO "+flag+" "+t.Path, "flag "+flag+" "+t.String())
		}
	}
	if used {
		out.BlockIO = io
	}
	return nil
}

func blockDevice(h Host, path string) (specs.LinuxDevice, error) {
	for _, d := range h.Devices[path] {
		if d.Type == "b" {
			return d, nil
		}
	}
	return specs.LinuxDevice{}, errdef.New(errdef.InvalidArgument, "HostConfig.Blkio: %s is no block device on the host", path)
}
