package rootfs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/mount"
)

// TestMain lets the test binary be the process that is locked in.
func TestMain(m *testing.M) {
	jail.Main(os.Args, Filling())
	os.Exit(m.Run())
}

// TestFill: a volume gets what the image has, attribute for attribute, from a process that is locked in as from this one.
func TestFill(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	at := time.Unix(1600000000, 5000)
	in := func(p string) string { return filepath.Join(dir, "data", p) }
	must(os.MkdirAll(in("sub"), 0o755))
	must(os.WriteFile(in("sub/f"), []byte("hello"), 0o640))
	must(os.Chown(in("sub/f"), 7, 8))
	must(os.Chmod(in("sub/f"), 0o640|os.ModeSetuid))
	must(os.Link(in("sub/f"), in("again")))
	must(unix.Setxattr(in("sub/f"), "user.note", []byte("kept"), 0))
	must(unix.Setxattr(in("sub/f"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(unix.Setxattr(in("sub/f"), "trusted.overlay.foreign", []byte("y"), 0))
	must(os.Chtimes(in("sub/f"), at, at))
	sparse, err := os.Create(in("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("x"), 8<<20)
	must(err)
	must(sparse.Truncate(16 << 20))
	must(sparse.Close())
	must(os.WriteFile(in("empty"), nil, 0o600))
	must(unix.Mkfifo(in("fifo"), 0o600))
	must(os.Chmod(in("fifo"), 0o620))
	must(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.Symlink("/etc/shadow", in("link")))
	must(os.Chmod(in("."), os.ModeSticky|0o777))
	h, err := os.Open(dir)
	must(err)
	m, err := mount.Clone(h, "", false) // as a snapshot's
	must(err)
	r := New(m)
	defer r.Close()
	for _, apart := range []bool{false, true} {
		vol := t.TempDir()
		must(r.Fill(context.Background(), "/data", vol, apart))
		st, err := os.Stat(filepath.Join(vol, "sub/f"))
		if err != nil || st.Mode() != 0o640|os.ModeSetuid || !st.ModTime().Equal(at) {
			t.Fatalf("%+v %v", st, err)
		}
		var us unix.Stat_t
		must(unix.Stat(filepath.Join(vol, "again"), &us))
		if us.Nlink != 2 || us.Uid != 7 || us.Gid != 8 {
			t.Errorf("the other name: %+v", us)
		}
		v := make([]byte, 64)
		if n, err := unix.Getxattr(filepath.Join(vol, "again"), "user.note", v); err != nil || string(v[:n]) != "kept" {
			t.Errorf("user.note: %q %v", v, err)
		}
		if _, err := unix.Getxattr(filepath.Join(vol, "again"), "security.capability", v); err != nil {
			t.Errorf("security.capability: %v", err)
		}
		if _, err := unix.Getxattr(filepath.Join(vol, "again"), "trusted.overlay.foreign", v); err == nil {
			t.Error("overlayfs' own attributes mean nothing in a volume")
		}
		must(unix.Stat(filepath.Join(vol, "sparse"), &us))
		if us.Size != 16<<20 || us.Blocks*512 > 1<<20 {
			t.Errorf("sparse: %d bytes take %d", us.Size, us.Blocks*512)
		}
		one := make([]byte, 1)
		f, err := os.Open(filepath.Join(vol, "sparse"))
		must(err)
		if _, err := f.ReadAt(one, 8<<20); err != nil || one[0] != 'x' {
			t.Errorf("sparse: %q %v", one, err)
		}
		f.Close()
		must(unix.Lstat(filepath.Join(vol, "fifo"), &us))
		if us.Mode != unix.S_IFIFO|0o620 {
			t.Errorf("fifo: %o", us.Mode)
		}
		if _, err := os.Lstat(filepath.Join(vol, "null")); !os.IsNotExist(err) {
			t.Errorf("a device in a volume: %v", err)
		}
		if text, _ := os.Readlink(filepath.Join(vol, "link")); text != "/etc/shadow" {
			t.Errorf("link: %q", text)
		}
		if st, _ := os.Stat(vol); st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
			t.Errorf("top: %v", st.Mode())
		}
		var u unix.Statfs_t
		must(unix.Fstatfs(int(m.Fd()), &u))
		if apart != (u.Flags&unix.ST_RDONLY != 0) {
			t.Errorf("apart %v: the flags of the root's mount are %#x", apart, u.Flags)
		}
		late := in("late")
		must(os.WriteFile(late, nil, 0o600))
		must(r.Fill(context.Background(), "/data", vol, apart))
		if _, err := os.Stat(filepath.Join(vol, "late")); !os.IsNotExist(err) {
			t.Error("copied into a volume with content")
		}
		must(os.Remove(late))
		must(r.Fill(context.Background(), "/absent", t.TempDir(), apart))
	}
}

// TestFillFails: of a copy that cannot be made to its end nothing stays, so that the next container's is whole.
func TestFillFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data", strings.Repeat("d/", maxDepth+2)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data/a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, apart := range []bool{false, true} {
		vol := t.TempDir()
		h, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mount.Clone(h, "", false)
		if err != nil {
			t.Fatal(err)
		}
		r := New(m)
		if err := r.Fill(context.Background(), "/data", vol, apart); !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "nested deeper") {
			t.Errorf("apart %v: %v", apart, err)
		}
		r.Close()
		if left, err := os.ReadDir(vol); err != nil || len(left) > 0 {
			t.Errorf("apart %v: %v %v", apart, left, err)
		}
	}
}
