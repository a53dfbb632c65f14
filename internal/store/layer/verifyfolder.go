package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// verifyFolder compares an unpacked layer with its tree and its tar: kinds, owners, modes, times, and every byte.
func verifyFolder(s *Store, id digest.Digest, root *tree.Inode) (what string, err error) {
	r, err := safepath.OpenRoot(s.path(id, formFile(s.form)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer r.Close()
	tar, err := s.OpenTar(id)
	if err != nil {
		return "", err
	}
	defer tar.Close()
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
			return sameFile(r, path, tar, i)
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
	want := io.NewSectionReader(tar, i.Off, i.Size)
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
