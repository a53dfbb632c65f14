package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/go-digest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// left counts files in ingest and blobs.
func left(t *testing.T, s *Store) (n int) {
	t.Helper()
	for _, d := range []string{s.blobs(), filepath.Join(s.dir, ingestDir)} {
		es, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		n += len(es)
	}
	return n
}

func TestPutVerifies(t *testing.T) {
	s := open(t)
	body := []byte("a manifest")
	d := digest.FromBytes(body)
	ctx := context.Background()
	broken := errors.New("line cut")
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		d    digest.Digest
		size int64
		r    io.Reader
		kind errdef.Kind
	}{
		"wrong digest": {ctx, d, -1, strings.NewReader("other"), errdef.DataLoss},
		"short":        {ctx, d, int64(len(body)) + 1, bytes.NewReader(body), errdef.DataLoss},
		"long":         {ctx, d, int64(len(body)) - 1, bytes.NewReader(body), errdef.DataLoss},
		"cut":          {ctx, d, -1, io.MultiReader(bytes.NewReader(body), errReader{broken}), errdef.System},
		"cancelled":    {cancelled, d, -1, bytes.NewReader(body), errdef.Cancelled},
		"path":         {ctx, "sha256:../../x", -1, bytes.NewReader(body), errdef.InvalidArgument},
		"sha512":       {ctx, digest.Digest("sha512:" + strings.Repeat("0", 128)), -1, bytes.NewReader(body), errdef.InvalidArgument},
	} {
		if err := s.Put(c.ctx, c.d, c.size, c.r); !errdef.Is(err, c.kind) {
			t.Errorf("%s: kind %d: %v", name, errdef.KindOf(err), err)
		}
	}
	if n := left(t, s); n != 0 {
		t.Fatalf("%d files left", n)
	}
	if err := s.Put(ctx, d, int64(len(body)), bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if raw, err := s.Read(d, 100); err != nil || !bytes.Equal(raw, body) || !s.Has(d) {
		t.Fatal(err)
	}
	if _, err := s.Read(d, 3); !errdef.Is(err, errdef.DataLoss) {
		t.Error("limit not kept:", err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Size != int64(len(body)) {
		t.Error(all, err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestBitFlipIsSeen(t *testing.T) {
	s := open(t)
	body := []byte("config")
	d := digest.FromBytes(body)
	if err := s.Put(context.Background(), d, -1, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.blobs(), d.Encoded()), []byte("cOnfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(d, 100); !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), d.String()) {
		t.Error(err)
	}
	if err := s.Remove(d); err != nil || s.Has(d) {
		t.Error(err)
	}
	if _, err := s.Read(d, 100); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
}

func TestModes(t *testing.T) {
	s := open(t)
	if err := s.Put(context.Background(), digest.FromString("x"), 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	err := filepath.Walk(s.dir, func(p string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", p, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
