package tarball

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
)

// Extract lays a tar down below dir. As docker does, it replaces files but neither a folder by something else nor the other way round.
// Everything belongs to the caller, with owners to whom the tar names. Nothing outside of dir is touched: a name that leads out, by itself
// or through a link, is an error. A file has its name when it is whole: whatever ends this, no half file is left, nor is what was there before gone.
func Extract(r io.Reader, dir string, rename func(string) string, owners bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extractor{root: root, dir: dir, rename: rename, owners: owners, tr: tar.NewReader(r)}
	for {
		hdr, err := x.tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read what the engine sent: %w", err)
		}
		if err := x.entry(hdr); err != nil {
			return err
		}
	}
	for i := len(x.dirs) - 1; i >= 0; i-- { // what came into a folder changed its time
		if err := x.attributes(x.dirs[i].name, x.dirs[i].hdr); err != nil {
			return err
		}
	}
	// To its end, so that an answer that was cut off is no success.
	_, err = io.Copy(io.Discard, r)
	return err
}

type extractor struct {
	root   *os.Root
	dir    string
	rename func(string) string
	owners bool
	tr     *tar.Reader
	dirs   []made
}

type made struct {
	name string
	hdr  *tar.Header
}

// local is an entry's name below dir.
func local(n string) (string, error) {
	n = path.Clean(strings.TrimLeft(n, "/"))
	if !filepath.IsLocal(n) {
		return "", fmt.Errorf("the engine sent %q, which leads out of the destination", n)
	}
	return n, nil
}

func (x *extractor) entry(hdr *tar.Header) error {
	name, err := local(x.rename(hdr.Name))
	if err != nil {
		return err
	}
	if name == "." {
		return nil
	}
	isDir := hdr.Typeflag == tar.TypeDir
	if st, err := x.root.Lstat(name); err == nil {
		full := filepath.Join(x.dir, name)
		switch {
		case st.IsDir() && !isDir:
			return fmt.Errorf("cannot overwrite directory %q with non-directory %q", full, x.dir)
		case !st.IsDir() && isDir:
			return fmt.Errorf("cannot overwrite non-directory %q with directory %q", full, x.dir)
		case !isDir && hdr.Typeflag != tar.TypeReg: // a file takes its place when it is whole
			if err := x.root.Remove(name); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err := x.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		if err := x.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		x.dirs = append(x.dirs, made{name, hdr})
		return nil
	case tar.TypeReg:
		if err := x.file(name, hdr); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return x.link(name, hdr)
	case tar.TypeLink:
		to, err := local(x.rename(hdr.Linkname))
		if err != nil {
			return err
		}
		return x.root.Link(to, name)
	default:
		return fmt.Errorf("%s: devices and pipes are not made on this side: copy to - and unpack the tar", hdr.Name)
	}
	return x.attributes(name, hdr)
}

// file writes one, which has its name when it is whole.
func (x *extractor) file(name string, hdr *tar.Header) error {
	dir, base := path.Split(name)
	parent, err := x.root.OpenFile(path.Clean(dir), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	f, err := atomicfile.Begin(parent, base)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, x.tr); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if x.owners {
		err = f.Chown(hdr.Uid, hdr.Gid)
	}
	if err == nil {
		err = f.Chmod(mode(hdr))
	}
	if err == nil {
		err = f.Commit()
	}
	return err
}

func (x *extractor) link(name string, hdr *tar.Header) error {
	if err := x.root.Symlink(hdr.Linkname, name); err != nil {
		return err
	}
	if x.owners {
		return x.root.Lchown(name, hdr.Uid, hdr.Gid)
	}
	return nil
}

// attributes come last, the owner first: changing it drops setuid bits.
func (x *extractor) attributes(name string, hdr *tar.Header) error {
	if x.owners {
		if err := x.root.Lchown(name, hdr.Uid, hdr.Gid); err != nil {
			return err
		}
	}
	if err := x.root.Chmod(name, mode(hdr)); err != nil {
		return err
	}
	return x.root.Chtimes(name, time.Now(), hdr.ModTime)
}

func mode(hdr *tar.Header) fs.FileMode {
	mode := fs.FileMode(hdr.Mode & 0o777)
	for bit, to := range map[int64]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if hdr.Mode&bit != 0 {
			mode |= to
		}
	}
	return mode
}
