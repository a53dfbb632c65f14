package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// namespaces lists those that the container gets for itself or joins; a namespace that is not listed is the host's.
func (b *builder) namespaces() error {
	h := b.in.Container.HostConfig
	b.namespace(specs.MountNamespace, false, Default)
	if err := b.pidNamespace(); err != nil {
		return err
	}
	switch {
	case h.IpcMode.IsHost():
		b.because("linux.namespaces ipc", "flag --ipc host")
	case h.IpcMode.IsEmpty() || h.IpcMode.IsPrivate() || h.IpcMode.IsNone():
		b.namespace(specs.IPCNamespace, false, Default)
	default:
		return errdef.New(errdef.NotImplemented, "HostConfig.IpcMode %q is not implemented: use private, none or host", h.IpcMode)
	}
	switch {
	case h.UTSMode.IsHost():
		b.because("linux.namespaces uts", "flag --uts host")
		if b.in.Container.Config.Domainname != "" {
			return errdef.New(errdef.InvalidArgument, "conflicting options: --domainname and the host's UTS namespace")
		}
	case h.UTSMode == "":
		b.namespace(specs.UTSNamespace, false, Default)
		b.s.Hostname = b.in.Hostname
		b.s.Domainname = b.in.Container.Config.Domainname
		if b.s.Domainname != "" {
			b.because("domainname", "flag --domainname "+b.s.Domainname)
		}
		b.because("hostname", "flag --hostname "+b.in.Hostname)
		if b.in.Container.Config.Hostname == "" || b.in.Container.Config.Hostname == b.in.Container.ID[:min(12, len(b.in.Container.ID))] {
			b.because("hostname", Default)
		}
	default:
		return errdef.New(errdef.InvalidArgument, "HostConfig.UTSMode %q: use host or leave it empty", h.UTSMode)
	}
	b.networkNamespace()
	return b.cgroupNamespace()
}

func (b *builder) namespace(t specs.LinuxNamespaceType, join bool, reason string) {
	n := specs.LinuxNamespace{Type: t}
	if join {
		n.Path = b.in.Namespaces[t]
	}
	b.s.Linux.Namespaces = append(b.s.Linux.Namespaces, n)
	b.because("linux.namespaces "+string(t), reason)
}

func (b *builder) pidNamespace() error {
	m := b.in.Container.HostConfig.PidMode
	switch {
	case !m.Valid():
		return errdef.New(errdef.InvalidArgument, "HostConfig.PidMode %q: use host or container:NAME", m)
	case m.IsHost():
		b.because("linux.namespaces pid", "flag --pid host")
	case m.IsContainer():
		b.namespace(specs.PIDNamespace, true, "flag --pid "+string(m))
	default:
		b.namespace(specs.PIDNamespace, false, Default)
	}
	return nil
}

func (b *builder) networkNamespace() {
	m := b.in.Container.HostConfig.NetworkMode
	switch {
	case m.IsHost():
		b.because("linux.namespaces network", "flag --network host")
	case m == "" || m.IsDefault():
		b.namespace(specs.NetworkNamespace, true, Default)
	default:
		b.namespace(specs.NetworkNamespace, true, "flag --network "+string(m))
	}
}

func (b *builder) cgroupNamespace() error {
	m := b.in.Container.HostConfig.CgroupnsMode
	switch {
	case m.IsHost():
		b.because("linux.namespaces cgroup", "flag --cgroupns host")
	case m.IsEmpty() || m.IsPrivate():
		b.namespace(specs.CgroupNamespace, false, Default)
	default:
		return errdef.New(errdef.InvalidArgument, "HostConfig.CgroupnsMode %q: use private or host", m)
	}
	return nil
}
