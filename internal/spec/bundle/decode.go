package bundle

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/jsonread"
)

// decode reads a config.json. What nearly every config has is read here; what few have is left to encoding/json piece by piece; and a
// document with anything unexpected in it is left to encoding/json as a whole (package jsonread).
func decode(text []byte) (*Spec, error) {
	s := &Spec{}
	r := reader{jsonread.New(string(text))}
	r.spec(s)
	if r.Done() {
		return s, nil
	}
	var l linuxSpec
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	return &Spec{Version: l.Version, Process: l.Process, Root: l.Root, Hostname: l.Hostname, Domainname: l.Domainname, Mounts: l.Mounts,
		Hooks: l.Hooks, Annotations: l.Annotations, Linux: l.Linux}, nil
}

// decodeRootfs reads a rootfs.json in the same way.
func decodeRootfs(text []byte) (*Rootfs, error) {
	s := &Rootfs{}
	r := reader{jsonread.New(string(text))}
	r.rootfs(s)
	if r.Done() {
		return s, nil
	}
	s = &Rootfs{}
	return s, json.Unmarshal(text, s)
}

// reader has a method for each type; the names of the keys are the types' own.
type reader struct{ *jsonread.Reader }

func list[T any](r reader, element func(*T)) []T {
	out := make([]T, 0, 8)
	r.Array(func() {
		var zero T
		out = append(out, zero)
		element(&out[len(out)-1])
	})
	return out
}

func texts[T ~string](r reader) []T {
	out := make([]T, 0, 4)
	r.Array(func() { out = append(out, T(r.String())) })
	return out
}

func (r reader) int64() *int64 {
	n := r.Int(64)
	return &n
}

func (r reader) uint64() *uint64 {
	n := r.Uint(64)
	return &n
}

func (r reader) uint() *uint {
	n := uint(r.Uint(64))
	return &n
}

func (r reader) uint32() *uint32 {
	n := uint32(r.Uint(32))
	return &n
}

func (r reader) spec(s *Spec) {
	r.Object(func(key string) {
		switch key {
		case "ociVersion":
			s.Version = r.String()
		case "process":
			s.Process = &specs.Process{}
			r.process(s.Process)
		case "root":
			s.Root = &specs.Root{}
			r.root(s.Root)
		case "hostname":
			s.Hostname = r.String()
		case "domainname":
			s.Domainname = r.String()
		case "mounts":
			s.Mounts = list(r, r.mount)
		case "hooks":
			r.Into(&s.Hooks)
		case "annotations":
			s.Annotations = r.Map()
		case "linux":
			s.Linux = &specs.Linux{}
			r.linux(s.Linux)
		default:
			r.Fail()
		}
	})
}

func (r reader) root(root *specs.Root) {
	r.Object(func(key string) {
		switch key {
		case "path":
			root.Path = r.String()
		case "readonly":
			root.Readonly = r.Bool()
		default:
			r.Fail()
		}
	})
}

func (r reader) process(p *specs.Process) {
	r.Object(func(key string) {
		switch key {
		case "terminal":
			p.Terminal = r.Bool()
		case "consoleSize":
			r.Into(&p.ConsoleSize)
		case "user":
			r.user(&p.User)
		case "args":
			p.Args = r.Strings()
		case "env":
			p.Env = r.Strings()
		case "cwd":
			p.Cwd = r.String()
		case "capabilities":
			p.Capabilities = &specs.LinuxCapabilities{}
			r.capabilities(p.Capabilities)
		case "rlimits":
			p.Rlimits = list(r, r.rlimit)
		case "noNewPrivileges":
			p.NoNewPrivileges = r.Bool()
		case "apparmorProfile":
			p.ApparmorProfile = r.String()
		case "oomScoreAdj":
			n := int(r.Int(64))
			p.OOMScoreAdj = &n
		case "scheduler":
			r.Into(&p.Scheduler)
		case "selinuxLabel":
			p.SelinuxLabel = r.String()
		case "ioPriority":
			r.Into(&p.IOPriority)
		case "execCPUAffinity":
			r.Into(&p.ExecCPUAffinity)
		default:
			r.Fail()
		}
	})
}

func (r reader) user(u *specs.User) {
	r.Object(func(key string) {
		switch key {
		case "uid":
			u.UID = uint32(r.Uint(32))
		case "gid":
			u.GID = uint32(r.Uint(32))
		case "umask":
			u.Umask = r.uint32()
		case "additionalGids":
			u.AdditionalGids = list(r, func(g *uint32) { *g = uint32(r.Uint(32)) })
		case "username":
			u.Username = r.String()
		default:
			r.Fail()
		}
	})
}

func (r reader) capabilities(c *specs.LinuxCapabilities) {
	r.Object(func(key string) {
		switch key {
		case "bounding":
			c.Bounding = r.Strings()
		case "effective":
			c.Effective = r.Strings()
		case "inheritable":
			c.Inheritable = r.Strings()
		case "permitted":
			c.Permitted = r.Strings()
		case "ambient":
			c.Ambient = r.Strings()
		default:
			r.Fail()
		}
	})
}

func (r reader) rlimit(l *specs.POSIXRlimit) {
	r.Object(func(key string) {
		switch key {
		case "type":
			l.Type = r.String()
		case "hard":
			l.Hard = r.Uint(64)
		case "soft":
			l.Soft = r.Uint(64)
		default:
			r.Fail()
		}
	})
}

func (r reader) mount(m *specs.Mount) {
	r.Object(func(key string) {
		switch key {
		case "destination":
			m.Destination = r.String()
		case "type":
			m.Type = r.String()
		case "source":
			m.Source = r.String()
		case "options":
			m.Options = r.Strings()
		case "uidMappings":
			r.Into(&m.UIDMappings)
		case "gidMappings":
			r.Into(&m.GIDMappings)
		default:
			r.Fail()
		}
	})
}

func (r reader) rootfs(s *Rootfs) {
	r.Object(func(key string) {
		switch key {
		case "folder":
			s.Folder = r.String()
		case "lower":
			s.Lower = list(r, r.layer)
		case "upper":
			s.Upper = r.String()
		case "work":
			s.Work = r.String()
		case "scratch":
			s.Scratch = r.String()
		case "volatile":
			s.Volatile = r.Bool()
		default:
			r.Fail()
		}
	})
}

func (r reader) layer(l *Layer) {
	r.Object(func(key string) {
		switch key {
		case "type":
			l.Type = r.String()
		case "source":
			l.Source = r.String()
		case "devices":
			l.Devices = r.Strings()
		case "loop":
			l.Loop = r.Bool()
		case "mounted":
			l.Mounted = r.String()
		default:
			r.Fail()
		}
	})
}
