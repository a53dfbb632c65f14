package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/btrfs"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Forms of layers. The first two and bundle.Layer's types share their names.
const (
	FormErofs = "erofs"      // the tar as it is, and an EROFS index over it, mounted from the files
	FormDir   = "dir"        // an unpacked folder, besides the tar, for overlayfs
	FormLoop  = "erofs-loop" // as erofs, mounted through loop devices
	FormBtrfs = "btrfs"      // a chain is a read-only subvolume, a container a snapshot of it
	FormVFS   = "vfs"        // a chain is a folder, a container a copy of it (by reference where the file system can)
)

// Forms returns the names of all forms, the best first.
func Forms() []string { return []string{FormErofs, FormLoop, FormBtrfs, FormDir, FormVFS} }

// form is one way to hand a chain of layers to the kernel.
type form interface {
	name() string
	// usable says whether kernel and file system can do it, with a folder to try in.
	usable(dir string) error
	// beside is the name of what lies beside a layer's tar; "" where that is nothing.
	beside() string
	// layer makes that in dir, synced.
	layer(ctx context.Context, dir string, t *tree.Table, tar *os.File, i Info) error
	// verify compares it with what the tar says; what tells where they part. That it is absent is no difference.
	verify(path string, d derived) (what string, err error)
	// chain makes in dir, synced, what is kept of a chain.
	chain(ctx context.Context, dir string, l *laid) error
	// verifyChain compares that with its layers.
	verifyChain(dir string, l *laid) (file, what string, err error)
	// mounts tells what is mounted of a chain that is kept in dir.
	mounts(dir string, m *Merged, i *mergedInfo)
}

// tarOnly is for forms that keep nothing beside a layer's tar.
type tarOnly struct{}

func (tarOnly) beside() string                                                   { return "" }
func (tarOnly) layer(context.Context, string, *tree.Table, *os.File, Info) error { return nil }
func (tarOnly) verify(string, derived) (what string, err error)                  { return "", nil }

// newForm returns a form by name, nil for a name that is none. The family that keeps the same files has one name on disk, kind.
func newForm(s *Store, name string) (f form, kind string) {
	switch name {
	case FormErofs:
		return erofsForm{s: s}, FormErofs
	case FormLoop:
		return erofsForm{s: s, loop: true}, FormErofs
	case FormDir:
		return dirForm{s}, FormDir
	case FormBtrfs:
		return flatForm{s: s, volumes: true}, FormBtrfs
	case FormVFS:
		return flatForm{s: s}, FormVFS
	}
	return nil, ""
}

// choose takes the form asked for, or the first that works here.
func choose(s *Store, name string) (err error) {
	if name != "" {
		if s.form, s.kind = newForm(s, name); s.form == nil {
			return errdef.New(errdef.InvalidArgument, "layer form %q: want one of %q", name, Forms())
		}
		return nil
	}
	dir, drop, err := s.stage("probe")
	if err != nil {
		return err
	}
	defer drop()
	var errs []error
	for _, n := range Forms() {
		s.form, s.kind = newForm(s, n)
		sub := filepath.Join(dir, n)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return fmt.Errorf("probe layer forms: %w", err)
		}
		if err = s.form.usable(sub); err == nil {
			return nil
		}
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) { // this says nothing about the form
			return fmt.Errorf("probe layer forms: %w", err)
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("no form of layers works here: %w", errors.Join(errs...))
}

// Usable says why this store's form cannot be mounted here; nil when it can.
func (s *Store) Usable() error {
	dir, drop, err := s.stage("probe")
	if err != nil {
		return err
	}
	defer drop()
	if err := s.form.usable(dir); err != nil {
		return errdef.New(errdef.Unavailable, "layers in the form %q cannot be used in %s: %w", s.form.name(), s.dir, err)
	}
	return nil
}

// overlays says whether overlayfs takes a writable folder in dir.
func overlays(dir string) error {
	params := []mount.Param{{Key: "source", Value: "dhow"}}
	for _, k := range []string{"lowerdir", "upperdir", "workdir"} {
		p := filepath.Join(dir, k)
		if err := os.Mkdir(p, 0o700); err != nil {
			return err
		}
		fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		params = append(params, mount.Param{Key: k, Value: fmt.Sprintf("/proc/self/fd/%d", fd)}) // a value has at most 255 bytes
	}
	m, err := mount.Make("overlay", 0, params...)
	if err != nil {
		return err
	}
	return m.Close()
}

// makeFolder makes the folder of a new tree: a subvolume, where volumes are asked for.
func makeFolder(dest string, volume bool) error {
	if volume {
		return btrfs.Create(dest)
	}
	return os.Mkdir(dest, 0o700)
}

// RemoveTree removes a folder with all in it, subvolumes named fs in it or in a folder of it at once.
func RemoveTree(dir string) error {
	at := []string{filepath.Join(dir, fsDir)}
	inside, _ := os.ReadDir(dir)
	for _, e := range inside {
		at = append(at, filepath.Join(dir, e.Name(), fsDir))
	}
	for _, p := range at {
		if btrfs.Is(p) {
			if err := btrfs.Remove(p); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir) // an unpacked layer, too: root may remove below folders of any mode
}

// flat reports whether chains are folders that are whole.
func flat(s *Store) bool { _, ok := s.form.(flatForm); return ok }

// reshape adds this store's form to a layer that was ingested in another.
func (s *Store) reshape(ctx context.Context, id digest.Digest) error {
	have := s.path(id, s.form.beside())
	if _, err := os.Lstat(have); err == nil {
		return nil
	}
	d, err := sound(ctx, s, id) // what is unpacked is verified once more
	if err != nil {
		return err
	}
	tar, err := s.OpenTar(id)
	if err != nil {
		return err
	}
	defer tar.Close()
	dir, drop, err := s.stage("shape")
	if err != nil {
		return err
	}
	defer drop()
	if err := s.form.layer(ctx, dir, d.root, tar, d.info); err != nil {
		return err
	}
	return publish(filepath.Join(dir, filepath.Base(have)), have)
}

// tree reads a layer's tree back.
func (s *Store) tree(id digest.Digest) (*tree.Inode, error) {
	b, err := readFile(s.path(id, treeFile), maxTree)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	root, err := tree.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id, err)
	}
	return root, nil
}
