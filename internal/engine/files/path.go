package files

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// asked is a path as Docker reads it: absolute and clean, but a slash or /. at its end means the folder that a link leads to.
type asked struct {
	clean  string
	name   string // the last component as written: ".", "/" or a name
	folder bool   // must be one, links at the end followed
}

func parse(p string) (asked, error) {
	if p == "" {
		return asked{}, errdef.New(errdef.InvalidArgument, "bad parameter: 'path' cannot be empty")
	}
	if strings.IndexByte(p, 0) >= 0 || len(p) > unix.PathMax {
		return asked{}, errdef.New(errdef.InvalidArgument, "path %.100q holds a NUL byte or is longer than %d bytes", p, unix.PathMax)
	}
	a := asked{clean: path.Clean("/" + p)}
	a.name = path.Base(a.clean)
	last := p[strings.LastIndexByte(p, '/')+1:]
	a.folder = last == "" || last == "."
	if last == "." {
		a.name = "."
	}
	return a, nil
}

// open returns a handle of what was asked for, and what it is.
func (a asked) open(root *safepath.Root, rec *api.Container) (*os.File, unix.Stat_t, error) {
	h, err := root.Handle(a.clean, a.folder)
	if err != nil {
		return nil, unix.Stat_t{}, a.explain(rec, err)
	}
	st, err := safepath.Stat(h)
	if err == nil && a.folder && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = errdef.New(errdef.InvalidArgument, "%s in container %s is not a directory", a.clean, rec.Name)
	}
	if err == nil {
		err = ordinary(h, a.clean)
	}
	if err != nil {
		h.Close()
		return nil, st, err
	}
	return h, st, nil
}

// explain gives the errors of a lookup their kinds.
func (a asked) explain(rec *api.Container, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errdef.New(errdef.NotFound, "Could not find the file %s in container %s", a.clean, rec.Name)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		var why unix.Errno
		errors.As(err, &why)
		return errdef.New(errdef.InvalidArgument, "path %s in container %s: %w", a.clean, rec.Name, why)
	}
	return err
}

// kernels are file systems that hold no files to copy: sizes lie there, and reading may act or wait for ever.
var kernels = map[int64]string{
	unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.CGROUP_SUPER_MAGIC: "cgroup", unix.CGROUP2_SUPER_MAGIC: "cgroup",
	unix.DEVPTS_SUPER_MAGIC: "devpts", unix.DEBUGFS_MAGIC: "debugfs", unix.TRACEFS_MAGIC: "tracefs", unix.SECURITYFS_MAGIC: "securityfs",
	unix.BPF_FS_MAGIC: "bpf", 0x19800202: "mqueue", unix.PSTOREFS_MAGIC: "pstore", unix.EFIVARFS_MAGIC: "efivarfs", 0x62656570: "configfs",
	unix.BINFMTFS_MAGIC: "binfmt_misc", unix.NSFS_MAGIC: "nsfs", unix.SELINUX_MAGIC: "selinuxfs", unix.RDTGROUP_SUPER_MAGIC: "resctrl",
}

func kernelFS(h *os.File) (string, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(h.Fd()), &st); err != nil {
		return "", &fs.PathError{Op: "fstatfs", Path: h.Name(), Err: err}
	}
	return kernels[int64(st.Type)], nil
}

func ordinary(h *os.File, p string) error {
	kind, err := kernelFS(h)
	if err == nil && kind != "" {
		err = errdef.New(errdef.InvalidArgument, "%s lies in a file system of the kernel's (%s), which has no files to copy: use exec", p, kind)
	}
	return err
}

// stat is what Docker tells of a path in front of its tar.
func (a asked) stat(root *safepath.Root, st unix.Stat_t) container.PathStat {
	out := container.PathStat{Name: a.name, Size: st.Size, Mode: goMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		out.LinkTarget = follow(root, a.clean)
	}
	return out
}

func goMode(m uint32) os.FileMode {
	out := os.FileMode(m & 0o777)
	for bit, to := range map[uint32]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if m&bit != 0 {
			out |= to
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= os.ModeDir
	case unix.S_IFLNK:
		out |= os.ModeSymlink
	case unix.S_IFIFO:
		out |= os.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= os.ModeSocket
	case unix.S_IFCHR:
		out |= os.ModeDevice | os.ModeCharDevice
	case unix.S_IFBLK:
		out |= os.ModeDevice
	}
	return out
}

const mostLinks = 255

// follow tells where a path leads when all its links are followed, as far as there is something. It is only a text: nobody trusts it.
func follow(root *safepath.Root, p string) string {
	at, rest, links := "/", strings.TrimPrefix(p, "/"), 0
	for rest != "" {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, c)
		text, err := root.Readlink(next)
		if c == "" || c == "." || c == ".." || err != nil {
			at = next
			continue
		}
		if links++; links > mostLinks {
			return next
		}
		if strings.HasPrefix(text, "/") {
			at = "/"
		}
		rest = text + "/" + rest
	}
	return at
}

// mountOf identifies the mount that a handle lies in, and tells whether it is read-only.
func mountOf(h *os.File) (id uint64, readonly bool, err error) {
	var sx unix.Statx_t
	var st unix.Statfs_t
	if err := unix.Statx(int(h.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &sx); err != nil {
		return 0, false, &fs.PathError{Op: "statx", Path: h.Name(), Err: err}
	}
	if err := unix.Fstatfs(int(h.Fd()), &st); err != nil {
		return 0, false, &fs.PathError{Op: "fstatfs", Path: h.Name(), Err: err}
	}
	return sx.Mnt_id, st.Flags&unix.ST_RDONLY != 0, nil
}
