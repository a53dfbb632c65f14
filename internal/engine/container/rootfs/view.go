package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// Place is a folder or file of the host's and where it is mounted in a container.
type Place struct {
	Source, Target    string
	ReadOnly, Shallow bool // Shallow: without what is mounted below Source
	NoFollow          bool // Source itself may not be a link
}

// ErrNoTarget says that a view has nothing to mount a place on.
var ErrNoTarget = errors.New("no mount point")

// View puts places on a detached mount, which it takes over, as they lie in a running container. The result is seen by nobody and
// gone with its descriptor. With make missing mount points are made; without it they are ErrNoTarget. scratch is an empty folder of the
// host's, for kernels before 6.15: they attach nothing to a detached mount, so a thread in a mount namespace of its own does it there.
func View(root *os.File, places []Place, make bool, scratch string) (*os.File, error) {
	places = slices.Clone(places)
	slices.SortStableFunc(places, func(a, b Place) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	done, err := attach(root, places, make)
	if err == nil {
		return root, nil
	}
	if done > 0 || !errors.Is(err, unix.EINVAL) {
		root.Close()
		return nil, err
	}
	return viewApart(root, places, make, scratch)
}

func viewApart(root *os.File, places []Place, make bool, scratch string) (whole *os.File, err error) {
	defer root.Close()
	err = mount.Apart(func() error {
		if err := mount.Private(); err != nil {
			return err
		}
		if err := mount.AttachAt(root, scratch); err != nil {
			return err
		}
		if _, err := attach(root, places, make); err != nil {
			return err
		}
		whole, err = mount.Clone(root, "", true)
		return err
	})
	return whole, err
}

// attach returns how many places it has attached.
func attach(root *os.File, places []Place, make bool) (int, error) {
	in := safepath.FromFile(root) // not closed
	for n, p := range places {
		if err := attachOne(in, p, make); err != nil {
			return n, fmt.Errorf("mount %s on the container's %s: %w", p.Source, p.Target, err)
		}
	}
	return len(places), nil
}

func attachOne(in *safepath.Root, p Place, make bool) error {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if p.NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(p.Source, flags, 0)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "open the source: %w", err)
	}
	src := os.NewFile(uintptr(fd), p.Source)
	defer src.Close()
	st, err := safepath.Stat(src)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return errdef.New(errdef.InvalidArgument, "the source is a symbolic link")
	}
	isDir := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	target, err := targetOf(in, p.Target, isDir, make)
	if err != nil {
		return err
	}
	defer target.Close()
	m, err := mount.Clone(src, "", !p.Shallow)
	if err != nil {
		return err
	}
	defer m.Close()
	// Private, or what is attached below it would show on the host where the source's mount is shared.
	a := mount.Attr{Propagation: unix.MS_PRIVATE}
	if p.ReadOnly {
		a.Set = unix.MOUNT_ATTR_RDONLY
	}
	if err := mount.SetAttr(m, true, a); err != nil {
		return err
	}
	return mount.Attach(m, target)
}

// targetOf opens what a place is mounted on.
func targetOf(in *safepath.Root, p string, isDir, make bool) (*os.File, error) {
	h, err := in.Handle(p, true)
	if errors.Is(err, os.ErrNotExist) {
		switch {
		case !make:
			return nil, ErrNoTarget
		case isDir:
			return in.MkdirAll(p, 0o755)
		}
		dir, err := in.MkdirAll(path.Dir(path.Clean("/"+p)), 0o755)
		if err != nil {
			return nil, err
		}
		at := safepath.FromFile(dir)
		defer at.Close()
		f, err := at.Create(path.Base(p), 0o644)
		if err != nil {
			return nil, err
		}
		f.Close()
		return at.Handle(path.Base(p), false)
	}
	if err != nil {
		return nil, err
	}
	st, err := safepath.Stat(h)
	if err == nil && (st.Mode&syscall.S_IFMT == syscall.S_IFDIR) != isDir {
		err = errdef.New(errdef.InvalidArgument, "a folder and a file cannot be mounted on each other")
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Top is a handle of the root of a process's mount namespace; paths below it see what is mounted in there.
func Top(pidfd *os.File) (*os.File, error) { return mount.TopOf(pidfd) }

// Copy is a copy of all mounts of a process's mount namespace, as they are now.
func Copy(pidfd *os.File) (*os.File, error) { return mount.CopyOf(pidfd) }

// Still has nothing act any more on mounts that are seen by nobody else: devices, programs, setuid bits.
func Still(view *os.File) error {
	return mount.SetAttr(view, true, mount.Attr{Set: mount.Inert, Propagation: unix.MS_PRIVATE})
}

// Freeze makes a view read-only, but for the places on it.
func Freeze(view *os.File) error {
	return mount.SetAttr(view, false, mount.Attr{Set: unix.MOUNT_ATTR_RDONLY})
}
