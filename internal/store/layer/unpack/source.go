package unpack

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// source knows the contents of regular files. fill writes those of one that is empty.
type source interface {
	fill(f *os.File, path string, i *tree.Inode) error
}

// tars are the tars of a chain, lowest first, as Inode.Dev counts them.
type tars []*os.File

func (t tars) fill(f *os.File, _ string, i *tree.Inode) error {
	if int(i.Dev) >= len(t) {
		return errdef.New(errdef.DataLoss, "no tar number %d", i.Dev)
	}
	if err := i.Pieces(func(at, off, n int64) error { return copyRange(f, t[i.Dev], at, off, n) }); err != nil || i.Map == nil {
		return err
	}
	return f.Truncate(i.Size)
}

func copyRange(to, from *os.File, at, off, n int64) error {
	if _, err := from.Seek(off, io.SeekStart); err != nil {
		return err
	}
	if _, err := to.Seek(at, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, n)
	return err
}

// folder is a folder that holds the files under the same paths.
type folder struct{ *safepath.Root }

func openFolder(path string) (folder, error) {
	r, err := safepath.OpenRoot(path)
	return folder{r}, err
}

// fill shares the file's blocks where the file system can, and otherwise copies what is no hole.
func (d folder) fill(f *os.File, path string, i *tree.Inode) error {
	src, err := d.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	err = unix.IoctlFileClone(int(f.Fd()), int(src.Fd()))
	if err == nil || !slices.Contains([]error{unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS}, err) {
		return err
	}
	for at := int64(0); at < i.Size; {
		start, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		} else if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyRange(f, src, start, start, end-start); err != nil {
			return err
		}
		at = end
	}
	return f.Truncate(i.Size)
}
