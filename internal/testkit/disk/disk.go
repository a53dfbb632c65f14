// Package disk owns file systems of tests: an image file with one of a kind in it, mounted below the test's folder.
//
// It promises that the mount and its loop device are gone when the test has ended. It must never touch a disk of the machine's.
package disk

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Tmpfs mounts a tmpfs, which holds any time, owner and attribute, and returns the folder. It skips the test where the kernel's cannot hold
// attributes of users (before Linux 6.6).
func Tmpfs(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	at := t.TempDir()
	if err := unix.Mount("dhow-test", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=80%,nr_inodes=0"); err != nil {
		t.Fatal(err)
	}
	unmountAfter(t, at)
	if err := unix.Setxattr(at, "user.try", nil, 0); err != nil {
		t.Skipf("a tmpfs takes no attributes of users: %v", err)
	}
	unix.Removexattr(at, "user.try")
	return at
}

func unmountAfter(t testing.TB, at string) {
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
}

// Mounted makes a file system (btrfs, ext4, xfs) of so many MiB and returns the folder where it is mounted. It skips the test when mkfs or
// the kernel has no such thing.
func Mounted(t testing.TB, kind string, mib int64, options ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "m")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+kind, append(options, "-q", image)...).CombinedOutput(); err != nil {
		t.Skipf("mkfs.%s: %v: %s", kind, err, out)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	// The program knows how to attach a writable loop device that goes with the mount.
	if out, err := exec.Command("mount", "-t", kind, "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("mount %s: %v: %s", kind, err, out)
	}
	unmountAfter(t, at)
	return at
}
