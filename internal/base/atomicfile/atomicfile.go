// Package atomicfile owns how a small durable file comes to be, whole or not at all, and how it is opened again.
//
// It promises that after Write returns nil the new content survives a power loss, and that before that a reader sees the old
// file or none. It must never leave a temporary file behind after an error, and never follow a symbolic link at the target.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces path by data with the given permission bits: temporary file, fsync, rename, fsync of the folder.
func Write(path string, data []byte, perm os.FileMode) error {
	if err := WriteVolatile(path, data, perm, true); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteVolatile replaces path like Write; without sync it is atomic for readers but may be lost with the power.
// It is meant for files under /run, which a reboot forgets anyway, and what is made anew.
func WriteVolatile(path string, data []byte, perm os.FileMode, sync bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if sync {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SyncDir makes the entries of a folder durable (fsync(2) on the directory).
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}
