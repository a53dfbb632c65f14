package mount

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDetachedTmpfs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: fsmount")
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Make("tmpfs", unix.MOUNT_ATTR_NOSUID, Param{Key: "size", Value: "1m"}, Param{Key: "mode", Value: "0700"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	fd, err := unix.Openat(int(m.Fd()), "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	c, err := Clone(m, "", false)
	if errors.Is(err, unix.EINVAL) {
		t.Log("cloning a detached mount: not on this kernel (before 6.15)")
	} else if err != nil {
		t.Error(err)
	} else {
		if err := SetAttr(c, false, Attr{Set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			t.Error(err)
		}
		if _, err := unix.Openat(int(c.Fd()), "g", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); err != unix.EROFS {
			t.Errorf("write on a read-only clone: %v", err)
		}
		c.Close()
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) && strings.Contains(string(after), "size=1024k,mode=700") {
		t.Error("the detached mount shows in mountinfo")
	}
}

func TestErrorNamesTheParameter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: fsopen")
	}
	_, err := Make("tmpfs", 0, Param{Key: "no_such_option", Value: "1"})
	var e *Error
	if !errors.As(err, &e) || e.Step != "no_such_option=1" || !errors.Is(err, unix.EINVAL) || len(e.Log) == 0 {
		t.Errorf("got %v", err)
	}
	if _, err := Make("nosuchfs", 0); !errors.Is(err, unix.ENODEV) {
		t.Errorf("unknown file system: %v", err)
	}
}
