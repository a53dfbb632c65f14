package erofs

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/mount"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
)

// TestFsck lets the format's own checker judge an image.
func TestFsck(t *testing.T) {
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Skip("fsck.erofs is not installed")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "a/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5},
		{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "f"},
		{Name: "a/h", Typeflag: tar.TypeLink, Linkname: "a/f"},
		{Name: "a/z", Typeflag: tar.TypeReg},
	} {
		h.Format = tar.FormatPAX
		if h.Size > 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.k": "v"}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	p := tarindex.New(tarindex.Limits{})
	p.Write(b.Bytes())
	root, err := p.Finish()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	img, dev := filepath.Join(dir, "index.erofs"), filepath.Join(dir, "layer.tar")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteTable(f, root, []Device{{Size: int64(b.Len())}}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.WriteFile(dev, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(fsck, "--device="+dev, img).CombinedOutput(); err != nil && strings.Contains(string(out), "blksize 512 isn't supported") {
		t.Log("this fsck.erofs knows no blocks smaller than a page")
	} else if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if os.Getuid() != 0 {
		return
	}
	m, err := mount.Make("erofs", unix.MOUNT_ATTR_RDONLY, mount.Param{Key: "source", Value: img}, mount.Param{Key: "device", Value: dev})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}
