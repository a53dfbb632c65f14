package provenance

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// layer reads a tar of names: "d/" a folder, "l->x" a symbolic link, "h=>x" a hard link, else a file.
func layer(t *testing.T, names ...string) *tree.Inode {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644}
		if a, to, ok := strings.Cut(n, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = a, to, tar.TypeSymlink
		} else if a, to, ok := strings.Cut(n, "=>"); ok {
			h.Name, h.Linkname, h.Typeflag = a, to, tar.TypeLink
		} else if strings.HasSuffix(n, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	p := tarindex.New(tarindex.Limits{})
	if _, err := p.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	root, err := p.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root.Tree()
}

func TestNames(t *testing.T) {
	layers := []*tree.Inode{
		layer(t, "etc/", "etc/a", "etc/b", "etc/h=>etc/a", "usr/", "usr/x/", "usr/x/1", "usr/x/2", "lib->usr"),
		layer(t, "etc/a", "usr/.wh.x", "etc/g=>etc/b", "new/f"),
		layer(t, "etc/.wh..wh..opq", "etc/c", "usr/x", "etc/"),
	}
	var got strings.Builder
	for _, n := range Names(layers) {
		fmt.Fprintf(&got, "%d %s %s", n.Layer, n.Kind, n.Path)
		if n.Link != "" {
			fmt.Fprintf(&got, " to %s", n.Link)
		}
		if len(n.Hides) > 0 {
			fmt.Fprintf(&got, " hides %v", n.Hides)
		}
		if n.By >= 0 {
			fmt.Fprintf(&got, " hidden by %d", n.By)
		}
		got.WriteByte('\n')
	}
	want := `0 directory etc hidden by 2
0 file etc/a hidden by 1
0 file etc/b hidden by 2
0 hardlink etc/h to etc/a hidden by 2
0 symlink lib to usr
0 directory usr
0 directory usr/x hidden by 1
0 file usr/x/1 hidden by 1
0 file usr/x/2 hidden by 1
1 file etc/a hides [0] hidden by 2
1 hardlink etc/g to etc/b hidden by 2
1 file new/f
1 whiteout usr/x hides [0]
2 directory etc hides [0]
2 opaque etc/. hides [0 1]
2 file etc/c
2 file usr/x
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}
