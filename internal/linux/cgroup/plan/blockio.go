package plan

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ioPlanner is the planner at block I/O.
type ioPlanner struct{ *planner }

// blockIO plans weights and throttles. Which weight file exists depends on the kernel and its I/O scheduler: v1's blkio.weight left
// with CFQ in Linux 5.0, BFQ has files of its own on both versions.
func (p ioPlanner) blockIO() error {
	b := p.r.BlockIO
	if b == nil {
		return nil
	}
	if b.Weight != nil && *b.Weight != 0 {
		if err := p.ioWeight("", *b.Weight, "blockIO.weight"); err != nil {
			return err
		}
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		if err := p.leafWeight("blkio.leaf_weight", "", *b.LeafWeight, "blockIO.leafWeight"); err != nil {
			return err
		}
	}
	for i, w := range b.WeightDevice {
		field, dev := "blockIO.weightDevice["+strconv.Itoa(i)+"]", device(w.Major, w.Minor)
		if w.Weight != nil {
			if err := p.ioWeight(dev, *w.Weight, field); err != nil {
				return err
			}
		}
		if w.LeafWeight != nil {
			if err := p.leafWeight("blkio.leaf_weight_device", dev+" ", *w.LeafWeight, field); err != nil {
				return err
			}
		}
	}
	for _, t := range [...]struct {
		list         []specs.LinuxThrottleDevice
		v1, v2, name string
	}{
		{b.ThrottleReadBpsDevice, "blkio.throttle.read_bps_device", "rbps", "throttleReadBpsDevice"},
		{b.ThrottleWriteBpsDevice, "blkio.throttle.write_bps_device", "wbps", "throttleWriteBpsDevice"},
		{b.ThrottleReadIOPSDevice, "blkio.throttle.read_iops_device", "riops", "throttleReadIOPSDevice"},
		{b.ThrottleWriteIOPSDevice, "blkio.throttle.write_iops_device", "wiops", "throttleWriteIOPSDevice"},
	} {
		for i, dev := range t.list {
			if err := p.throttle(dev, t.v1, t.v2, "blockIO."+t.name+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	}
	return nil
}

func device(major, minor int64) string {
	return strconv.FormatInt(major, 10) + ":" + strconv.FormatInt(minor, 10)
}

// io finds the block I/O controller: v1 calls it blkio, v2 io.
func (p ioPlanner) io(field string) (Dir, error) {
	for _, d := range p.dirs {
		if d.Has("blkio") {
			return d, nil
		}
	}
	return p.need("io", field)
}

// ioWeight plans a weight (10 .. 1000; 0 resets a device's) for all devices or one.
func (p ioPlanner) ioWeight(dev string, weight uint16, field string) error {
	if (weight < 10 && (dev == "" || weight != 0)) || weight > 1000 {
		return invalid("linux.resources.%s: weight %d is not between 10 and 1000", field, weight)
	}
	d, err := p.io(field)
	if err != nil {
		return err
	}
	plain := strconv.Itoa(int(weight))
	// io.weight reaches from 1 to 10000.
	wide := strconv.Itoa(1 + (max(int(weight), 10)-10)*9999/990)
	if weight == 0 {
		wide = "default"
	}
	switch {
	case d.V2 && dev == "":
		p.writeOr(d, "io.bfq.weight", plain, "io.weight", "default "+wide, field)
	case d.V2:
		p.writeOr(d, "io.bfq.weight", dev+" "+plain, "io.weight", dev+" "+wide, field)
	case dev == "":
		p.writeOr(d, "blkio.weight", plain, "blkio.bfq.weight", plain, field)
	default:
		p.writeOr(d, "blkio.weight_device", dev+" "+plain, "blkio.bfq.weight_device", dev+" "+plain, field)
	}
	return nil
}

func (p ioPlanner) leafWeight(file, dev string, weight uint16, field string) error {
	d, err := p.io(field)
	if err != nil {
		return err
	}
	if d.V2 {
		return noV2(field)
	}
	p.write(d, file, dev+strconv.Itoa(int(weight)), field)
	return nil
}

func (p ioPlanner) throttle(t specs.LinuxThrottleDevice, v1, v2, field string) error {
	d, err := p.io(field)
	if err != nil {
		return err
	}
	dev, rate := device(t.Major, t.Minor), strconv.FormatUint(t.Rate, 10)
	if !d.V2 {
		p.write(d, v1, dev+" "+rate, field)
		return nil
	}
	if t.Rate == 0 { // v1's word for no limit
		rate = "max"
	}
	p.write(d, "io.max", dev+" "+v2+"="+rate, field)
	return nil
}
