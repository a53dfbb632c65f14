package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Verify compares unpacked layers with their tree and tars: kinds, owners, modes, times, and every byte.
func Verify(dir string, root *tree.Inode, tars []*os.File) (what string, err error) {
	r, err := safepath.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return "it is no folder", nil
	case err != nil:
		return "", err
	}
	defer r.Close()
	err = tree.Walk(root, func(path string, _, i *tree.Inode) error {
		if i.Foreign() {
			return nil
		}
		st, err := r.Lstat(path)
		if err != nil {
			return err
		}
		if !same(&st, i) {
			return fmt.Errorf("%s: it is not what the tar says", path)
		}
		if i.IsReg() {
			return sameFile(r, path, tars[i.Dev], i)
		}
		return nil
	})
	if err != nil {
		return err.Error(), nil
	}
	return "", nil
}

func same(st *unix.Stat_t, i *tree.Inode) bool {
	mode := st.Mode == i.Mode || i.IsLink() && st.Mode&unix.S_IFMT == unix.S_IFLNK
	return mode && st.Uid == i.UID && st.Gid == i.GID && st.Mtim.Sec == i.Sec && st.Mtim.Nsec == int64(i.Nsec) && (!i.IsReg() || st.Size == i.Size)
}

func sameFile(r *safepath.Root, path string, tar *os.File, i *tree.Inode) error {
	f, err := r.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	want := i.Contents(tar)
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(want, a)
		if n == 0 {
			return nil
		}
		if m, _ := io.ReadFull(f, b[:n]); m < n || !bytes.Equal(a[:n], b[:n]) {
			return fmt.Errorf("%s: its contents are not what the tar says", path)
		}
		if err != nil { // the last piece
			return nil
		}
	}
}
