// Package btrfs owns what of btrfs has no other door in the kernel: subvolumes, made, copied and removed by ioctl.
//
// It promises that a copy shares all contents with its original until either changes, and that what is removed is gone whatever lies in it.
// It must never start a program of btrfs-progs, nor look at another file system.
package btrfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// On reports whether a folder lies on btrfs.
func On(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC
}

// firstInode is the inode number of every subvolume's root, and of nothing else (BTRFS_FIRST_FREE_OBJECTID).
const firstInode = 256

// Is reports whether a path is a subvolume; links are not followed.
func Is(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Ino == firstInode && st.Mode&unix.S_IFMT == unix.S_IFDIR && On(path)
}

// Create makes an empty subvolume.
func Create(path string) error {
	return at(path, "create", func(dir int, name string) error { return subvolCreate(dir, name) })
}

// Snapshot makes a subvolume that holds what another does; subvolumes in it are empty folders there.
func Snapshot(from, path string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return at(path, "snapshot "+from+" to", func(dir int, name string) error { return snapCreate(dir, name, int(src.Fd())) })
}

// Seal makes a subvolume read-only.
func Seal(path string) error { return seal(path, true) }

func seal(path string, readonly bool) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := setReadonly(int(d.Fd()), readonly); err != nil {
		return &os.PathError{Op: "make subvolume read-only", Path: path, Err: err}
	}
	return nil
}

// Remove removes a subvolume with all in it. Nobody may change it meanwhile.
func Remove(path string) error {
	destroy := func() error {
		return at(path, "destroy", func(dir int, name string) error { return snapDestroy(dir, name) })
	}
	err := destroy()
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	// Somebody made subvolumes in it, which anybody may.
	if err := seal(path, false); err != nil {
		return err
	}
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == path || !d.IsDir() || !Is(p) {
			return err
		}
		if err := Remove(p); err != nil {
			return err
		}
		return filepath.SkipDir
	})
	if err != nil {
		return err
	}
	return destroy()
}

func at(path, op string, f func(dir int, name string) error) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	name := filepath.Base(path)
	if len(name) > unix.NAME_MAX {
		return &os.PathError{Op: op, Path: path, Err: unix.ENAMETOOLONG}
	}
	if err := f(int(d.Fd()), name); err != nil {
		return fmt.Errorf("%s subvolume %s: %w", op, path, err)
	}
	return nil
}
