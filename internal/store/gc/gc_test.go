package gc

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

func stores(t *testing.T) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	db, err := meta.Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := Config{Start: true}
	if c.Content, err = content.Open(filepath.Join(dir, "content")); err != nil {
		t.Fatal(err)
	}
	if c.Layers, err = layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs}); err != nil {
		t.Fatal(err)
	}
	if c.Images, err = image.Open(image.Config{DB: db, Content: c.Content, Layers: c.Layers}); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func TestSweep(t *testing.T) {
	c, dir := stores(t)
	ctx := context.Background()
	img, err := c.Images.AddLocal(ctx, "keep", dockerspec.DockerOCIImage{}, bytes.NewReader(kit.Tar(t, kit.Text("a", "a"))), bytes.NewReader(kit.Tar(t, kit.Text("b", "b"))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Layers.Merge(ctx, img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	add := func(name string) digest.Digest { // a layer no image has
		raw := kit.Tar(t, kit.Text(name, name))
		d := digest.FromBytes(raw)
		if _, err := c.Layers.Ingest(ctx, d, bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Layers.Merge(ctx, []digest.Digest{d}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	orphan, kept := add("orphan"), add("kept by a container")
	blob := []byte("nobody's manifest")
	if err := c.Content.Put(ctx, digest.FromBytes(blob), -1, bytes.NewReader(blob)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"content/ingest/123", "content/blobs/sha256/.tmp-x", "content/.tmp-index.json-1", "layers/tmp/left"} {
		if err := os.WriteFile(filepath.Join(dir, p), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.Keep, c.Chains = []digest.Digest{kept}, []digest.Digest{kept}
	r, err := Sweep(c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Blobs != 1 || r.Layers != 1 || r.Merged != 1 || r.Temporary != 3 || r.Bytes == 0 {
		t.Errorf("%+v", r)
	}
	if c.Layers.Has(orphan) || !c.Layers.Has(kept) || !c.Layers.Has(img.DiffIDs[0]) || !c.Layers.Has(img.DiffIDs[1]) {
		t.Error("wrong layers swept")
	}
	merged, _ := c.Layers.ListMerged()
	want := []digest.Digest{layer.ChainID(img.DiffIDs), kept}
	slices.Sort(merged)
	slices.Sort(want)
	if !slices.Equal(merged, want) {
		t.Errorf("merged %v, want %v", merged, want)
	}
	if again, err := Sweep(c); err != nil || again != (Report{}) {
		t.Errorf("second sweep: %+v %v", again, err)
	}
	if es, _ := os.ReadDir(filepath.Join(dir, "layers/tmp")); len(es) != 0 {
		t.Error("temporary layer left")
	}
	if got, err := c.Images.Resolve("keep"); err != nil || got.ID != img.ID {
		t.Error(err)
	}
}
