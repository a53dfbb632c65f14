package rootfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Root {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := New(f)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestUserFilesThroughLinks(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "passwd")
	os.WriteFile(secret, []byte("eve:x:666:666::/evil:/bin/sh\n"), 0o644)
	os.MkdirAll(filepath.Join(dir, "etc"), 0o755)
	if err := os.Symlink(secret, filepath.Join(dir, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).User("eve", nil); err == nil {
		t.Fatal("followed a link out of the root")
	}
	if u, err := open(t, dir).User("12:13", nil); err != nil || u.UID != 12 || u.GID != 13 {
		t.Fatalf("numbers without files: %+v %v", u, err)
	}
}

func TestMakeDir(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if err := r.MakeDir("/a/b/../c"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "a/c")); err != nil || st.Mode().Perm() != 0o755 {
		t.Fatalf("%v %v", st, err)
	}
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	if err := r.MakeDir("/file"); err == nil {
		t.Fatal("a file taken for a folder")
	}
}

func TestCopyTo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
	dir, vol := t.TempDir(), t.TempDir()
	at := time.Unix(1600000000, 0)
	os.MkdirAll(filepath.Join(dir, "data/sub"), 0o755)
	os.WriteFile(filepath.Join(dir, "data/sub/f"), []byte("hello"), 0o640)
	os.Chown(filepath.Join(dir, "data/sub/f"), 7, 8)
	os.Chtimes(filepath.Join(dir, "data/sub/f"), at, at)
	os.Symlink("/etc/shadow", filepath.Join(dir, "data/link"))
	os.Chmod(filepath.Join(dir, "data"), os.ModeSticky|0o777)
	r := open(t, dir)
	if err := r.CopyTo("/data", vol); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(vol, "sub/f"))
	if err != nil || st.Mode().Perm() != 0o640 || !st.ModTime().Equal(at) {
		t.Fatalf("%+v %v", st, err)
	}
	if text, _ := os.Readlink(filepath.Join(vol, "link")); text != "/etc/shadow" {
		t.Fatalf("link: %q", text)
	}
	if st, _ := os.Stat(vol); st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
		t.Fatalf("top: %v", st.Mode())
	}
	os.WriteFile(filepath.Join(dir, "data/late"), nil, 0o600)
	if err := r.CopyTo("/data", vol); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(vol, "late")); !os.IsNotExist(err) {
		t.Fatal("copied into a volume with content")
	}
	if err := r.CopyTo("/absent", t.TempDir()); err != nil {
		t.Fatal(err)
	}
}
