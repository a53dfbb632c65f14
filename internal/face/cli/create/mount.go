package create

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// Set reads one --mount: comma-separated key=value pairs, quoted as CSV.
func (v *mounts) Set(s string) error {
	fields, err := csv.NewReader(strings.NewReader(strings.TrimSpace(s))).Read()
	if err != nil {
		return err
	}
	m := mount.Mount{Type: mount.TypeVolume}
	for _, f := range fields {
		k, val, has := strings.Cut(f, "=")
		if err := setMount(&m, strings.ToLower(k), val, has); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	if err := checkMount(&m); err != nil {
		return err
	}
	*v = append(*v, m)
	return nil
}

func setMount(m *mount.Mount, k, val string, has bool) (err error) {
	if !has {
		switch k {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
			val = "true"
		default:
			return errors.New("want key=value")
		}
	}
	switch k {
	case "type":
		m.Type = mount.Type(strings.ToLower(val))
		return nil
	case "source", "src":
		m.Source = val
		if strings.HasPrefix(val, "."+string(filepath.Separator)) || val == "." {
			m.Source, err = filepath.Abs(val)
		}
		return err
	case "target", "dst", "destination":
		m.Target = val
		return nil
	case "readonly", "ro":
		m.ReadOnly, err = truth(val)
		return err
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
		return nil
	}
	switch kind, _, _ := strings.Cut(k, "-"); kind {
	case "bind":
		return setBind(m, k, val)
	case "volume":
		return setVolume(m, k, val)
	case "tmpfs":
		return setTmpfs(m, k, val)
	case "image":
		if k == "image-subpath" {
			m.ImageOptions = &mount.ImageOptions{Subpath: val}
			return nil
		}
	}
	return errors.New("unknown key")
}

func setBind(m *mount.Mount, k, val string) (err error) {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	o := m.BindOptions
	switch k {
	case "bind-propagation":
		o.Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-nonrecursive":
		o.NonRecursive, err = truth(val)
	case "bind-create-src":
		o.CreateMountpoint, err = truth(val)
	case "bind-recursive":
		switch val {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return errors.New("want enabled, disabled, writable or readonly")
		}
	default:
		return errors.New("unknown key")
	}
	return err
}

func setVolume(m *mount.Mount, k, val string) (err error) {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	o := m.VolumeOptions
	switch k {
	case "volume-subpath":
		o.Subpath = val
	case "volume-nocopy":
		if o.NoCopy, err = truth(val); err != nil {
			return err
		}
	case "volume-label":
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		lk, lv, _ := strings.Cut(val, "=")
		o.Labels[lk] = lv
	case "volume-driver", "volume-opt":
		if o.DriverConfig == nil {
			o.DriverConfig = &mount.Driver{}
		}
		if k == "volume-driver" {
			o.DriverConfig.Name = val
			return nil
		}
		if o.DriverConfig.Options == nil {
			o.DriverConfig.Options = map[string]string{}
		}
		ok, ov, _ := strings.Cut(val, "=")
		o.DriverConfig.Options[ok] = ov
	default:
		return errors.New("unknown key")
	}
	return nil
}

func setTmpfs(m *mount.Mount, k, val string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	switch k {
	case "tmpfs-size":
		n, err := units.RAMInBytes(val)
		if err != nil {
			return err
		}
		m.TmpfsOptions.SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return errors.New("want an octal mode")
		}
		m.TmpfsOptions.Mode = os.FileMode(n)
	default:
		return errors.New("unknown key")
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	switch m.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
	case "":
		return errors.New("type is missing")
	default:
		return fmt.Errorf("type %q: want bind, volume, tmpfs or image", m.Type)
	}
	if m.Target == "" {
		return errors.New("target is missing")
	}
	for _, c := range []struct {
		has bool
		t   mount.Type
	}{
		{m.BindOptions != nil, mount.TypeBind}, {m.VolumeOptions != nil, mount.TypeVolume},
		{m.TmpfsOptions != nil, mount.TypeTmpfs}, {m.ImageOptions != nil, mount.TypeImage},
	} {
		if c.has && m.Type != c.t {
			return fmt.Errorf("%s-* keys do not go with type %s", c.t, m.Type)
		}
	}
	if b := m.BindOptions; b != nil {
		if b.ReadOnlyNonRecursive && !m.ReadOnly {
			return errors.New("bind-recursive=writable needs readonly")
		}
		if b.ReadOnlyForceRecursive && (!m.ReadOnly || b.Propagation != mount.PropagationRPrivate) {
			return errors.New("bind-recursive=readonly needs readonly and bind-propagation=rprivate")
		}
	}
	return nil
}

func truth(s string) (bool, error) {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return v, nil
}
