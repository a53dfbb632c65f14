package container

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// mountpoints resolves every way to ask for a mount into one list, destinations unique and sorted. It makes the volumes that are
// missing and lets rec hold them; fresh are those without content, which shall receive the image's. On error the list is what must be let go.
func (c maker) mountpoints(rec *api.Container) (list, fresh []api.Mount, err error) {
	byDst := map[string]api.Mount{}
	asked, err := c.askedMounts(rec)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range asked {
		m.Destination = path.Clean(m.Destination)
		if !path.IsAbs(m.Destination) || m.Destination == "/" {
			return nil, nil, errdef.New(errdef.InvalidArgument, "invalid mount of %s: the destination %q must be an absolute path other than /", m.Why, m.Destination)
		}
		if other, ok := byDst[m.Destination]; ok && strings.HasPrefix(other.Why, "flag") && strings.HasPrefix(m.Why, "flag") && !strings.HasPrefix(m.Why, "flag --volumes-from") {
			return nil, nil, errdef.New(errdef.InvalidArgument, "Duplicate mount point: %s", m.Destination)
		} else if ok {
			continue
		}
		byDst[m.Destination] = m
	}
	for _, dst := range slices.Sorted(maps.Keys(byDst)) {
		m := byDst[dst]
		made, err := c.source(rec, &m)
		list = append(list, m)
		if err != nil {
			return list, nil, err
		}
		if m.Type == mount.TypeVolume && !m.NoCopy && (made || empty(m.Source)) {
			fresh = append(fresh, m)
		}
	}
	return list, fresh, nil
}

// empty tells whether a volume's folder has nothing in it.
func empty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return err == io.EOF
}

// askedMounts lists flags before the image's volumes: the first word on a destination stands.
func (c maker) askedMounts(rec *api.Container) ([]api.Mount, error) {
	h := rec.HostConfig
	var out []api.Mount
	for i, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "HostConfig.Binds[%d]: %w", i, err)
		}
		out = append(out, m)
	}
	for i, m := range h.Mounts {
		am, err := fromMount(m)
		if err != nil {
			return nil, errdef.New(errdef.KindOf(err), "HostConfig.Mounts[%d]: %w", i, err)
		}
		out = append(out, am)
	}
	for _, dst := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		m := api.Mount{Type: mount.TypeTmpfs, Destination: dst, Mode: h.Tmpfs[dst], Why: "flag --tmpfs " + dst}
		if opts := h.Tmpfs[dst]; opts != "" {
			m.Data = strings.Split(opts, ",")
			m.Why += ":" + opts
		}
		out = append(out, m)
	}
	for i, from := range h.VolumesFrom {
		ref, mode, _ := strings.Cut(from, ":")
		if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
			return nil, errdef.New(errdef.InvalidArgument, "HostConfig.VolumesFrom[%d]: invalid mode %q", i, mode)
		}
		other, err := c.table.find(ref)
		if err != nil {
			return nil, err
		}
		for _, m := range other.rec.Load().Mounts {
			if m.Type == mount.TypeTmpfs {
				continue
			}
			m.ReadOnly = m.ReadOnly || mode == "ro"
			m.NoCopy, m.Why = true, "flag --volumes-from "+from
			out = append(out, m)
		}
	}
	for _, dst := range slices.Sorted(maps.Keys(rec.Config.Volumes)) {
		why := "flag --volume " + dst
		if slices.Contains(rec.FromImage, "Volumes "+dst) {
			why = "image field Config.Volumes " + dst
			dst = path.Clean("/" + dst)
		}
		out = append(out, api.Mount{Type: mount.TypeVolume, Destination: dst, Anonymous: true, Why: why})
	}
	return out, nil
}

// parseBind reads -v's [SOURCE:]DESTINATION[:OPTIONS].
func parseBind(s string) (api.Mount, error) {
	m := api.Mount{Why: "flag --volume " + s}
	parts := strings.Split(s, ":")
	switch len(parts) {
	case 1:
		m.Type, m.Destination, m.Anonymous = mount.TypeVolume, parts[0], true
		return m, nil
	case 2, 3:
	default:
		return m, errdef.New(errdef.InvalidArgument, "invalid volume specification: '%s'", s)
	}
	if parts[0] == "" || parts[1] == "" {
		return m, errdef.New(errdef.InvalidArgument, "invalid volume specification: '%s': empty source or destination", s)
	}
	m.Destination = parts[1]
	if path.IsAbs(parts[0]) {
		m.Type, m.Source = mount.TypeBind, path.Clean(parts[0])
	} else {
		if strings.ContainsAny(parts[0], "/") {
			return m, errdef.New(errdef.InvalidArgument, "%q is neither a volume name nor an absolute path: give the full path to mount a host folder", parts[0])
		}
		m.Type, m.Name = mount.TypeVolume, parts[0]
	}
	if len(parts) == 3 {
		m.Mode = parts[2]
		return m, bindOptions(&m)
	}
	return m, nil
}

func bindOptions(m *api.Mount) error {
	for _, o := range strings.Split(m.Mode, ",") {
		switch {
		case o == "ro":
			m.ReadOnly = true
		case o == "rw" || o == "z" || o == "Z" || o == "": // relabelling means nothing without SELinux
		case o == "nocopy" && m.Type == mount.TypeVolume:
			m.NoCopy = true
		case o == "cached" || o == "delegated" || o == "consistent":
		case slices.Contains(mount.Propagations, mount.Propagation(o)) && m.Type == mount.TypeBind:
			m.Propagation = mount.Propagation(o)
		default:
			return errdef.New(errdef.InvalidArgument, "invalid mode: %s", m.Mode)
		}
	}
	return nil
}

// fromMount reads --mount.
func fromMount(in mount.Mount) (api.Mount, error) {
	m := api.Mount{Type: in.Type, Source: in.Source, Destination: in.Target, ReadOnly: in.ReadOnly}
	m.Why = fmt.Sprintf("flag --mount type=%s,source=%s,target=%s", in.Type, in.Source, in.Target)
	bad := func(format string, a ...any) (api.Mount, error) {
		return m, errdef.New(errdef.InvalidArgument, "invalid mount config for type %q: "+format, append([]any{string(in.Type)}, a...)...)
	}
	if in.Target == "" {
		return bad("field Target must not be empty")
	}
	switch in.Type {
	case mount.TypeBind:
		return fromBindMount(m, in, bad)
	case mount.TypeVolume:
		m.Name, m.Source = in.Source, ""
		m.Anonymous = in.Source == ""
		if o := in.VolumeOptions; o != nil {
			m.NoCopy = o.NoCopy
			if o.Subpath != "" {
				return m, errdef.New(errdef.NotImplemented, "VolumeOptions.Subpath is not implemented")
			}
			if d := o.DriverConfig; d != nil && (d.Name != "" && d.Name != "local" || len(d.Options) > 0) {
				return m, errdef.New(errdef.NotImplemented, "VolumeOptions.DriverConfig is not implemented")
			}
		}
		if in.BindOptions != nil || in.TmpfsOptions != nil {
			return bad("BindOptions or TmpfsOptions given for a volume")
		}
		return m, nil
	case mount.TypeTmpfs:
		if in.Source != "" {
			return bad("field Source must be empty")
		}
		return m, tmpfsOptions(&m, in.TmpfsOptions)
	}
	return m, errdef.New(errdef.NotImplemented, "mount type %q is not implemented: use bind, volume or tmpfs", in.Type)
}

func fromBindMount(m api.Mount, in mount.Mount, bad func(string, ...any) (api.Mount, error)) (api.Mount, error) {
	if !path.IsAbs(in.Source) {
		return bad("the bind source %q must be an absolute path", in.Source)
	}
	if in.VolumeOptions != nil || in.TmpfsOptions != nil {
		return bad("VolumeOptions or TmpfsOptions given for a bind")
	}
	m.Source = path.Clean(in.Source)
	create := false
	if o := in.BindOptions; o != nil {
		if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
			return bad("invalid propagation %q", o.Propagation)
		}
		m.Propagation, m.NonRecursive, m.ReadOnlyHere, create = o.Propagation, o.NonRecursive, o.ReadOnlyNonRecursive, o.CreateMountpoint
	}
	if _, err := os.Lstat(m.Source); errors.Is(err, os.ErrNotExist) && !create {
		return bad("bind source path does not exist: %s", m.Source)
	}
	return m, nil
}

func tmpfsOptions(m *api.Mount, o *mount.TmpfsOptions) error {
	if o == nil {
		return nil
	}
	if o.SizeBytes > 0 {
		m.Data = append(m.Data, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	if o.Mode != 0 {
		m.Data = append(m.Data, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
	}
	for _, kv := range o.Options {
		if len(kv) != 1 && len(kv) != 2 {
			return errdef.New(errdef.InvalidArgument, "TmpfsOptions.Options: each entry has one or two words")
		}
		m.Data = append(m.Data, strings.Join(kv, "="))
	}
	return nil
}

// source sees to it that what is mounted exists: a volume is made, and so is a missing folder of -v, as Docker does.
func (c maker) source(rec *api.Container, m *api.Mount) (made bool, err error) {
	switch m.Type {
	case mount.TypeVolume:
		v, made, err := c.Volumes.Ensure(volume.CreateRequest{Name: m.Name}, rec.ID)
		if err != nil {
			return false, err
		}
		m.Name, m.Source, m.Driver = v.Name, v.Mountpoint, v.Driver
		return made, nil
	case mount.TypeBind:
		if m.Propagation == "" {
			m.Propagation = mount.PropagationRPrivate
		}
		if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) {
			if err := makeFolder(m.Source); err != nil {
				return false, errdef.New(errdef.InvalidArgument, "make the bind source %s: %w", m.Source, err)
			}
		} else if err != nil {
			return false, errdef.New(errdef.InvalidArgument, "bind source %s: %w", m.Source, err)
		}
	}
	return false, nil
}

// makeFolder makes a folder and what is missing above it, each with mode 0755 whatever the engine's umask.
func makeFolder(p string) error {
	err := os.Mkdir(p, 0o755)
	switch {
	case err == nil:
		return os.Chmod(p, 0o755)
	case errors.Is(err, os.ErrExist):
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := makeFolder(path.Dir(p)); err != nil {
		return err
	}
	return makeFolder(p)
}
