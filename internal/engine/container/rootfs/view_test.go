package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

func tmpfs(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: fsmount")
	}
	m, err := mount.Make("tmpfs", 0, mount.Param{Key: "size", Value: "1m"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Both ways to make a view: on detached mounts, and on a thread apart for kernels before 6.15. The places are given in the wrong order, one lies in another, one is
// read-only, one is a file, and one goes through a link that points out of the root.
func TestView(t *testing.T) {
	for name, view := range map[string]func(*os.File, []Place, bool, string) (*os.File, error){"detached": View, "apart": viewApart} {
		t.Run(name, func(t *testing.T) {
			before := mounts(t)
			root := tmpfs(t)
			in := safepath.FromFile(root)
			outside, vol, inner := t.TempDir(), t.TempDir(), t.TempDir()
			if err := in.Symlink(outside, "out"); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(vol, "file")
			for _, f := range []string{file, filepath.Join(inner, "in")} {
				if err := os.WriteFile(f, []byte("text"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			places := []Place{{Source: vol, Target: "/a"}, {Source: inner, Target: "/a/b", ReadOnly: true}, {Source: file, Target: "/etc/one"}, {Source: inner, Target: outside[1:] + "/x"}}
			if err := os.Mkdir(filepath.Join(vol, "b"), 0o755); err != nil {
				t.Fatal(err)
			}
			v, err := view(root, places, true, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			r := safepath.FromFile(v)
			defer r.Close()
			for _, p := range []string{"/a/file", "/a/b/in", "/etc/one", outside + "/x/in"} {
				if b, err := r.ReadFile(p, 100); err != nil || string(b) != "text" {
					t.Errorf("%s: %q %v", p, b, err)
				}
			}
			if _, err := r.Create("/a/new", 0o644); err != nil {
				t.Error(err)
			}
			if _, err := r.Create("/a/b/new", 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("write into a read-only place: %v", err)
			}
			if es, err := os.ReadDir(outside); err != nil || len(es) != 0 {
				t.Errorf("made on the host: %v %v", es, err)
			}
			if es, err := os.ReadDir(filepath.Join(vol, "b")); err != nil || len(es) != 0 {
				t.Errorf("the inner place shows on the host: %v %v", es, err)
			}
			if after := mounts(t); len(strings.Split(after, "\n")) != len(strings.Split(before, "\n")) {
				t.Error("the host's mount table changed")
			}
		})
	}
}

func TestViewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		p    Place
		make bool
		want string
	}{
		"missing target":  {Place{Source: t.TempDir(), Target: "/nosuch"}, false, ErrNoTarget.Error()},
		"missing source":  {Place{Source: "/nosuch/at/all", Target: "/x"}, true, "open the source"},
		"file on folder":  {Place{Source: file, Target: "/"}, true, "a folder and a file"},
		"link for volume": {Place{Source: "/proc/self", Target: "/x", NoFollow: true}, true, "is a symbolic link"},
	} {
		v, err := View(tmpfs(t), []Place{c.p}, c.make, t.TempDir())
		if err == nil {
			v.Close()
			t.Errorf("%s: worked", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
