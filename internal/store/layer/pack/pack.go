// Package pack owns the writing of tars out of folders that a container controls: layers, exports, copies.
//
// It promises that an entry says everything a layer can hold (owners, times in nanoseconds, hard links, devices, extended attributes,
// capabilities), that an object is described and read through one handle, so that nothing swapped meanwhile is read in its place, and
// that no node is ever opened. It must never follow a link and never look at a path.
package pack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// Names with a meaning of their own in a layer (image-spec layer.md, "Whiteouts").
const (
	Whiteout = ".wh."
	Opaque   = ".wh..wh..opq"
)

// Writer writes one tar. It is not safe for concurrent use.
type Writer struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[inode]string // first name of every inode with several
	buf   []byte
	list  []byte // for names of extended attributes
	count int
}

type inode struct{ dev, ino uint64 }

const bufSize = 256 << 10

// New returns a Writer on w; the end of ctx ends it between two pieces.
func New(ctx context.Context, w io.Writer) *Writer {
	return &Writer{ctx: ctx, tw: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, bufSize), list: make([]byte, safepath.MaxXattr)}
}

// Close ends the tar.
func (w *Writer) Close() error { return w.tw.Close() }

// Entries is the number of entries so far.
func (w *Writer) Entries() int { return w.count }

// Add writes the object of h, any handle that does not follow links, under a clean name ("" is the root). st is what Stat says of
// h. Sockets, which tars don't have, are left out.
func (w *Writer) Add(name string, h *os.File, st unix.Stat_t) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	hdr, err := w.header(name, h, st)
	if hdr == nil || err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeReg {
		return w.write(hdr)
	}
	f, err := reopen(h)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	if err := w.write(hdr); err != nil {
		return err
	}
	if err := w.contents(f, hdr.Size); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// Hide writes the whiteout of a name in a directory ("" is the root).
func (w *Writer) Hide(dir, name string) error { return w.mark(dir, Whiteout+name) }

// HideAll makes a directory opaque.
func (w *Writer) HideAll(dir string) error { return w.mark(dir, Opaque) }

func (w *Writer) mark(dir, name string) error {
	if dir != "" {
		name = dir + "/" + name
	}
	return w.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func (w *Writer) write(h *tar.Header) error {
	if err := w.tw.WriteHeader(h); err != nil {
		if errors.Is(err, tar.ErrHeader) {
			return errdef.New(errdef.InvalidArgument, "%.200q cannot be written into a tar: %w", h.Name, err)
		}
		return err
	}
	w.count++
	return nil
}

// header describes an object; nil means that it is left out.
func (w *Writer) header(name string, h *os.File, st unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	if name == "" {
		hdr.Name = "./"
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, again := w.links[id]; again {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return hdr, nil
		}
		if kind != unix.S_IFSOCK {
			w.links[id] = name
		}
	}
	switch kind {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		hdr.Typeflag = tar.TypeDir
		hdr.Name = strings.TrimSuffix(hdr.Name, "/") + "/"
	case unix.S_IFLNK:
		hdr.Typeflag = tar.TypeSymlink
		n, err := unix.Readlinkat(int(h.Fd()), "", w.buf)
		if err != nil {
			return nil, fmt.Errorf("readlink %s: %w", name, err)
		}
		hdr.Linkname = string(w.buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default:
		return nil, nil
	}
	return hdr, w.xattrs(hdr, h)
}

// Kept tells which extended attributes belong to a file wherever it goes: not those by which overlayfs steers itself, and not the
// labels that a host's security modules give.
func Kept(name string) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."):
		return true
	}
	return name == "security.capability" || name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func (w *Writer) xattrs(hdr *tar.Header, h *os.File) error {
	path := safepath.ProcPath(h)
	n, err := unix.Listxattr(path, w.list)
	if err != nil && err != unix.EOPNOTSUPP {
		return fmt.Errorf("list attributes of %s: %w", hdr.Name, err)
	}
	for _, name := range strings.Split(string(w.list[:max(n, 0)]), "\x00") {
		if !Kept(name) {
			continue
		}
		n, err := unix.Getxattr(path, name, w.buf)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			continue // gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("read attribute %s of %s: %w", name, hdr.Name, err)
		}
		if strings.Contains(name, "=") {
			return errdef.New(errdef.InvalidArgument, "%.200q: extended attribute %q: a tar cannot hold a name with =", hdr.Name, name)
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+name] = string(w.buf[:n])
	}
	return nil
}

// reopen opens the regular file of a handle for reading; its access time stays where that is allowed.
func reopen(h *os.File) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC
	fd, err := unix.Open(safepath.ProcPath(h), flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = unix.Open(safepath.ProcPath(h), flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), h.Name()), nil
}

// contents copies exactly size bytes: holes are not read, and what a file lost meanwhile is zeros.
func (w *Writer) contents(f *os.File, size int64) error {
	for off := int64(0); off < size; {
		data, err := f.Seek(off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			data = math.MaxInt64
		case err != nil:
			data = off // the file system does not know holes
		}
		if off, err = w.zeros(off, min(data, size)); err != nil || off == size {
			return err
		}
		end, err := f.Seek(off, unix.SEEK_HOLE)
		if err != nil || end <= off {
			end = size
		}
		if off, err = w.piece(f, off, min(end, size)); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) zeros(from, to int64) (int64, error) {
	if from < to {
		clear(w.buf)
	}
	for from < to {
		n := min(to-from, bufSize)
		if err := w.put(w.buf[:n]); err != nil {
			return from, err
		}
		from += n
	}
	return from, nil
}

func (w *Writer) piece(f *os.File, from, to int64) (int64, error) {
	for from < to {
		n, err := f.ReadAt(w.buf[:min(to-from, bufSize)], from)
		if n == 0 && err == io.EOF {
			return w.zeros(from, to)
		}
		if err != nil && err != io.EOF {
			return from, err
		}
		if err := w.put(w.buf[:n]); err != nil {
			return from, err
		}
		from += int64(n)
	}
	return from, nil
}

func (w *Writer) put(b []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	_, err := w.tw.Write(b)
	return err
}
