package image

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/opencontainers/go-digest"
)

// tars is a Layers that keeps verified tars in a folder and nothing else.
type tars struct{ dir string }

func (l tars) path(d digest.Digest) string { return filepath.Join(l.dir, d.Encoded()) }

func (l tars) Has(d digest.Digest) bool {
	_, err := os.Stat(l.path(d))
	return err == nil
}

func (l tars) Ingest(ctx context.Context, want digest.Digest, r io.Reader) error {
	f, err := os.CreateTemp(l.dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := digest.SHA256.Digester()
	if _, err := io.Copy(io.MultiWriter(f, h.Hash()), r); err != nil {
		return err
	}
	if got := h.Digest(); got != want {
		return errdef.New(errdef.DataLoss, "wrong diff ID: got %s, promised %s", got, want)
	}
	return os.Rename(f.Name(), l.path(want))
}

func (l tars) Remove(d digest.Digest) error { return os.Remove(l.path(d)) }

func (l tars) List() (all []digest.Digest, err error) {
	es, err := os.ReadDir(l.dir)
	for _, e := range es {
		all = append(all, digest.Digest("sha256:"+e.Name()))
	}
	return all, err
}

// env is a store on a temporary folder.
type env struct {
	*Store
	dir string
	l   tars
}

func newEnv(t testing.TB, k *registry.Client) *env {
	t.Helper()
	e, err := openEnv(t.TempDir(), k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.c.DB.Close() })
	return e
}

func openEnv(dir string, k *registry.Client) (*env, error) {
	l := tars{filepath.Join(dir, "layers")}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	db, err := meta.Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		return nil, err
	}
	c, err := content.Open(filepath.Join(dir, "content"))
	if err != nil {
		return nil, err
	}
	s, err := Open(Config{DB: db, Content: c, Layers: l, Registry: k})
	return &env{s, dir, l}, err
}

// quick is a client that does not make tests wait.
func quick() *registry.Client {
	return registry.New(registry.Config{BackOff: 5 * time.Millisecond, MaxWait: 2 * time.Second, Stall: 2 * time.Second})
}

// files counts what lies under the folders of a store, metadata excluded.
func (e *env) files(t testing.TB) (n int) {
	t.Helper()
	for _, d := range []string{"content/blobs/sha256", "content/ingest", "layers"} {
		es, err := os.ReadDir(filepath.Join(e.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		n += len(es)
	}
	return n
}
