package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// MaxDepth bounds how deep folders may lie in each other: each level holds a descriptor or two.
const MaxDepth = 1000

// Tree writes everything below root, a folder or detached mount, to out: the root as "./", then names in byte order. What vanishes
// meanwhile is left out. There must be no mounts below root.
func Tree(ctx context.Context, root *os.File, out io.Writer) error {
	w := New(ctx, out)
	st, err := safepath.Stat(root)
	if err != nil {
		return err
	}
	if err := w.Add("", root, st); err != nil {
		return err
	}
	if err := w.tree(root, "", 0); err != nil {
		return err
	}
	return w.Close()
}

func (w *Writer) tree(dir *os.File, path string, depth int) error {
	if depth > MaxDepth {
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", path, MaxDepth)
	}
	names, err := Names(dir)
	if err != nil {
		return fmt.Errorf("read folder /%s: %w", path, err)
	}
	for _, n := range names {
		if err := w.entry(dir, path, n, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) entry(dir *os.File, path, name string, depth int) error {
	h, st, err := Open(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open /%s: %w", Join(path, name), err)
	}
	defer h.Close()
	path = Join(path, name)
	if err := w.Add(path, h, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return w.tree(h, path, depth+1)
}

// Join joins clean paths; "" is the root.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// Open returns a handle (O_PATH) on an entry of a folder, and what it is. Nothing is followed, opened or triggered.
func Open(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	h := os.NewFile(uintptr(fd), name)
	st, err := safepath.Stat(h)
	if err != nil {
		h.Close()
		return nil, st, err
	}
	return h, st, nil
}

// Names lists a folder, of which dir may be any handle, in byte order.
func Names(dir *os.File) ([]string, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), dir.Name())
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
