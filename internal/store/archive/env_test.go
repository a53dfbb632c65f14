package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/archive"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// env is a store on a folder.
type env struct {
	dir     string
	db      *meta.DB
	content *content.Store
	layers  *layer.Store
	images  *image.Store
}

func openEnv(dir string) (e *env, err error) {
	e = &env{dir: dir}
	if e.db, err = meta.Open(filepath.Join(dir, "meta.db")); err != nil {
		return nil, err
	}
	if e.content, err = content.Open(filepath.Join(dir, "content")); err != nil {
		return nil, err
	}
	if e.layers, err = layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs}); err != nil {
		return nil, err
	}
	e.images, err = image.Open(image.Config{DB: e.db, Content: e.content, Layers: e.layers})
	return e, err
}

func newEnv(t testing.TB) *env {
	t.Helper()
	e, err := openEnv(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.db.Close() })
	return e
}

// files lists blobs, layers and temporary files.
func (e *env) files(t testing.TB) (all []string) {
	t.Helper()
	<-e.layers.Free()
	for _, d := range []string{"content/blobs/sha256", "content/ingest", "layers/sha256", "layers/merged", "layers/tmp"} {
		es, err := os.ReadDir(filepath.Join(e.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range es {
			all = append(all, d+"/"+x.Name())
		}
	}
	return all
}

func (e *env) load(t testing.TB, b []byte, platforms ...ocispec.Platform) ([]*image.Fresh, error) {
	t.Helper()
	return archive.Load(t.Context(), e.images, bytes.NewReader(b), archive.LoadOptions{Platforms: platforms, Host: manifest.HostPlatform()})
}

func (e *env) save(t testing.TB, names ...string) []byte {
	t.Helper()
	v, err := archive.NewSaving(e.images, names, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var b bytes.Buffer
	if err := v.Write(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample is an image of two layers, each larger than what is put aside when big is set.
func sample(t testing.TB, big bool, compress string) *kit.Image {
	n := 1000
	if big {
		n = 5 << 20
	}
	return kit.Build(t, kit.Spec{Compress: compress, Tars: [][]byte{
		kit.Tar(t, kit.Dir("a"), kit.Text("a/one", noise(n)), kit.Text("gone", "x")), kit.Tar(t, kit.Text("a/two", noise(n+1)), kit.Whiteout("gone")),
	}})
}

func noise(n int) string {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

func file(name string, b []byte) kit.File {
	return kit.File{Header: tar.Header{Name: name, Mode: 0o644}, Body: b}
}

func hardlink(name, to string) kit.File {
	return kit.File{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}}
}

func doc(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// layout is an OCI layout of images, each under annotations.
func layout(t testing.TB, annotations map[string]string, images ...*kit.Image) []kit.File {
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	ix.SchemaVersion = 2
	files := []kit.File{kit.Dir("blobs"), kit.Dir("blobs/sha256")}
	done := map[digest.Digest]bool{}
	blob := func(b []byte) {
		if d := digest.FromBytes(b); !done[d] {
			done[d] = true
			files = append(files, file("blobs/sha256/"+d.Encoded(), b))
		}
	}
	for _, img := range images {
		d := img.Top.Desc()
		d.Annotations = annotations
		ix.Manifests = append(ix.Manifests, d)
		for _, b := range img.Blobs {
			blob(b)
		}
		for _, x := range append(img.Docs, img.Top) {
			blob(x.Raw)
		}
	}
	return append(files, file("index.json", doc(t, ix)), file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)))
}
