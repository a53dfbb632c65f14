// Package rootfs owns what the engine itself reads and writes inside a container's root file system: the user files, the working
// folder, and a new volume's first content.
//
// It promises to reach everything through one handle on a detached mount, so that no link of the image leads out of it. It must
// never run anything found there.
package rootfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/container/passwd"
	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// Root is a container's root file system.
type Root struct{ r *safepath.Root }

// New takes a detached mount, which it then owns.
func New(f *os.File) *Root { return &Root{r: safepath.FromFile(f)} }

// Close lets the mount go.
func (r *Root) Close() error { return r.r.Close() }

// Inside is the root file system of a running container as its process sees it, without what is mounted in it, detached and read-only.
func Inside(pidfd *os.File) (*os.File, error) { return mount.RootOf(pidfd) }

// User finds who user is by the container's own files; absent files mean that only numbers are known.
func (r *Root) User(user string, extra []string) (passwd.User, error) {
	people, err := r.read("/etc/passwd")
	if err != nil {
		return passwd.User{}, err
	}
	groups, err := r.read("/etc/group")
	if err != nil {
		return passwd.User{}, err
	}
	return passwd.Resolve(user, extra, people, groups)
}

func (r *Root) read(p string) (io.Reader, error) {
	b, err := r.r.ReadFile(p, passwd.Limit)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "read the container's %s: %w", p, err)
	}
	return bytes.NewReader(b), nil
}

// MakeDir makes the folder p and what is missing above it, as Docker does for a working folder.
func (r *Root) MakeDir(p string) error {
	h, err := r.r.MkdirAll(p, 0o755)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "make the working folder %s in the container: %w", p, err)
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return errdef.New(errdef.InvalidArgument, "working folder %s: the image has a file of that name", p)
	}
	return nil
}
