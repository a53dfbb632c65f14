package snapshot

import (
	"archive/tar"
	"bytes"
	"path/filepath"
	"testing"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/testkit/disk"
)

// TestOtherForm: what was made while layers had one form shows the same, and tells the same changes, once they have any other.
func TestOtherForm(t *testing.T) {
	dir := disk.Mounted(t, "btrfs", 1024) // where every form works
	open := func(form string) (w world) {
		var err error
		if w.layers, err = layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: form, Jail: true}); err != nil {
			t.Fatal(err)
		}
		if w.snaps, err = Open(filepath.Join(dir, "snapshots"), w.layers); err != nil {
			t.Fatal(err)
		}
		return w
	}
	var usable []string
	for _, form := range layer.Forms() {
		if err := open(form).layers.Usable(); err != nil {
			t.Log(err)
		} else {
			usable = append(usable, form)
		}
	}
	base := below(t)
	second := makeTar(t, entry{name: "etc/.wh.keep"}, entry{name: "two", typ: tar.TypeLink, link: "l1"})
	seen, told := map[string]string{}, map[string]string{}
	for _, form := range usable {
		w := open(form)
		w.changed(t, form, "echo x > etc/new; rm -r old; mkdir old; echo y > deep/er/f", nil, base, second)
		seen[form] = w.see(t, form)
		var b bytes.Buffer
		if _, err := w.snaps.Layer(t.Context(), form, &b); err != nil {
			t.Fatal(err)
		}
		told[form] = b.String()
	}
	for _, form := range usable {
		w := open(form)
		for _, made := range usable {
			same(t, w.see(t, made), seen[made])
			var b bytes.Buffer
			if _, err := w.snaps.Layer(t.Context(), made, &b); err != nil || b.String() != told[made] {
				t.Errorf("made with %s, layers now %s: the changes differ: %v", made, form, err)
			}
			m, err := w.snaps.Mount(made, false)
			if err != nil {
				t.Fatal(err)
			}
			r := safepath.FromFile(m)
			if b, err := r.ReadFile("deep/er/f", 10); err != nil || string(b) != "y\n" {
				t.Errorf("made with %s, layers now %s: %q %v", made, form, b, err)
			}
			r.Close()
		}
	}
	w := open(usable[len(usable)-1])
	for _, form := range usable {
		if err := w.snaps.Remove(t.Context(), form); err != nil {
			t.Error(err)
		}
	}
}

// TestRelatives: on btrfs a chain is made of the one most like it. Whatever that was, it holds what its layers say.
func TestRelatives(t *testing.T) {
	dir := disk.Mounted(t, "btrfs", 1024)
	base := below(t)
	more := [][]byte{
		makeTar(t, entry{name: ".wh.old"}, entry{name: "etc/", mode: 0o711, xattrs: map[string]string{"user.e": "1"}}, entry{name: "dir", data: "now a file"}, entry{name: "l2", data: "a link no more"}),
		makeTar(t, entry{name: "etc/.wh..wh..opq"}, entry{name: "etc/passwd", data: "other"}, entry{name: "l3", typ: tar.TypeLink, link: "l1"}, entry{name: "file/"}, entry{name: "file/in", data: "i"}),
		makeTar(t, entry{name: "cap", data: "c", mode: 0o4755}, entry{name: "deep/er/f", typ: tar.TypeLink, link: "l2"}, entry{name: ".wh.l1"}),
	}
	open := func(name string) (w world) {
		var err error
		if w.layers, err = layer.Open(filepath.Join(dir, name, "layers"), layer.Options{Form: layer.FormBtrfs, Jail: true}); err == nil {
			w.snaps, err = Open(filepath.Join(dir, name, "snapshots"), w.layers)
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := open("grown")
	for n, chain := range [][]int{{}, {0}, {1}, {0, 1}, {2}, {0, 1, 2}, {2, 0}, {0, 2}} {
		tars := [][]byte{base}
		for _, c := range chain {
			tars = append(tars, more[c])
		}
		fresh := open("fresh" + string(rune('a'+n)))
		t.Log(chain)
		same(t, w.show(t, tars...), fresh.show(t, tars...))
	}
}
