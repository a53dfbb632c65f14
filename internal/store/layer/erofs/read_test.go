package erofs

import (
	"archive/tar"
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// FuzzRead: what is no image of ours is an error, never a crash; what is read can be walked.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range []string{"d/", "d/a", "d/b", "l"} {
		w.WriteHeader(&tar.Header{Name: n, Mode: 0o755, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}})
	}
	w.Close()
	p := tarindex.New(tarindex.Limits{})
	p.Write(b.Bytes())
	root, err := p.Finish()
	if err != nil {
		f.Fatal(err)
	}
	var img bytes.Buffer
	if _, err := Write(&img, root.Tree(), []Device{{Size: int64(b.Len())}}); err != nil {
		f.Fatal(err)
	}
	f.Add(img.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if root, _, err := Read(bytes.NewReader(raw)); err == nil {
			tree.Walk(root, func(string, *tree.Inode, *tree.Inode) error { return nil })
		}
	})
}

// TestReadSparse: a file that begins with a hole has its data where the tar has it; one that is a hole has none.
func TestReadSparse(t *testing.T) {
	root := &tree.Inode{Mode: unix.S_IFDIR | 0o755, Dir: &tree.Dir{Kids: map[string]*tree.Inode{}}}
	for name, extents := range map[string][]tree.Extent{"late": {{At: 8192, Len: 512}}, "none": {}} {
		i := &tree.Inode{Mode: unix.S_IFREG | 0o644, Off: 1024}
		data := int64(512 * len(extents))
		if err := i.Sparse(16384, data, extents); err != nil {
			t.Fatal(err)
		}
		root.Dir.Kids[name] = i
	}
	var img bytes.Buffer
	if _, err := Write(&img, root, []Device{{Size: 4096}}); err != nil {
		t.Fatal(err)
	}
	got, _, err := Read(&img)
	if err != nil {
		t.Fatal(err)
	}
	if late, none := got.Dir.Kids["late"], got.Dir.Kids["none"]; late.Size != 16384 || late.Dev != 0 || late.Off != 1024 || none.Size != 16384 || none.Off != 0 {
		t.Errorf("late %+v, none %+v", late, none)
	}
}
