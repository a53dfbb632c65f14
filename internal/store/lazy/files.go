package lazy

import (
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/mount"
)

// files is a FUSE file system with a regular file for each layer, read by EROFS only. It is mounted nowhere: who has no descriptor of it
// does not see it, and it ends, in the kernel and here, with the last mount and descriptor that uses it.
type files struct {
	fuse.RawFileSystem
	sizes []int64
	read  func(n int, p []byte, off int64) error
}

// firstNode is the inode number of the first file; the root's is 1.
const firstNode = 2

// serve mounts the files and returns the root. NotImplemented: this kernel does not. ended is called when the kernel needs them no more.
func serve(sizes []int64, read func(n int, p []byte, off int64) error, ended func()) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errdef.New(errdef.NotImplemented, "open /dev/fuse: %w", err)
	}
	root, err := mount.Make("fuse", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		mount.Param{Key: "source", Value: "dhow"}, mount.Param{Key: "fd", Value: strconv.Itoa(fd)}, mount.Param{Key: "rootmode", Value: "40000"},
		mount.Param{Key: "user_id", Value: "0"}, mount.Param{Key: "group_id", Value: "0"}, mount.Param{Key: "max_read", Value: strconv.Itoa(maxRead)})
	if err != nil {
		unix.Close(fd)
		return nil, errdef.As(errdef.NotImplemented, err)
	}
	f := &files{RawFileSystem: fuse.NewDefaultRawFileSystem(), sizes: sizes, read: read}
	s, err := fuse.NewServer(f, "/dev/fd/"+strconv.Itoa(fd), &fuse.MountOptions{MaxWrite: maxRead, DisableXAttrs: true, DisableSplice: true, Logger: log.New(io.Discard, "", 0)})
	if err != nil { // the descriptor is closed
		root.Close()
		return nil, fmt.Errorf("serve layers: %w", err)
	}
	go func() { // ends with the file system
		s.Serve()
		ended()
	}()
	return root, nil
}

// maxRead is the most that one request of the kernel's is for, in bytes.
const maxRead = 128 << 10

func (f *files) attr(node uint64, a *fuse.Attr) fuse.Status {
	a.Ino, a.Nlink, a.Blksize = node, 1, 4096
	if node == fuse.FUSE_ROOT_ID {
		a.Mode = unix.S_IFDIR | 0o500
		return fuse.OK
	}
	n := node - firstNode
	if n >= uint64(len(f.sizes)) {
		return fuse.ENOENT
	}
	a.Mode, a.Size = unix.S_IFREG|0o400, uint64(f.sizes[n])
	a.Blocks = (a.Size + 511) / 512
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem: a file's name is its number.
func (f *files) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return fuse.ENOENT
	}
	out.NodeId = n + firstNode
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return f.attr(out.NodeId, &out.Attr)
}

// GetAttr implements fuse.RawFileSystem.
func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	return f.attr(in.NodeId, &out.Attr)
}

// Open implements fuse.RawFileSystem.
func (f *files) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, p []byte) (fuse.ReadResult, fuse.Status) {
	n := in.NodeId - firstNode
	if n >= uint64(len(f.sizes)) || in.Offset >= uint64(f.sizes[n]) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	p = p[:min(int64(len(p)), f.sizes[n]-int64(in.Offset))]
	if f.read(int(n), p, int64(in.Offset)) != nil {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(p), fuse.OK
}

// openAt returns a descriptor of a file that can be opened by its name below /proc only.
func openAt(root *os.File, n int) (*os.File, error) {
	fd, err := unix.Openat(int(root.Fd()), strconv.Itoa(n), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a served layer: %w", err)
	}
	return os.NewFile(uintptr(fd), "layer"), nil
}

const forever = 365 * 24 * time.Hour
