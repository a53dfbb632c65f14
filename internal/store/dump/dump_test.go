package dump

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestFiles prints a tree and the index made of it, which must say the same, and records, whole and cut.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	l, err := layer.Open(dir, layer.Options{Form: layer.FormErofs})
	if err != nil {
		t.Fatal(err)
	}
	long := kit.Text("d/long", strings.Repeat("x", 5000))
	long.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "hi there", "SCHILY.xattr.security.capability": "\x01\x00"}
	hard := kit.Text("d/hard", "")
	hard.Typeflag, hard.Linkname = '1', "d/long"
	files := []kit.File{kit.Dir("d"), long, hard, kit.Link("link", "d/long"), kit.Text("empty", ""), kit.Text("odd\nname", "y")}
	for i := range 40 { // a folder of several blocks
		files = append(files, kit.Text("many/a-rather-long-name-"+strings.Repeat("z", i), "1"))
	}
	tar := kit.Tar(t, files...)
	id := digest.FromBytes(tar)
	if _, err := l.Ingest(t.Context(), id, bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	merged, err := l.Merge(t.Context(), []digest.Digest{id})
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := Command(&a, []string{"inspect", filepath.Join(layer.Dir(l, id), "tree.bin")}); err != nil {
		t.Fatal(err)
	}
	if err := Command(&b, []string{"inspect", merged.Index}); err != nil {
		t.Fatal(err)
	}
	device, rest, _ := strings.Cut(b.String(), "\n")
	if !strings.HasPrefix(device, "device 0 "+id.Encoded()+" ") {
		t.Error(device)
	}
	if want := strings.ReplaceAll(a.String(), " implicit", ""); rest != want {
		t.Errorf("the index says\n%s\nthe tree\n%s", rest, want)
	}
	for _, want := range []string{"/d/hard 100644", "/d/long = /d/hard", `user.note="hi there"`, "/link 120777 0:0 2024-02-03T04:05:06Z -> d/long", `"/odd\nname" `, "many/a-rather"} {
		if !strings.Contains(a.String(), want) {
			t.Errorf("no %q in\n%s", want, a.String())
		}
	}

	p := filepath.Join(dir, "meta.db")
	if err := meta.Create(p, meta.Records{"b": {"k": []byte(`{"a": 1}`), "l": []byte(`"two"`)}}); err != nil {
		t.Fatal(err)
	}
	a.Reset()
	if err := File(&a, p); err != nil || a.String() != "b/k {\"a\":1}\nb/l \"two\"\n" {
		t.Errorf("%q %v", a.String(), err)
	}
	raw, _ := os.ReadFile(p)
	clear(raw[4096:8192]) // the older of the two meta pages
	os.WriteFile(p, raw, 0o600)
	a.Reset()
	if err := File(&a, p); err != nil || !strings.HasSuffix(a.String(), "# damaged in 1 places: this is what can be read\n") {
		t.Errorf("%q %v", a.String(), err)
	}
	for name, content := range map[string]string{"text": "hello", "none": ""} {
		p := filepath.Join(dir, name)
		os.WriteFile(p, []byte(content), 0o600)
		if err := File(&a, p); err == nil {
			t.Errorf("%s is printed", name)
		}
	}
	index, _ := os.ReadFile(merged.Index)
	for n := 1030; n < len(index); n += 97 {
		broken := bytes.Clone(index)
		broken[n] ^= 0xff
		os.WriteFile(p, broken, 0o600)
		File(&a, p) // must not crash
	}
}
