package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// Mount makes a detached overlay mount of a snapshot: the returned file is its root, nobody else sees it, and it is gone when the
// file is closed. It is for snapshots that no container has mounted; with readonly it does no harm beside one, but a running
// container's changes may not show. What is inside is nosuid and nodev.
func (s *Store) Mount(id string, readonly bool) (*os.File, error) {
	r, layers, err := s.Open(context.Background(), id)
	if err != nil {
		return nil, err
	}
	defer layers.Close() // of a nil file it is an error without effect
	if r.Folder != "" {
		m, err := folder(r.Folder, readonly)
		if err != nil {
			return nil, fmt.Errorf("mount snapshot %s: %w", id, err)
		}
		return m, nil
	}
	if readonly {
		r.Lower = append([]bundle.Layer{{Type: layer.FormDir, Source: r.Upper}}, r.Lower...)
		r.Upper, r.Work = "", ""
	}
	m, err := Detached(r)
	if err != nil {
		return nil, fmt.Errorf("mount snapshot %s: %w", id, err)
	}
	return m, nil
}

const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// folder makes a detached mount of a root file system that is whole.
func folder(path string, readonly bool) (*os.File, error) {
	at, err := openDir(path)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	m, err := mount.Clone(at, "", false)
	if err != nil {
		return nil, err
	}
	a := mount.Attr{Set: attrs, Propagation: unix.MS_PRIVATE}
	if readonly {
		a.Set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := mount.SetAttr(m, false, a); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Detached makes a detached mount of any root file system. Overlays over detached layers need Linux 6.15; before that
// a thread in a mount namespace of its own attaches the layers for the moment.
func Detached(r bundle.Rootfs) (*os.File, error) {
	m, err := overFiles(r)
	if err == nil || !(errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EBADF)) {
		return m, err
	}
	old, oldErr := overPaths(r)
	if oldErr != nil {
		return nil, errors.Join(err, oldErr)
	}
	return old, nil
}

// overFiles gives overlayfs its layers as descriptors.
func overFiles(r bundle.Rootfs) (*os.File, error) {
	var params []mount.Param
	for _, l := range r.Lower {
		f, err := open(l)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		params = append(params, mount.Param{Key: "lowerdir+", File: f})
	}
	a := attrs
	if r.Upper == "" {
		a |= unix.MOUNT_ATTR_RDONLY
		return overlay(a, params)
	}
	for _, d := range []struct{ key, path string }{{"upperdir", r.Upper}, {"workdir", r.Work}} {
		f, err := openDir(d.path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		params = append(params, mount.Param{Key: d.key, File: f})
	}
	return overlay(a, append(params, upperPlain()...))
}

// upperPlain is what oci/compile mounts a writable layer with, too: nothing that the host's module parameters say gets into it.
func upperPlain() []mount.Param {
	return []mount.Param{{Key: "redirect_dir", Value: "off"}, {Key: "metacopy", Value: "off"}, {Key: "index", Value: "off"}}
}

func overlay(a int, params []mount.Param) (*os.File, error) {
	return mount.Make("overlay", a, append([]mount.Param{{Key: "source", Value: "dhow"}}, params...)...)
}

func open(l bundle.Layer) (*os.File, error) {
	switch {
	case l.Mounted != "":
		return openAs(l.Mounted, 0)
	case l.Type == layer.FormErofs:
		return layer.MountErofs(l.Source, l.Devices, l.Loop)
	}
	return openDir(l.Source)
}

func openDir(path string) (*os.File, error) { return openAs(path, unix.O_NOFOLLOW) }

func openAs(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// overPaths does the same by paths, on a thread that leaves the host's mount namespace and then ends.
func overPaths(r bundle.Rootfs) (m *os.File, err error) {
	err = mount.Apart(func() error {
		m, err = attachAndMount(r)
		return err
	})
	return m, err
}

func attachAndMount(r bundle.Rootfs) (*os.File, error) {
	if err := mount.Private(); err != nil {
		return nil, err
	}
	tmp, err := mount.Make("tmpfs", 0, mount.Param{Key: "size", Value: "4m"})
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	if err := mount.AttachAt(tmp, r.Scratch); err != nil {
		return nil, err
	}
	// Short names, seen from the folder that this thread works in: a value has at most 255 bytes (fsconfig(2)), all of them together a
	// page (mount(2)), and images have up to 128 layers.
	if err := unix.Chdir(r.Scratch); err != nil {
		return nil, &os.PathError{Op: "chdir", Path: r.Scratch, Err: err}
	}
	var params []mount.Param
	for n, l := range r.Lower {
		name := strconv.Itoa(n)
		if l.Type == layer.FormErofs {
			err = attachLayer(l, filepath.Join(r.Scratch, name))
		} else {
			err = os.Symlink(l.Source, filepath.Join(r.Scratch, name))
		}
		if err != nil {
			return nil, err
		}
		params = append(params, mount.Param{Key: "lowerdir+", Value: name})
	}
	a := attrs
	if r.Upper == "" {
		a |= unix.MOUNT_ATTR_RDONLY
	} else {
		for _, d := range [][2]string{{"upperdir", r.Upper}, {"workdir", r.Work}} {
			if err := os.Symlink(d[1], filepath.Join(r.Scratch, d[0])); err != nil {
				return nil, err
			}
			params = append(params, mount.Param{Key: d[0], Value: d[0]})
		}
		params = append(params, upperPlain()...)
	}
	m, err := overlay(a, params)
	if errors.Is(err, unix.EINVAL) { // before 6.8 there is only the one list
		m, err = classic(filepath.Join(r.Scratch, "root"), a, joined(params))
	}
	return m, err
}

// classic mounts an overlay as mount(2) does, at a folder that it makes, and clones the mount.
func classic(at string, attrs int, data string) (*os.File, error) {
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("dhow", at, "overlay", flags, data); err != nil {
		return nil, fmt.Errorf("mount overlay: %s: %w", data, err)
	}
	return mount.Clone(nil, at, false)
}

func attachLayer(l bundle.Layer, path string) error {
	l.Mounted = "" // what is shared can be attached nowhere
	m, err := open(l)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return mount.AttachAt(m, path)
}

// joined is the parameters as mount(2) takes them, with one lowerdir. The names hold neither commas nor colons.
func joined(params []mount.Param) string {
	var lower, rest []string
	for _, p := range params {
		if p.Key == "lowerdir+" {
			lower = append(lower, p.Value)
		} else {
			rest = append(rest, p.Key+"="+p.Value)
		}
	}
	return strings.Join(append([]string{"lowerdir=" + strings.Join(lower, ":")}, rest...), ",")
}
