package image

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
)

// env is a store on a temporary folder.
type env struct {
	*Store
	dir string
	l   *layer.Store
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
	l, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs})
	if err != nil {
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
	<-e.l.Free()
	for _, d := range []string{"content/blobs/sha256", "content/ingest", "content/partial", "layers/sha256", "layers/merged", "layers/tmp"} {
		es, err := os.ReadDir(filepath.Join(e.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		n += len(es)
	}
	return n
}
