package safepath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// jail is a Root beside a canary that no operation may reach.
func jail(t *testing.T) (*Root, string) {
	t.Helper()
	base := t.TempDir()
	out := filepath.Join(base, "out")
	if err := os.MkdirAll(filepath.Join(base, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRoot(filepath.Join(base, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		ents, _ := os.ReadDir(out)
		b, _ := os.ReadFile(filepath.Join(out, "canary"))
		if len(ents) != 1 || string(b) != "alive" {
			t.Errorf("canary touched: %v %q", ents, b)
		}
	})
	return r, out
}

func TestLinksStayInside(t *testing.T) {
	r, out := jail(t)
	for name, text := range map[string]string{"abs": out, "rel": "../out", "up": "../../../../../.." + out} {
		if err := r.Symlink(text, name); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Create(name+"/new", 0o644); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("create through %s: %v", name, err)
		}
		if _, err := r.ReadFile(name+"/canary", 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("read through %s: %v", name, err)
		}
		if _, err := r.MkdirAll(name+"/d", 0o755); err == nil {
			t.Errorf("mkdir through dangling %s succeeded", name)
		}
	}
	// The same absolute path, once it exists inside, is found inside.
	d, err := r.MkdirAll(out, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	f, err := r.Create("abs/in", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("in")
	f.Close()
	if b, err := r.ReadFile("abs/in", 10); err != nil || string(b) != "in" {
		t.Errorf("read inside: %q %v", b, err)
	}
	if _, err := r.ReadFile("abs/in", 1); err == nil {
		t.Error("limit not held")
	}
}

func TestDotDot(t *testing.T) {
	r, _ := jail(t)
	for _, p := range []string{"../canary", "a/../../canary", "/../../out/canary", ".."} {
		if f, err := r.Create(p, 0o600); err == nil {
			f.Close()
			if _, err := r.Lstat("canary"); err != nil {
				t.Errorf("create %s: made elsewhere", p)
			}
			r.Remove("canary")
		}
	}
	if _, err := r.Create("x\x00y", 0o600); err == nil {
		t.Error("NUL accepted")
	}
}

func TestNodesDoNotBlock(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mknod")
	}
	r, _ := jail(t)
	if err := r.Mknod("fifo", unix.S_IFIFO|0o666, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Mknod("zero", unix.S_IFCHR|0o666, unix.Mkdev(1, 5)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"fifo", "zero"} {
		if _, err := r.ReadFile(p, 10); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("read %s: %v", p, err)
		}
	}
}

func TestHandles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: chown, link by handle")
	}
	r, _ := jail(t)
	old := unix.Umask(0o077)
	d, err := r.MkdirAll("a/b", 0o775)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if st, _ := Stat(d); st.Mode&0o7777 != 0o775 {
		t.Errorf("mode %o", st.Mode)
	}
	f, err := r.Create("a/f", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := r.Link("a/f", "a/b/g"); err != nil {
		t.Fatal(err)
	}
	if err := r.Lchown("a/b/g", 4000000000, 7); err != nil {
		t.Fatal(err)
	}
	if err := r.Symlink("nowhere", "l"); err != nil {
		t.Fatal(err)
	}
	if err := r.Lchown("l", 5, 6); err != nil {
		t.Fatal(err)
	}
	h, err := r.Handle("a/f", false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	st, err := Stat(h)
	if err != nil || st.Uid != 4000000000 || st.Gid != 7 || st.Nlink != 2 {
		t.Errorf("stat %+v %v", st, err)
	}
	if err := Chtimes(h, 12, 34); err != nil {
		t.Error(err)
	}
	if err := Setxattr(h, "trusted.x", []byte("v")); err != nil {
		t.Error(err)
	}
	if v, err := Getxattr(h, "trusted.x"); err != nil || string(v) != "v" {
		t.Errorf("xattr %q %v", v, err)
	}
	if l, err := Listxattr(h); err != nil || strings.Join(l, ",") != "trusted.x" {
		t.Errorf("list %v %v", l, err)
	}
	if s, err := r.Readlink("l"); s != "nowhere" {
		t.Errorf("readlink %q %v", s, err)
	}
	if err := r.RemoveAll("a"); err != nil {
		t.Error(err)
	}
	if _, err := r.Lstat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
}
