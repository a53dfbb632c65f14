package layer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// erofsForm unpacks nothing: an EROFS image over the tars of each chain.
type erofsForm struct {
	tarOnly
	s    *Store
	loop bool
}

func (f erofsForm) name() string {
	if f.loop {
		return FormLoop
	}
	return FormErofs
}

// usable mounts an empty image over an empty tar, and an overlay.
func (f erofsForm) usable(dir string) error {
	index, tar := filepath.Join(dir, indexFile), filepath.Join(dir, tarFile)
	if err := os.WriteFile(tar, make([]byte, 1024), 0o600); err != nil {
		return err
	}
	err := writeFile(index, func(w *os.File) error {
		_, err := erofs.Write(w, tree.NewDir(), []erofs.Device{{Size: 1024}})
		return err
	})
	if err != nil {
		return err
	}
	m, err := MountErofs(index, []string{tar}, f.loop)
	if err != nil {
		return err
	}
	m.Close()
	return overlays(dir)
}

func (f erofsForm) chain(_ context.Context, dir string, l *laid) error {
	return writeFile(filepath.Join(dir, indexFile), func(w *os.File) error {
		_, err := erofs.WriteTable(w, l.table, l.devices)
		return err
	})
}

func (f erofsForm) verifyChain(dir string, l *laid) (file, what string, err error) {
	file = filepath.Join(dir, indexFile)
	what, err = sameImage(file, l.table, l.devices)
	return file, what, err
}

func (f erofsForm) mounts(dir string, m *Merged, i *mergedInfo) {
	m.Index = filepath.Join(dir, indexFile)
	for _, d := range i.Chain {
		m.Devices = append(m.Devices, f.s.path(d, tarFile))
	}
	m.Lower = []bundle.Layer{{Type: FormErofs, Source: m.Index, Devices: m.Devices, Loop: f.loop}}
}

func device(id digest.Digest, size int64) erofs.Device {
	d := erofs.Device{Size: size}
	copy(d.Tag[:], id.Encoded())
	return d
}

// MountErofs makes a detached read-only mount of an image, directly from the files or by way of loop devices, which go when the
// mount goes.
func MountErofs(index string, devices []string, loop bool) (*os.File, error) {
	params := []mount.Param{{Key: "source", Value: index}}
	for _, d := range devices {
		params = append(params, mount.Param{Key: "device", Value: d})
	}
	if loop {
		for i := range params {
			dev, err := loopOver(params[i].Value)
			if err != nil {
				return nil, err
			}
			defer dev.Close()
			params[i].Value = dev.Name()
		}
		return mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, append(params, mount.Param{Key: "ro"})...)
	}
	m, err := mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, append(params, mount.Param{Key: "ro"})...)
	if err != nil {
		return nil, errdef.New(errdef.KindOf(err), "layer index %s: %w", index, err)
	}
	return m, nil
}

func loopOver(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	defer f.Close()
	return mount.Loop(f)
}
