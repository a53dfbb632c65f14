package create

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"
)

// storage are the volumes, mounts and tmpfs of the container.
type storage struct {
	volumes []string
	from    []string
	driver  string
	mounts  mounts
	tmpfs   []string
	opts    []string
	socket  bool
}

func (s *storage) add(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&s.volumes, "volume", "v", nil, "Mount a volume or a path of the host ([source:]target[:options])")
	fs.StringArrayVar(&s.from, "volumes-from", nil, "Mount the volumes of another container")
	fs.StringVar(&s.driver, "volume-driver", "", "Driver of the volumes")
	fs.Var(&s.mounts, "mount", "Mount a filesystem (type=bind|volume|tmpfs|image,source=...,target=...)")
	fs.StringArrayVar(&s.tmpfs, "tmpfs", nil, "Mount a tmpfs (path[:options])")
	fs.StringArrayVar(&s.opts, "storage-opt", nil, "Options of the storage driver (K=V)")
	fs.BoolVar(&s.socket, "use-api-socket", false, "Mount the engine's socket and registry credentials")
	fs.MarkHidden("use-api-socket")
}

func (s *storage) apply(b *request) error {
	if s.socket {
		return fmt.Errorf("--use-api-socket: not supported; mount the socket with --volume")
	}
	h := b.host
	b.config.Volumes = map[string]struct{}{}
	for _, v := range s.volumes {
		if err := addVolume(b, v); err != nil {
			return err
		}
	}
	h.VolumesFrom, h.VolumeDriver = s.from, s.driver
	h.Mounts = s.mounts
	if len(s.tmpfs) > 0 {
		h.Tmpfs = map[string]string{}
		for _, t := range s.tmpfs {
			p, opts, _ := strings.Cut(t, ":")
			if !path.IsAbs(p) {
				return fmt.Errorf("--tmpfs %q: the path is not absolute", t)
			}
			h.Tmpfs[p] = opts
		}
	}
	for _, o := range s.opts {
		if !strings.Contains(o, "=") {
			return fmt.Errorf("--storage-opt %q: want key=value", o)
		}
	}
	h.StorageOpt = pairs(s.opts)
	return nil
}

// addVolume reads [source:]target[:options]. A lone target is an anonymous volume; a source that starts with a point is a
// path relative to here.
func addVolume(b *request, v string) error {
	parts := strings.Split(v, ":")
	for _, p := range parts {
		if p == "" {
			return fmt.Errorf("--volume %q: an empty part between colons", v)
		}
	}
	switch len(parts) {
	case 1:
		if !path.IsAbs(v) {
			return fmt.Errorf("--volume %q: the path in the container is not absolute", v)
		}
		b.config.Volumes[v] = struct{}{}
		return nil
	case 2, 3:
	default:
		return fmt.Errorf("--volume %q: want [source:]target[:options]", v)
	}
	if !path.IsAbs(parts[1]) {
		return fmt.Errorf("--volume %q: the path in the container is not absolute", v)
	}
	if src := parts[0]; src[0] == '.' {
		abs, err := b.env.Abs(src)
		if err != nil {
			return fmt.Errorf("--volume %q: %w", v, err)
		}
		parts[0] = abs
	} else if strings.HasPrefix(src, "~/") || src == "~" {
		return fmt.Errorf("--volume %q: ~ is the shell's; write the path out", v)
	}
	b.host.Binds = append(b.host.Binds, strings.Join(parts, ":"))
	return nil
}

type mounts []mount.Mount

func (v *mounts) Type() string   { return "mount" }
func (v *mounts) String() string { return "" }
