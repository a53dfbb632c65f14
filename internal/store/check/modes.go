package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// most is the mode that a file or folder of the store may have at most, by its path below the data root.
func most(path string, folder bool) uint32 {
	switch {
	case path == ".", path == "layers/empty": // others pass through the one, the other is a root folder of containers
		return 0o755
	case folder:
		return 0o700
	case filepath.Base(path) == "layer.tar": // may have a second name in an OCI layout that others read
		return 0o644
	}
	return 0o600
}

// theirs tells whether a folder and what is in it have the modes that an image or a container wants.
func theirs(path string) bool {
	parts := strings.Split(path, "/")
	switch name := parts[len(parts)-1]; parts[0] {
	case "layers":
		return len(parts) == 4 && name == "fs"
	case "snapshots":
		return len(parts) == 3 && (name == "fs" || name == "upper" || name == "work") || len(parts) == 2 && name[0] == '.'
	}
	return false
}

// modes is the part of a check that looks whether others than the engine may do more with the store's files and folders than they should.
type modes struct{ *run }

func (u modes) all() error {
	root, err := safepath.OpenRoot(u.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, top := range []string{"", "meta.db", "content", "layers", "snapshots", "quarantine"} {
		err := filepath.WalkDir(filepath.Join(u.Root, top), func(p string, e fs.DirEntry, err error) error {
			path := u.short(p)
			switch {
			case errors.Is(err, fs.ErrNotExist): // removed meanwhile
				return nil
			case err != nil:
				return err
			case e.IsDir() && theirs(path):
				return fs.SkipDir
			case e.IsDir() || e.Type().IsRegular(): // all else is told by those who read it
				if err := u.one(root, path); err != nil {
					return err
				}
			}
			if path == "." || path == "layers/tmp" || path == "content/ingest" || path == "quarantine" {
				return fs.SkipDir
			}
			return u.ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (u modes) one(root *safepath.Root, path string) error {
	h, err := root.Handle(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer h.Close()
	st, err := safepath.Stat(h)
	if err != nil {
		return err
	}
	have, folder, me := st.Mode&0o7777, st.Mode&unix.S_IFMT == unix.S_IFDIR, uint32(os.Geteuid())
	want := most(path, folder)
	if folder {
		want |= unix.S_ISGID // by inheritance
	}
	if have&^want == 0 && st.Uid == me {
		return nil
	}
	f := Finding{Kind: Mode, Object: filepath.Base(path), Path: filepath.Join(u.Root, path),
		Problem: fmt.Sprintf("its mode is %04o and its owner %d, where at most %04o and %d are right", have, st.Uid, want&^unix.S_ISGID, me)}
	u.found(f, "sets mode and owner; look whether somebody has changed what they should not", func() (string, error) {
		if st.Uid != me {
			err = safepath.Chown(h, me, st.Gid)
		}
		if err == nil {
			err = safepath.Chmod(h, have&want)
		}
		return "mode and owner are set", err
	})
	return nil
}
