package files

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/linux/jail"
)

// TestMain lets the test binary be the process that is locked in.
func TestMain(m *testing.M) {
	jail.Main(os.Args, Layer())
	os.Exit(m.Run())
}

// TestJailed: the process that writes does what the engine would, says what went wrong as it would, and reaches nothing outside.
func TestJailed(t *testing.T) {
	b := newBox(t)
	b.svc.Jail = true
	must(t, os.MkdirAll(b.path("d/in"), 0o755))
	must(t, os.Symlink("/d/in", b.path("d/link")))
	must(t, b.put("/d", tarOf(t,
		tar.Header{Name: "su", Mode: 0o4755, Uid: 7, Gid: 8, Uname: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "su"},
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "link/through", Uname: "x"},
	), api.WriteOptions{}))
	var st unix.Stat_t
	must(t, unix.Lstat(b.path("d/hard"), &st))
	if st.Mode != unix.S_IFREG|0o4755 || st.Uid != 7 || st.Gid != 8 || st.Nlink != 2 {
		t.Errorf("hard: %+v", st)
	}
	for _, a := range []string{"user.a", "security.capability"} {
		if _, err := unix.Lgetxattr(b.path("d/su"), a, make([]byte, 64)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	must(t, unix.Lstat(b.path("d/null"), &st))
	if st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null: %+v", st)
	}
	if _, err := os.Lstat(b.path("d/in/through")); err != nil {
		t.Error(err)
	}
	err := b.put("/d", tarOf(t, tar.Header{Name: "in", Uname: "x"}), api.WriteOptions{KeepKinds: true})
	if !errdef.Is(err, errdef.InvalidArgument) || !strings.Contains(err.Error(), "cannot overwrite directory") {
		t.Errorf("got %v", err)
	}
	must(t, os.Symlink(filepath.Join(b.host, "canary"), b.path("d/out")))
	if err := b.put("/d", tarOf(t, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "out"}), api.WriteOptions{}); err == nil {
		t.Error("a hard link to a link was made")
	}
	b.sings()
}

// BenchmarkWrite copies one small file; jailed and not.
func BenchmarkWrite(b *testing.B) {
	for name, jail := range map[string]bool{"jail": true, "engine": false} {
		b.Run(name, func(b *testing.B) {
			x := newBox(b)
			x.svc.Jail = jail
			body := tarOf(b, tar.Header{Name: "f", Uname: "x"})
			for b.Loop() {
				if err := x.put("/", body, api.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
