package plan

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// devices plans the device list, if one is given: everything is denied first, then the rules apply in order, the last that
// matches wins.
func (p *planner) devices() error {
	if len(p.r.Devices) == 0 {
		return nil
	}
	for _, d := range p.dirs {
		if d.Has("devices") && !d.V2 {
			return p.devicesV1(d)
		}
	}
	d, ok := p.unifiedDir()
	if !ok {
		return invalid("linux.resources.devices: neither a v1 devices controller nor a v2 hierarchy is mounted")
	}
	program, err := DeviceProgram(p.r.Devices)
	if err != nil {
		return err
	}
	p.add(Step{Kind: Devices, Path: d.Path, Program: program, Why: "linux.resources.devices"})
	return nil
}

func wild(n int64) string {
	if n < 0 {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// Bits of bpf_cgroup_dev_ctx.access_type: the type below, the access above.
const (
	typeBlock   = 1
	typeChar    = 2
	accessMknod = 1
	accessRead  = 2
	accessWrite = 4
	accessAll   = 7
)

// deviceRule is a checked rule; major and minor are -1 for all.
type deviceRule struct {
	allow        bool
	block, char  bool
	major, minor int64
	access       int32
}

func (r deviceRule) everything() bool {
	return r.block && r.char && r.major < 0 && r.minor < 0 && r.access == accessAll
}

func (r deviceRule) letters() string {
	var s string
	for _, l := range [...]struct {
		bit  int32
		name string
	}{{accessRead, "r"}, {accessWrite, "w"}, {accessMknod, "m"}} {
		if r.access&l.bit != 0 {
			s += l.name
		}
	}
	return s
}

func parseRule(d specs.LinuxDeviceCgroup, field string) (deviceRule, error) {
	r := deviceRule{allow: d.Allow, major: -1, minor: -1}
	switch d.Type {
	case "", "a":
		r.block, r.char = true, true
	case "b":
		r.block = true
	case "c", "u":
		r.char = true
	default:
		return r, invalid("linux.resources.%s.type: %q is none of a, b, c", field, d.Type)
	}
	for _, n := range [...]struct {
		in   *int64
		out  *int64
		name string
	}{{d.Major, &r.major, "major"}, {d.Minor, &r.minor, "minor"}} {
		if n.in == nil || *n.in == -1 {
			continue
		}
		if *n.in < 0 || *n.in > 1<<32-1 {
			return r, invalid("linux.resources.%s.%s: %d is no device number", field, n.name, *n.in)
		}
		*n.out = *n.in
	}
	for _, c := range d.Access {
		i := strings.IndexRune("m r w", c)
		if i < 0 || c == ' ' {
			return r, invalid("linux.resources.%s.access: %q has letters other than r, w and m", field, d.Access)
		}
		r.access |= 1 << (i / 2)
	}
	if d.Access == "" {
		r.access = accessAll
	}
	return r, nil
}

// Opcodes of eBPF, as many as we use.
const (
	ebpfLoadW  = 0x61 // dst = *(u32 *)(src + off)
	ebpfMov    = 0xbf // dst = src
	ebpfMovK   = 0xb7 // dst = imm
	ebpfAndK   = 0x57
	ebpfRshK   = 0x77
	ebpfJa     = 0x05
	ebpfJsetK  = 0x45
	ebpfJneK   = 0x55
	ebpfJneK32 = 0x56
	ebpfExit   = 0x95
)

// Registers of the program.
const (
	regAnswer = iota
	regCtx
	regType
	regAccess // the bits no rule has decided yet
	regMajor
	regMinor
)

type assembler []byte

func (a *assembler) op(code, dst, src byte, off int16, imm int32) {
	*a = append(*a, code, src<<4|dst, byte(off), byte(off>>8), byte(imm), byte(imm>>8), byte(imm>>16), byte(imm>>24))
}

// DeviceProgramName is what our programs are called in the kernel, which tells them from others that are attached to the same cgroup.
const DeviceProgramName = "dhow_devices"

// DeviceProgram writes the eBPF program (instructions in little-endian memory order) for BPF_CGROUP_DEVICE. Everything is denied
// unless a rule allows it; for each of the accesses asked for, the last rule that matches decides, as with v1's files.
func DeviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	var a assembler
	a.op(ebpfLoadW, regAccess, regCtx, 0, 0)
	a.op(ebpfMov, regType, regAccess, 0, 0)
	a.op(ebpfAndK, regType, 0, 0, 0xffff)
	a.op(ebpfRshK, regAccess, 0, 0, 16)
	a.op(ebpfLoadW, regMajor, regCtx, 4, 0)
	a.op(ebpfLoadW, regMinor, regCtx, 8, 0)
	for i := len(rules) - 1; i >= 0; i-- {
		r, err := parseRule(rules[i], "devices["+strconv.Itoa(i)+"]")
		if err != nil {
			return nil, err
		}
		if r.everything() { // decides all that is left; the verifier refuses instructions nobody reaches
			a.answer(r.allow)
			return a, nil
		}
		a.rule(r)
	}
	a.answer(false)
	return a, nil
}

func (a *assembler) answer(allow bool) {
	var v int32
	if allow {
		v = 1
	}
	a.op(ebpfMovK, regAnswer, 0, 0, v)
	a.op(ebpfExit, 0, 0, 0, 0)
}

func (a *assembler) rule(r deviceRule) {
	var body assembler
	if r.allow {
		body.op(ebpfAndK, regAccess, 0, 0, accessAll&^r.access)
		body.op(ebpfJneK, regAccess, 0, 2, 0)
		body.answer(true)
	} else {
		body.op(ebpfJsetK, regAccess, 0, 1, r.access)
		body.op(ebpfJa, 0, 0, 2, 0)
		body.answer(false)
	}
	type test struct {
		reg byte
		val int32
	}
	var tests []test
	if !r.block || !r.char {
		kind := int32(typeBlock)
		if r.char {
			kind = typeChar
		}
		tests = append(tests, test{regType, kind})
	}
	if r.major >= 0 {
		tests = append(tests, test{regMajor, int32(uint32(r.major))})
	}
	if r.minor >= 0 {
		tests = append(tests, test{regMinor, int32(uint32(r.minor))})
	}
	for i, t := range tests {
		skip := len(tests) - 1 - i + len(body)/8
		a.op(ebpfJneK32, t.reg, 0, int16(skip), t.val)
	}
	*a = append(*a, body...)
}
