package erofs

import (
	"archive/tar"
	"bytes"
	"testing"

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
	if _, err := Write(&img, root.Tree(), []Device{{Size: int64(b.Len())}}, Options{Whiteouts: true}); err != nil {
		f.Fatal(err)
	}
	f.Add(img.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		root, _, err := Read(bytes.NewReader(raw))
		if err == nil {
			err = tree.Walk(root, func(string, *tree.Inode, *tree.Inode) error { return nil })
		}
		_ = err
	})
}
