package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

func (r reader) linux(l *specs.Linux) {
	r.Object(func(key string) {
		switch key {
		case "uidMappings":
			r.Into(&l.UIDMappings)
		case "gidMappings":
			r.Into(&l.GIDMappings)
		case "sysctl":
			l.Sysctl = r.Map()
		case "resources":
			l.Resources = &specs.LinuxResources{}
			r.resources(l.Resources)
		case "cgroupsPath":
			l.CgroupsPath = r.String()
		case "namespaces":
			l.Namespaces = list(r, r.namespace)
		case "devices":
			l.Devices = list(r, r.device)
		case "netDevices":
			r.Into(&l.NetDevices)
		case "seccomp":
			l.Seccomp = &specs.LinuxSeccomp{}
			r.seccomp(l.Seccomp)
		case "rootfsPropagation":
			l.RootfsPropagation = r.String()
		case "maskedPaths":
			l.MaskedPaths = r.Strings()
		case "readonlyPaths":
			l.ReadonlyPaths = r.Strings()
		case "mountLabel":
			l.MountLabel = r.String()
		case "intelRdt":
			r.Into(&l.IntelRdt)
		case "memoryPolicy":
			r.Into(&l.MemoryPolicy)
		case "personality":
			r.Into(&l.Personality)
		case "timeOffsets":
			r.Into(&l.TimeOffsets)
		default:
			r.Fail()
		}
	})
}

func (r reader) namespace(n *specs.LinuxNamespace) {
	r.Object(func(key string) {
		switch key {
		case "type":
			n.Type = specs.LinuxNamespaceType(r.String())
		case "path":
			n.Path = r.String()
		default:
			r.Fail()
		}
	})
}

func (r reader) device(d *specs.LinuxDevice) {
	r.Object(func(key string) {
		switch key {
		case "path":
			d.Path = r.String()
		case "type":
			d.Type = r.String()
		case "major":
			d.Major = r.Int(64)
		case "minor":
			d.Minor = r.Int(64)
		case "fileMode":
			r.Into(&d.FileMode)
		case "uid":
			d.UID = r.uint32()
		case "gid":
			d.GID = r.uint32()
		default:
			r.Fail()
		}
	})
}

func (r reader) resources(s *specs.LinuxResources) {
	r.Object(func(key string) {
		switch key {
		case "devices":
			s.Devices = list(r, r.deviceRule)
		case "memory":
			s.Memory = &specs.LinuxMemory{}
			r.memory(s.Memory)
		case "cpu":
			s.CPU = &specs.LinuxCPU{}
			r.cpu(s.CPU)
		case "pids":
			s.Pids = &specs.LinuxPids{}
			r.Object(func(key string) {
				if key != "limit" {
					r.Fail()
				}
				s.Pids.Limit = r.int64()
			})
		case "blockIO":
			r.blockIO(s)
		case "hugepageLimits":
			r.Into(&s.HugepageLimits)
		case "network":
			r.Into(&s.Network)
		case "rdma":
			r.Into(&s.Rdma)
		case "unified":
			s.Unified = r.Map()
		default:
			r.Fail()
		}
	})
}

// blockIO knows the form that engines write when nothing is limited.
func (r reader) blockIO(s *specs.LinuxResources) {
	if r.Empty() {
		s.BlockIO = &specs.LinuxBlockIO{}
		return
	}
	r.Into(&s.BlockIO)
}

func (r reader) deviceRule(d *specs.LinuxDeviceCgroup) {
	r.Object(func(key string) {
		switch key {
		case "allow":
			d.Allow = r.Bool()
		case "type":
			d.Type = r.String()
		case "major":
			d.Major = r.int64()
		case "minor":
			d.Minor = r.int64()
		case "access":
			d.Access = r.String()
		default:
			r.Fail()
		}
	})
}

func (r reader) memory(m *specs.LinuxMemory) {
	flag := func() *bool {
		b := r.Bool()
		return &b
	}
	r.Object(func(key string) {
		switch key {
		case "limit":
			m.Limit = r.int64()
		case "reservation":
			m.Reservation = r.int64()
		case "swap":
			m.Swap = r.int64()
		case "kernel":
			//lint:ignore SA1019 what it means is not decided here
			m.Kernel = r.int64()
		case "kernelTCP":
			m.KernelTCP = r.int64()
		case "swappiness":
			m.Swappiness = r.uint64()
		case "disableOOMKiller":
			m.DisableOOMKiller = flag()
		case "useHierarchy":
			m.UseHierarchy = flag()
		case "checkBeforeUpdate":
			m.CheckBeforeUpdate = flag()
		default:
			r.Fail()
		}
	})
}

func (r reader) cpu(c *specs.LinuxCPU) {
	r.Object(func(key string) {
		switch key {
		case "shares":
			c.Shares = r.uint64()
		case "quota":
			c.Quota = r.int64()
		case "burst":
			c.Burst = r.uint64()
		case "period":
			c.Period = r.uint64()
		case "realtimeRuntime":
			c.RealtimeRuntime = r.int64()
		case "realtimePeriod":
			c.RealtimePeriod = r.uint64()
		case "cpus":
			c.Cpus = r.String()
		case "mems":
			c.Mems = r.String()
		case "idle":
			c.Idle = r.int64()
		default:
			r.Fail()
		}
	})
}

func (r reader) seccomp(s *specs.LinuxSeccomp) {
	r.Object(func(key string) {
		switch key {
		case "defaultAction":
			s.DefaultAction = specs.LinuxSeccompAction(r.String())
		case "defaultErrnoRet":
			s.DefaultErrnoRet = r.uint()
		case "architectures":
			s.Architectures = texts[specs.Arch](r)
		case "flags":
			s.Flags = texts[specs.LinuxSeccompFlag](r)
		case "listenerPath":
			s.ListenerPath = r.String()
		case "listenerMetadata":
			s.ListenerMetadata = r.String()
		case "syscalls":
			s.Syscalls = list(r, r.syscall)
		default:
			r.Fail()
		}
	})
}

func (r reader) syscall(s *specs.LinuxSyscall) {
	r.Object(func(key string) {
		switch key {
		case "names":
			s.Names = r.Strings()
		case "action":
			s.Action = specs.LinuxSeccompAction(r.String())
		case "errnoRet":
			s.ErrnoRet = r.uint()
		case "args":
			s.Args = list(r, r.syscallArg)
		default:
			r.Fail()
		}
	})
}

func (r reader) syscallArg(a *specs.LinuxSeccompArg) {
	r.Object(func(key string) {
		switch key {
		case "index":
			a.Index = uint(r.Uint(64))
		case "value":
			a.Value = r.Uint(64)
		case "valueTwo":
			a.ValueTwo = r.Uint(64)
		case "op":
			a.Op = specs.LinuxSeccompOperator(r.String())
		default:
			r.Fail()
		}
	})
}
