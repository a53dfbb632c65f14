package tarball

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Write writes the tar of a local file or folder; rename gives its entries their names. Sockets, which tars don't have, are left out.
func Write(w io.Writer, src Info, rename func(string) string) error {
	t := &writer{tw: tar.NewWriter(w), rename: rename, links: map[[2]uint64]string{}}
	dir, base := Split(src.Path)
	name := base
	if src.Rebase != "" {
		name = src.Rebase
	}
	if base == "/" {
		dir, base, name = "/", ".", ""
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := t.entry(root, base, name); err != nil {
		return err
	}
	return t.tw.Close()
}

type writer struct {
	tw     *tar.Writer
	rename func(string) string
	links  map[[2]uint64]string
}

// entry writes what is called base in root, and what is in it.
func (t *writer) entry(root *os.Root, base, name string) error {
	st, err := root.Lstat(base)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket != 0 {
		return nil
	}
	hdr, err := t.header(root, base, name, st)
	if err != nil {
		return err
	}
	switch {
	case hdr.Typeflag == tar.TypeReg:
		return t.file(root, base, hdr)
	case !st.IsDir():
		return t.tw.WriteHeader(hdr)
	}
	if err := t.tw.WriteHeader(hdr); err != nil {
		return err
	}
	in, err := root.OpenRoot(base)
	if err != nil {
		return err
	}
	defer in.Close()
	d, err := in.Open(".")
	if err != nil {
		return err
	}
	list, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, e := range sorted(list) {
		if err := t.entry(in, e, name+"/"+e); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (t *writer) header(root *os.Root, base, name string, st os.FileInfo) (*tar.Header, error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%s: nothing is known of it", name)
	}
	// As docker's client has it: whole seconds, so that an entry has one block, and no names of users.
	hdr := &tar.Header{Name: t.rename(name), Mode: int64(sys.Mode & 0o7777), Uid: int(sys.Uid), Gid: int(sys.Gid),
		ModTime: st.ModTime().Truncate(time.Second), Format: tar.FormatPAX}
	if !st.IsDir() && sys.Nlink > 1 {
		id := [2]uint64{uint64(sys.Dev), sys.Ino}
		if first, again := t.links[id]; again {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return hdr, nil
		}
		t.links[id] = hdr.Name
	}
	switch m := st.Mode(); {
	case m.IsRegular():
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size()
	case m.IsDir():
		hdr.Typeflag = tar.TypeDir
		hdr.Name += "/"
	case m&os.ModeSymlink != 0:
		hdr.Typeflag = tar.TypeSymlink
		to, err := root.Readlink(base)
		if err != nil {
			return nil, err
		}
		hdr.Linkname = to
	case m&os.ModeNamedPipe != 0:
		hdr.Typeflag = tar.TypeFifo
	case m&os.ModeDevice != 0:
		hdr.Typeflag = tar.TypeBlock
		if m&os.ModeCharDevice != 0 {
			hdr.Typeflag = tar.TypeChar
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(sys.Rdev)), int64(unix.Minor(sys.Rdev))
	default:
		return nil, fmt.Errorf("%s: a file of an unknown kind", name)
	}
	return hdr, nil
}

// file writes a regular file: as long as it is once open, and no other than was seen.
func (t *writer) file(root *os.Root, base string, hdr *tar.Header) error {
	f, err := root.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: was replaced while it was read", filepath.Join(root.Name(), base))
	}
	hdr.Size = st.Size()
	buf := make([]byte, 256)
	if n, err := unix.Fgetxattr(int(f.Fd()), "security.capability", buf); err == nil {
		hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(buf[:n])}
	}
	if err := t.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if n, err := io.CopyN(t.tw, f, hdr.Size); err == io.EOF {
		return fmt.Errorf("%s: became shorter while it was read: %d bytes instead of %d", filepath.Join(root.Name(), base), n, hdr.Size)
	} else if err != nil {
		return err
	}
	return nil
}

func sorted(list []os.DirEntry) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Name()
	}
	slices.Sort(out)
	return out
}
