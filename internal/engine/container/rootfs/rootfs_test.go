package rootfs

import (
	"os"
	"path/filepath"
	"testing"
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
