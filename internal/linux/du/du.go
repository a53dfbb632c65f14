// Package du owns the counting of what files take on disk.
//
// It promises the figures of du(1): allocated blocks of everything below a folder and of the folder itself, a file with several names once,
// no link followed. It must never open a file.
package du

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Counter counts a file once, under whichever folder it is met first. Its zero value is ready.
type Counter struct {
	Bytes, Inodes int64

	seen map[inode]struct{}
}

type inode struct{ dev, ino uint64 }

// Add counts what is at path. What vanishes meanwhile is not counted, path itself must be there.
func (c *Counter) Add(path string) error {
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p != path {
				return nil
			}
			return err
		}
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil {
			c.Count(st)
		}
		return nil
	})
}

// Count counts a file by what stat(2) says of it.
func (c *Counter) Count(st unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if c.seen == nil {
			c.seen = map[inode]struct{}{}
		}
		k := inode{uint64(st.Dev), st.Ino}
		if _, dup := c.seen[k]; dup {
			return
		}
		c.seen[k] = struct{}{}
	}
	c.Bytes += st.Blocks * 512
	c.Inodes++
}

// Of is what a folder takes, 0 when it is not there.
func Of(path string) int64 {
	var c Counter
	_ = c.Add(path) // what could be read counts
	return c.Bytes
}
