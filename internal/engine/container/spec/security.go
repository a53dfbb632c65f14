package spec

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// security sets masks, seccomp and no-new-privileges.
func (b *builder) security() error {
	h := b.in.Container.HostConfig
	seccomp := ""
	for i, o := range h.SecurityOpt {
		if err := b.securityOpt(o, &seccomp); err != nil {
			return errdef.New(errdef.KindOf(err), "HostConfig.SecurityOpt[%d]: %w", i, err)
		}
	}
	if p, reason := AppArmorProfile(h, &b.in.Host); p != "" {
		b.s.Process.ApparmorProfile = p
		b.because("process.apparmorProfile", reason)
	}
	b.masks()
	switch {
	case h.Privileged && seccomp == "":
		b.because("linux.seccomp", "flag --privileged (none)")
		return nil
	case seccomp == "unconfined":
		b.because("linux.seccomp", "flag --security-opt seccomp=unconfined (none)")
		return nil
	case seccomp == "" || seccomp == "builtin":
		if b.in.Host.Seccomp != nil {
			b.s.Linux.Seccomp = b.in.Host.Seccomp(b.caps)
		}
		b.because("linux.seccomp", Default)
		return nil
	}
	if !json.Valid([]byte(seccomp)) {
		return errdef.New(errdef.InvalidArgument, "HostConfig.SecurityOpt seccomp: not JSON (a profile's content, unconfined or builtin)")
	}
	p, err := b.in.Host.SeccompProfile([]byte(seccomp), b.caps)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "HostConfig.SecurityOpt seccomp: %w", err)
	}
	b.s.Linux.Seccomp = p
	b.because("linux.seccomp", "flag --security-opt seccomp=FILE")
	return nil
}

func (b *builder) securityOpt(o string, seccomp *string) error {
	key, value, given := strings.Cut(o, "=")
	if !given {
		key, value, given = strings.Cut(o, ":")
	}
	switch key {
	case "no-new-privileges":
		on := true
		if given {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return errdef.New(errdef.InvalidArgument, "no-new-privileges: %q is neither true nor false", value)
			}
			on = v
		}
		b.s.Process.NoNewPrivileges = on
		b.because("process.noNewPrivileges", "flag --security-opt "+o)
	case "seccomp":
		*seccomp = value
	case "apparmor":
		if value == "" || !b.in.Host.AppArmor && value != "unconfined" {
			return errdef.New(errdef.InvalidArgument, "apparmor profile %q: AppArmor is not enabled on this host, or the name is missing", value)
		}
	case "label":
		if value != "disable" {
			return errdef.New(errdef.NotImplemented, "label %q is not implemented: use label=disable", value)
		}
	default:
		return errdef.New(errdef.InvalidArgument, "invalid --security-opt: %q", o)
	}
	return nil
}

// AppArmorProfile is the profile a container gets, and why; "" where there is no AppArmor or nothing to give.
func AppArmorProfile(h *container.HostConfig, host *Host) (profile, reason string) {
	if !host.AppArmor {
		return "", ""
	}
	profile, reason = host.AppArmorProfile, Default
	if h.Privileged {
		profile, reason = "unconfined", "flag --privileged"
	}
	for _, o := range h.SecurityOpt {
		for _, sep := range []string{"=", ":"} {
			if v, ok := strings.CutPrefix(o, "apparmor"+sep); ok {
				profile, reason = v, "flag --security-opt "+o
			}
		}
	}
	return profile, reason
}

func (b *builder) masks() {
	h := b.in.Container.HostConfig
	masked, ro := h.MaskedPaths, h.ReadonlyPaths
	reason := "flag --security-opt systempaths"
	if h.Privileged {
		reason = "flag --privileged"
	}
	switch {
	case masked != nil || h.Privileged:
		b.because("linux.maskedPaths", reason)
	default:
		masked = maskedPaths(b.in.Host.NCPU)
		b.because("linux.maskedPaths", Default)
	}
	switch {
	case ro != nil || h.Privileged:
		b.because("linux.readonlyPaths", reason)
	default:
		ro = readonlyPaths()
		b.because("linux.readonlyPaths", Default)
	}
	b.s.Linux.MaskedPaths, b.s.Linux.ReadonlyPaths = masked, ro
}

// deviceRules is the cgroup's list: nothing, then what every container may use.
func deviceRules() []specs.LinuxDeviceCgroup {
	n := func(v int64) *int64 { return &v }
	allow := func(major, minor *int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: major, Minor: minor, Access: access}
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		allow(nil, nil, "m"),
		{Allow: true, Type: "b", Access: "m"},
		allow(n(1), n(3), "rwm"),  // null
		allow(n(1), n(5), "rwm"),  // zero
		allow(n(1), n(7), "rwm"),  // full
		allow(n(1), n(8), "rwm"),  // random
		allow(n(1), n(9), "rwm"),  // urandom
		allow(n(5), n(0), "rwm"),  // tty
		allow(n(5), n(1), "rwm"),  // console
		allow(n(5), n(2), "rwm"),  // ptmx
		allow(n(136), nil, "rwm"), // pts
	}
}
