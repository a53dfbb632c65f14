package layer

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/store/layer/erofs"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// shape writes the store's form of a layer into dir, synced.
func (s *Store) shape(dir string, t *tree.Table, tar *os.File, id digest.Digest, size int64) error {
	if s.form == FormDir {
		return unpackTo(filepath.Join(dir, fsDir), t.Tree(), []*os.File{tar}, true)
	}
	return writeFile(filepath.Join(dir, indexFile), func(f *os.File) error {
		_, err := erofs.WriteTable(f, t, []erofs.Device{device(id, size)}, erofs.Options{Whiteouts: true})
		return err
	})
}

func device(id digest.Digest, size int64) erofs.Device {
	d := erofs.Device{Size: size}
	copy(d.Tag[:], id.Encoded())
	return d
}

// reshape adds this store's form to a layer that was ingested in another.
func (s *Store) reshape(info Info) error {
	have := s.path(info.DiffID, formFile(s.form))
	if _, err := os.Lstat(have); err == nil {
		return nil
	}
	root, err := s.tree(info.DiffID)
	if err != nil {
		return err
	}
	tar, err := s.OpenTar(info.DiffID)
	if err != nil {
		return err
	}
	defer tar.Close()
	dir, drop, err := s.stage("shape")
	if err != nil {
		return err
	}
	defer drop()
	if err := s.shape(dir, tree.Of(root), tar, info.DiffID, info.Size); err != nil {
		return err
	}
	return publish(filepath.Join(dir, filepath.Base(have)), have)
}

// tree reads a layer's tree back.
func (s *Store) tree(id digest.Digest) (*tree.Inode, error) {
	b, err := os.ReadFile(s.path(id, treeFile))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	root, err := tree.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	return root, nil
}

// probe finds out what the kernel mounts, with an empty image over an empty tar: from files, else from loop devices, else folders.
func (s *Store) probe() (form string, loop bool, err error) {
	dir, drop, err := s.stage("probe")
	if err != nil {
		return "", false, err
	}
	defer drop()
	index, tar := filepath.Join(dir, indexFile), filepath.Join(dir, tarFile)
	if err := os.WriteFile(tar, make([]byte, 1024), 0o600); err != nil {
		return "", false, fmt.Errorf("probe layer form: %w", err)
	}
	f, err := os.OpenFile(index, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", false, fmt.Errorf("probe layer form: %w", err)
	}
	defer f.Close()
	if _, err := erofs.WriteTable(f, tree.NewTable(), []erofs.Device{{Size: 1024}}, erofs.Options{}); err != nil {
		return "", false, fmt.Errorf("probe layer form: %w", err)
	}
	for _, loop := range []bool{false, true} {
		if m, err := MountErofs(index, []string{tar}, loop); err == nil {
			m.Close()
			return FormErofs, loop, nil
		}
	}
	return FormDir, false, nil
}

// MountErofs makes a detached read-only mount of an image, directly from the files or by way of loop devices, which go when the
// mount goes. Where DirectIO says so, file contents are read past the tar's own page cache, not cached twice.
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
	params = append(params, mount.Param{Key: "ro"})
	err, m := error(unix.EINVAL), (*os.File)(nil)
	if DirectIO(append(devices[:len(devices):len(devices)], index)...) {
		m, err = mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, append(params, mount.Param{Key: "directio"})...)
	}
	if err != nil { // also on kernels that do not know the option (before 6.13)
		m, err = mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, params...)
	}
	if err != nil {
		return nil, errdef.New(errdef.KindOf(err), "layer index %s: %w", index, err)
	}
	return m, nil
}

// DirectIO reports whether all these files can be read directly in units of 512 bytes, which the mount option directio needs: reads
// would fail on disks with 4 KiB sectors otherwise.
func DirectIO(paths ...string) bool {
	for _, p := range paths {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_DIOALIGN, &st)
		if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_offset_align == 0 || st.Dio_offset_align > 512 {
			return false
		}
	}
	return true
}

func loopOver(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mount.Loop(f)
}
