package erofs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// mounted writes an image of root over sparse tars of the given sizes and mounts it where nobody sees it.
func mounted(t *testing.T, root *tree.Inode, tars ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mount")
	}
	img := filepath.Join(t.TempDir(), "index.erofs")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var devices []Device
	params := []mount.Param{{Key: "source", Value: img}}
	for _, p := range tars {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, Device{Size: st.Size()})
		params = append(params, mount.Param{Key: "device", Value: p})
	}
	size, err := Write(f, root, devices)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := f.Stat(); st.Size() != size || size%pageSize != 0 {
		t.Errorf("size %d, file %d", size, st.Size())
	}
	m, err := mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, params...)
	if err != nil {
		t.Skip("the kernel mounts no EROFS from plain files:", err)
	}
	t.Cleanup(func() { m.Close() })
	return fmt.Sprintf("/proc/self/fd/%d/", m.Fd())
}

// Files beyond 4 GiB, at offsets beyond 4 GiB, on the second of two devices, and of more than one chunk's usual size.
func TestLargeFiles(t *testing.T) {
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	if err := os.WriteFile(small, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	const size, off = 6<<30 + 5, 5 << 30
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, s := range map[int64]string{off: "head", off + 4<<30: "mid", off + size - 4: "tail"} {
		if _, err := f.WriteAt([]byte(s), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate((off + size + blockSize - 1) &^ (blockSize - 1)); err != nil { // as in a tar
		t.Fatal(err)
	}
	root := tree.NewDir()
	root.Dir.Kids["big"] = &tree.Inode{Mode: unix.S_IFREG | 0o644, Size: size, Off: off, Dev: 1}
	p := mounted(t, root, small, large)
	g, err := os.Open(p + "big")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if st, _ := g.Stat(); st.Size() != size {
		t.Errorf("size %d", st.Size())
	}
	for at, want := range map[int64]string{0: "head", 4 << 30: "mid", size - 4: "tail"} {
		b := make([]byte, len(want))
		if _, err := g.ReadAt(b, at); err != nil || string(b) != want {
			t.Errorf("at %d: %q %v", at, b, err)
		}
	}
	if n, err := g.ReadAt(make([]byte, 10), size); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d %v", n, err)
	}
}

// Directories and links of every length around the sizes where they change their layout, with and without attributes.
func TestLayoutEdges(t *testing.T) {
	root := tree.NewDir()
	name := func(n int) string { return fmt.Sprintf("%0*d", n, n) }
	for n := 1; n <= 1100; n++ {
		l := &tree.Inode{Mode: unix.S_IFLNK | 0o777, Link: name(n)}
		if n%3 == 0 {
			l.Xattrs = []tree.Xattr{{Name: "trusted.t", Value: name(n % 500)}}
		}
		root.Dir.Kids[fmt.Sprint("l", n)] = l
	}
	for n := 1; n <= 255; n++ { // two names of length n, then one: sizes move past 512 and 1,024
		for _, count := range []int{1, 2, 5} {
			d := tree.NewDir()
			for k := range count {
				d.Dir.Kids[fmt.Sprintf("%0*d", n, k)] = &tree.Inode{Mode: unix.S_IFIFO}
			}
			if n%2 == 0 {
				d.Xattrs = []tree.Xattr{{Name: "trusted.t", Value: name(n)}, {Name: "user.u", Value: name(n * 7)}}
			}
			root.Dir.Kids[fmt.Sprintf("d%d.%d", n, count)] = d
		}
	}
	p := mounted(t, root)
	for n := 1; n <= 1100; n++ {
		if s, err := os.Readlink(p + fmt.Sprint("l", n)); err != nil || s != name(n) {
			t.Errorf("link of %d bytes: %d bytes, %v", n, len(s), err)
		}
	}
	buf := make([]byte, 4096)
	for n := 1; n <= 255; n++ {
		for _, count := range []int{1, 2, 5} {
			d := p + fmt.Sprintf("d%d.%d", n, count)
			want := count
			if n == 1 && count > 10 {
				want = 10
			}
			ents, err := os.ReadDir(d)
			if err != nil || len(ents) != want {
				t.Errorf("%s: %d entries, %v", d, len(ents), err)
			}
			for _, e := range ents {
				if _, err := os.Lstat(d + "/" + e.Name()); err != nil {
					t.Error(err)
				}
			}
			if n%2 == 0 {
				if l, err := unix.Getxattr(d, "user.u", buf); err != nil || string(buf[:l]) != name(n*7) {
					t.Errorf("%s: attribute %v", d, err)
				}
			}
		}
	}
}
