// Package unpack owns trees as files, the unpacked forms of layers: their writing, and whether they are what a tree says.
//
// It promises that nothing is made outside of the folder that a tree goes into, whatever the tree says, and that what takes only the
// capabilities that files need is done by a process that is locked in (linux/jail), where it is told so. It must never give a folder its
// final name, nor clean up after a failure: that is the store's.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Unpacker unpacks the layers of a store.
type Unpacker struct {
	Dir  string // the store's, with all tars below it
	Word string // of the process that does the work, a Trade of jail.Main; "" is this one
}

// How says how a tree becomes files.
type How struct {
	Tars      []*os.File // where the contents are: the tars of a chain, lowest first
	Folder    string     // or a folder that holds the files under the same paths
	Whiteouts bool       // the result is a layer for overlayfs
	// Old is what the folder holds already: another chain's tree, of which so many of the lowest layers are the same.
	Old    *tree.Table
	Common int
}

// Into puts a tree into the folder dest, beside which temporary files may be made, and syncs it.
func (u Unpacker) Into(ctx context.Context, dest string, t *tree.Table, how How) error {
	if err := u.into(ctx, dest, t, how); err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	return nil
}

func (u Unpacker) into(ctx context.Context, dest string, t *tree.Table, how How) error {
	d, err := os.Open(dest) // before anything is written, so that the sync tells of all errors
	if err != nil {
		return err
	}
	defer d.Close()
	root, err := safepath.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	if how.Old != nil {
		if err := barred(root, how.Old, false, unset); err != nil {
			return err
		}
	}
	if u.Word != "" {
		err = u.apart(ctx, dest, t, how)
	} else {
		err = here(root, t, how)
	}
	if err != nil {
		return err
	}
	err = barred(root, t, how.Whiteouts, func(h *os.File, x tree.Xattr) error { return safepath.Setxattr(h, x.Name, []byte(x.Value)) })
	if err != nil {
		return err
	}
	return unix.Syncfs(int(d.Fd())) // one call for all the files
}

func unset(h *os.File, x tree.Xattr) error {
	if err := safepath.Removexattr(h, x.Name); !errors.Is(err, unix.ENODATA) { // another name of the same file
		return err
	}
	return nil
}

// barred calls f for every attribute that only CAP_SYS_ADMIN may set: other programs' of the trusted and security kinds, and where whiteouts
// are wanted that by which overlayfs knows opaque directories.
func barred(root *safepath.Root, t *tree.Table, whiteouts bool, f func(*os.File, tree.Xattr) error) error {
	return tree.Each(t, func(path string, i *tree.Inode) error {
		var list []tree.Xattr
		if whiteouts && i.IsDir() && i.Dir.Opaque {
			list = append(list, tree.Xattr{Name: "trusted.overlay.opaque", Value: "y"})
		}
		for _, x := range i.Xattrs {
			if isBarred(x.Name) {
				list = append(list, x)
			}
		}
		if len(list) == 0 {
			return nil
		}
		h, err := root.Handle(path, false)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, x := range list {
			if err := f(h, x); err != nil {
				return err
			}
		}
		return nil
	})
}

func isBarred(name string) bool {
	return strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "security.") && name != capability
}

const capability = "security.capability"

func here(root *safepath.Root, t *tree.Table, how How) error {
	u := &unpacker{root: root, from: tars(how.Tars), whiteouts: how.Whiteouts, common: how.Common}
	if how.Folder != "" {
		f, err := openFolder(how.Folder)
		if err != nil {
			return err
		}
		defer f.Close()
		u.from = f
	}
	if how.Old != nil {
		u.old = how.Old.Tree()
	}
	return u.all(t.Tree())
}
