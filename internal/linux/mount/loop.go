package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const loopFlags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR

// Loop returns a read-only loop device with 512-byte sectors over f: the one that somebody has attached in the same way, so that all
// mounts of a file are one file system with one page cache, or a new one. The device frees itself when its last user, a descriptor like
// the returned one or a mount, is gone. It reads through the page cache of f, which alone reads ahead from one file of a tar into the next.
func Loop(f *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("loop device for %s: %w", f.Name(), err)
	}
	if dev := loopOver(f.Name(), &st); dev != nil {
		return dev, nil
	}
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device for %s: %w", f.Name(), err)
	}
	defer ctl.Close()
	cfg := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 512}
	cfg.Info.Flags = loopFlags
	for range 64 { // somebody else may take the free one first
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: LOOP_CTL_GET_FREE: %w", f.Name(), err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", f.Name(), err)
		}
		err = retry(func() error { return unix.IoctlLoopConfigure(int(dev.Fd()), &cfg) })
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("loop device for %s: LOOP_CONFIGURE: %w", f.Name(), err)
		}
	}
	return nil, fmt.Errorf("loop device for %s: every free one was taken by others", f.Name())
}

// loopOver finds a device that is attached to a file as Loop does it. sysfs says where to look; what counts is what the device says of
// itself once it is open, since from then on it stays what it is.
func loopOver(path string, st *unix.Stat_t) *os.File {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, n := range names {
		if b, err := os.ReadFile(n); err != nil || strings.TrimSuffix(string(b), "\n") != path {
			continue
		}
		dev, err := os.OpenFile("/dev/"+strings.Split(n, "/")[3], os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Inode == st.Ino && info.Device == uint64(st.Dev) && info.Offset == 0 && info.Sizelimit == 0 && info.Flags&loopFlags == loopFlags {
			return dev
		}
		dev.Close()
	}
	return nil
}
