package oci

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// copyUp copies what one folder holds into another, a tmpfs that nobody sees yet: folders, files, links and pipes with owner, mode and
// time. Every name is opened below the handle of its folder and no link is followed. Whatever else an image holds there is left out.
//
// In a user namespace the tmpfs takes files from those only whom the namespace knows; its root belongs to the one to be.
//
// What is copied fills memory, and it is not yet the container's cgroup that pays for it: a container's copies together are no larger than its
// memory may be.
func copyUp(s *bundle.Spec) func(from, to int) error {
	left := int64(math.MaxInt64 - 1)
	if r := s.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		left = min(left, *r.Memory.Limit)
	}
	return func(from, to int) error {
		runtime.LockOSThread() // whose files a thread makes is the thread's own
		defer runtime.UnlockOSThread()
		var top unix.Stat_t
		if err := unix.Fstat(to, &top); err != nil {
			return err
		}
		c := copier{uid: int(top.Uid), gid: int(top.Gid), left: &left}
		if err := c.folder(from, to, 0); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
		return nil
	}
}

type copier struct {
	uid, gid int
	left     *int64 // bytes
}

// deepest bounds the folders within folders that are copied.
const deepest = 256

func (c *copier) folder(from, to, depth int) error {
	if depth > deepest {
		return errdef.New(errdef.InvalidArgument, "folders are nested more than %d deep", deepest)
	}
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "folder")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.entry(from, to, name, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

func (c *copier) entry(from, to int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := c.make(func() error { return unix.Mkdirat(to, name, 0o700) }); err != nil {
			return err
		}
		in, err := open(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(in)
		out, err := open(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(out)
		if err := c.folder(in, out, depth+1); err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := c.file(from, to, name); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target := make([]byte, 4096)
		n, err := unix.Readlinkat(from, name, target)
		if err != nil {
			return err
		}
		if err := c.make(func() error { return unix.Symlinkat(string(target[:n]), to, name) }); err != nil {
			return err
		}
	case unix.S_IFIFO:
		if err := c.make(func() error { return unix.Mknodat(to, name, unix.S_IFIFO|0o600, 0) }); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give it to %d:%d: %w", st.Uid, st.Gid, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // after the owner, whose change takes set-ID bits
		if err := unix.Fchmodat(to, name, mode, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// openRegular opens what is a regular file now, whatever it was when it was looked at: opening a device alone may do something.
func openRegular(dir int, name string) (int, error) {
	handle, err := open(dir, name, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errdef.New(errdef.Conflict, "it was replaced while it was copied")
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func (c *copier) file(from, to int, name string) error {
	in, err := openRegular(from, name)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), name)
	defer src.Close()
	out := -1
	err = c.make(func() (err error) {
		out, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), name)
	n, err := io.Copy(dst, io.LimitReader(src, *c.left+1))
	if *c.left -= n; *c.left < 0 {
		err = errdef.New(errdef.InvalidArgument, "with it more would be copied than linux.resources.memory.limit has room for")
	}
	if closeErr := dst.Close(); err == nil {
		err = closeErr
	}
	return err
}

func open(dir int, name string, flags int) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// make does something as the owner of the tmpfs.
func (c *copier) make(do func() error) error {
	if c.uid == 0 && c.gid == 0 {
		return do()
	}
	unix.SetfsgidRetGid(c.gid)
	unix.SetfsuidRetUid(c.uid)
	err := do()
	unix.SetfsuidRetUid(0)
	unix.SetfsgidRetGid(0)
	return err
}
