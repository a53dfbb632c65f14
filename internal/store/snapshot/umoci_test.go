package snapshot

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// ociLayout writes an image of uncompressed layers for other people's tools.
func ociLayout(t *testing.T, dir string, tars ...[]byte) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(mediaType string, b []byte) v1.Descriptor {
		d := digest.FromBytes(b)
		if err := os.WriteFile(filepath.Join(blobs, d.Encoded()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	document := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	config := v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, b := range tars {
		l := put(v1.MediaTypeImageLayer, b)
		m.Layers, config.RootFS.DiffIDs = append(m.Layers, l), append(config.RootFS.DiffIDs, l.Digest)
	}
	m.Config = put(v1.MediaTypeImageConfig, document(config))
	d := put(v1.MediaTypeImageManifest, document(m))
	d.Annotations = map[string]string{v1.AnnotationRefName: "t"}
	for name, v := range map[string]any{"index.json": v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{d}}, "oci-layout": v1.ImageLayout{Version: "1.0.0"}} {
		if err := os.WriteFile(filepath.Join(dir, name), document(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAgainstUmoci: a container sees, object by object, what umoci unpacks of the same layers: kinds, modes, owners, times to the nanosecond,
// contents, links of one file, extended attributes.
func TestAgainstUmoci(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("no umoci")
	}
	var es []entry
	for n := range 80 {
		dir := fmt.Sprintf("tree/%03d/", n)
		es = append(es, entry{name: dir, mode: int64(0o700 + n%8), uid: n})
		for k := range 100 {
			name := fmt.Sprintf("%sf%d", dir, k)
			switch {
			case k%10 == 3:
				es = append(es, entry{name: name, typ: tar.TypeLink, link: fmt.Sprintf("%sf%d", dir, k-1)})
			case k%10 == 5:
				es = append(es, entry{name: name, typ: tar.TypeSymlink, link: fmt.Sprintf("../%03d/f%d", n-1, k)})
			case k%10 == 7:
				es = append(es, entry{name: name, data: name, mode: 0o4711, gid: k, xattrs: map[string]string{"user.k": name, "security.capability": capability}})
			default:
				es = append(es, entry{name: name, data: fmt.Sprintf("%s of %d\n", name, k)})
			}
		}
	}
	base := makeTar(t, append([]entry{{name: "./", mode: 0o755}, {name: "tree/"}}, es...)...)
	var second []entry
	for n := range 80 {
		dir := fmt.Sprintf("tree/%03d/", n)
		switch n % 4 {
		case 0:
			second = append(second, entry{name: dir, mode: 0o750}, entry{name: dir + ".wh.f1"}, entry{name: dir + "f2", data: "other"}, entry{name: dir + "new/"}, entry{name: dir + "new/x", data: "x"})
		case 1:
			second = append(second, entry{name: dir, mode: 0o755}, entry{name: dir + ".wh..wh..opq"}, entry{name: dir + "only", data: "o"})
		case 2:
			second = append(second, entry{name: fmt.Sprintf("tree/.wh.%03d", n)})
		}
	}
	tars := [][]byte{below(t), base, makeTar(t, append([]entry{{name: "tree/"}}, second...)...)}
	dir := t.TempDir()
	ociLayout(t, filepath.Join(dir, "oci"), tars...)
	if out, err := exec.Command(umoci, "unpack", "--image", filepath.Join(dir, "oci")+":t", filepath.Join(dir, "bundle")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := safepath.OpenRoot(filepath.Join(dir, "bundle", "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := lines(describe(t, r))
	if len(want) < 4000 {
		t.Errorf("umoci unpacked only %d objects", len(want))
	}
	forms(t, func(t *testing.T, w world) {
		got := lines(w.show(t, tars...))
		bad := 0
		for p, l := range want {
			if got[p] != l {
				if bad++; bad < 12 {
					t.Errorf("umoci: %s\nwe:    %s", l, got[p])
				}
			}
		}
		if len(got) != len(want) || bad > 0 {
			t.Errorf("%d objects, umoci has %d; %d differ", len(got), len(want), bad)
		}
	})
}
