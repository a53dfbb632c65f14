// Package upper owns the reading of a writable layer: what an overlayfs upper folder says against the layers below it.
//
// It promises that Walk tells every change once, parents first, in byte order, without opening anything but folders, and that Layer
// writes a tar that, laid over the same layers, shows what the container saw. It must never change the folder, nor follow a link.
package upper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
)

// Kind is what happened to a path, numbered as in Docker's API.
type Kind int

// Kinds of change.
const (
	Modified Kind = iota
	Added
	Deleted
)

// Change is one path that is not as the layers below have it.
type Change struct {
	Kind Kind
	Path string      // clean, without a leading slash; "" is the root, told only when its attributes changed
	File *os.File    // O_PATH handle in the upper folder, for the time of the call; nil when Deleted
	Stat unix.Stat_t // of File
	// Below is a handle of what the layers have at Path, for the time of the call; nil unless both are folders.
	Below *os.File
	// Opaque: a folder that was made anew over one of the layers below. What it hides is told as Deleted and Hidden.
	Opaque bool
	// Hidden: deleted by an opaque folder, without a whiteout of its own.
	Hidden bool
}

// Walk tells the changes of the upper folder up against low, the merged tree of the layers below it (nil: there are none). Entries
// that vanish meanwhile are left out. An error of f ends the walk.
func Walk(ctx context.Context, up, low *os.File, f func(Change) error) error {
	st, err := safepath.Stat(up)
	if err != nil {
		return err
	}
	w := &walk{ctx: ctx, f: f, attr: make([]byte, safepath.MaxXattr)}
	same := false
	if low != nil {
		if same, err = sameFolder(up, low, st); err != nil {
			return err
		}
	}
	if !same {
		if err := f(Change{Kind: Modified, File: up, Stat: st, Below: low}); err != nil {
			return err
		}
	}
	return w.dir(up, low, "", false, 0)
}

// sameFolder compares what a layer can say about two folders.
func sameFolder(a, b *os.File, sa unix.Stat_t) (bool, error) {
	sb, err := safepath.Stat(b)
	if err != nil || sa.Mtim != sb.Mtim {
		return false, err
	}
	return sameButTime(a, b, sa, sb)
}

// Untouched compares the folder of a Change with the one below it: all that a layer can say of them but the time of modification, and that.
func (c Change) Untouched() (all, mtime bool, err error) {
	st, err := safepath.Stat(c.Below)
	if err != nil {
		return false, false, err
	}
	all, err = sameButTime(c.File, c.Below, c.Stat, st)
	return all, c.Stat.Mtim == st.Mtim, err
}

func sameButTime(a, b *os.File, sa, sb unix.Stat_t) (bool, error) {
	if sa.Mode != sb.Mode || sa.Uid != sb.Uid || sa.Gid != sb.Gid {
		return false, nil
	}
	xa, err := attributes(a)
	if err != nil {
		return false, err
	}
	xb, err := attributes(b)
	if err != nil || len(xa) != len(xb) {
		return false, err
	}
	for k, v := range xa {
		if w, ok := xb[k]; !ok || v != w {
			return false, nil
		}
	}
	return true, nil
}

func attributes(h *os.File) (map[string]string, error) {
	names, err := safepath.Listxattr(h)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range names {
		if !pack.Kept(n) {
			continue
		}
		v, err := safepath.Getxattr(h, n)
		if err != nil {
			return nil, err
		}
		out[n] = string(v)
	}
	return out, nil
}

type walk struct {
	ctx  context.Context
	f    func(Change) error
	attr []byte
}

// dir tells the changes in one folder. opaque hides everything of low that up does not name.
func (w *walk) dir(up, low *os.File, path string, opaque bool, depth int) error {
	if depth > pack.MaxDepth {
		return errdef.New(errdef.InvalidArgument, "%.100q...: folders nested deeper than %d", path, pack.MaxDepth)
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	names, err := pack.Names(up)
	if err != nil {
		return fmt.Errorf("read folder /%s: %w", path, err)
	}
	if opaque {
		if err := w.hidden(low, path, names); err != nil {
			return err
		}
	}
	for _, n := range names {
		if err := w.entry(up, low, path, n, depth); err != nil {
			return err
		}
	}
	return nil
}

// hidden tells what an opaque folder covers.
func (w *walk) hidden(low *os.File, path string, names []string) error {
	mine := make(map[string]bool, len(names))
	for _, n := range names {
		mine[n] = true
	}
	old, err := pack.Names(low)
	if err != nil {
		return fmt.Errorf("read folder /%s of the layers: %w", path, err)
	}
	for _, n := range old {
		if !mine[n] {
			if err := w.f(Change{Kind: Deleted, Path: pack.Join(path, n), Hidden: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) entry(up, low *os.File, dir, name string, depth int) error {
	path := pack.Join(dir, name)
	h, st, err := pack.Open(up, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open /%s: %w", path, err)
	}
	defer h.Close()
	c := Change{Kind: Added, Path: path, File: h, Stat: st}
	var old *os.File // the folder below, when there is one
	if low != nil {
		l, lst, err := pack.Open(low, name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("open /%s of the layers: %w", path, err)
		}
		if err == nil {
			defer l.Close()
			c.Kind = Modified
			if lst.Mode&unix.S_IFMT == unix.S_IFDIR {
				old = l
				if st.Mode&unix.S_IFMT == unix.S_IFDIR {
					c.Below = l
				}
			}
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 { // a whiteout
		if c.Kind == Added {
			return nil
		}
		return w.f(Change{Kind: Deleted, Path: path})
	}
	return w.object(c, old, depth)
}

// object tells of something that is there, and of what is in it.
func (w *walk) object(c Change, old *os.File, depth int) error {
	for _, a := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		if v, err := w.get(c.File, a); err != nil || v != nil {
			if err == nil {
				err = errdef.New(errdef.NotImplemented, "/%s has %s, which an overlay mounted with redirect_dir or metacopy wrote: copy out what is needed and make the container anew", c.Path, a)
			}
			return err
		}
	}
	isDir := c.Stat.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && old != nil {
		v, err := w.get(c.File, "trusted.overlay.opaque")
		if err != nil {
			return err
		}
		c.Opaque = string(v) == "y"
	}
	if err := w.f(c); err != nil || !isDir {
		return err
	}
	return w.dir(c.File, old, c.Path, c.Opaque, depth+1)
}

// get returns an attribute, nil when there is none.
func (w *walk) get(h *os.File, name string) ([]byte, error) {
	n, err := unix.Getxattr(safepath.ProcPath(h), name, w.attr)
	switch err {
	case nil:
		return w.attr[:n:n], nil
	case unix.ENODATA, unix.EOPNOTSUPP:
		return nil, nil
	}
	return nil, fmt.Errorf("read attribute %s: %w", name, err)
}

// Layer writes the changes that changes tells as a layer's tar and tells how many entries it has.
func Layer(ctx context.Context, changes func(func(Change) error) error, out io.Writer) (entries int, err error) {
	w := pack.New(ctx, out)
	err = changes(func(c Change) error {
		dir, name := split(c.Path)
		if strings.HasPrefix(name, pack.Whiteout) {
			return errdef.New(errdef.InvalidArgument, "/%s: names that begin with %s have a meaning of their own in layers: remove or rename it", c.Path, pack.Whiteout)
		}
		switch {
		case c.Hidden:
			return nil
		case c.Kind == Deleted, c.Kind == Modified && c.Stat.Mode&unix.S_IFMT == unix.S_IFSOCK: // what tars don't have hides as well
			return w.Hide(dir, name)
		}
		if err := w.Add(c.Path, c.File, c.Stat); err != nil {
			return err
		}
		if c.Opaque {
			return w.HideAll(c.Path)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return w.Entries(), w.Close()
}

func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
