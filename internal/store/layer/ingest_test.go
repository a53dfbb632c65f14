package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "crypto/sha512" // so that such a digest is valid
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func store(t testing.TB, form string) *Store {
	t.Helper()
	if form == FormDir && os.Getuid() != 0 {
		t.Skip("needs root: owners and nodes")
	}
	s, err := Open(filepath.Join(t.TempDir(), "layers"), Options{Form: form, Jail: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func simple(t testing.TB, files int, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := make([]byte, size)
	rand.New(rand.NewSource(int64(files))).Read(data)
	for n := range files {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", n/100, n), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	return b.Bytes()
}

// empty reports what is left in the store besides its own folders.
func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	<-s.Free()
	var left []string
	for _, d := range []string{shaDir, mergedDir, tmpDir} {
		ents, err := os.ReadDir(filepath.Join(s.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			left = append(left, d+"/"+e.Name())
		}
	}
	return left
}

func TestIngestRoundTrip(t *testing.T) {
	for _, form := range []string{FormErofs, FormDir} {
		t.Run(form, func(t *testing.T) {
			s := store(t, form)
			b := simple(t, 10, 1000)
			id := digest.FromBytes(b)
			info, err := s.Ingest(t.Context(), id, bytes.NewReader(b))
			if err != nil || info != (Info{DiffID: id, Size: int64(len(b)), Entries: 11, Implicit: true}) {
				t.Fatalf("%+v %v", info, err)
			}
			f, err := s.OpenTar(id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			f.Close()
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("the tar differs: %v", err)
			}
			if again, err := s.Ingest(t.Context(), id, errReader{}); err != nil || again != info {
				t.Errorf("second ingest: %v", err)
			}
			if ids, err := s.List(); err != nil || len(ids) != 1 || ids[0] != id || !s.Has(id) {
				t.Errorf("list %v %v", ids, err)
			}
			m, err := s.Merge(t.Context(), []digest.Digest{id})
			if err != nil {
				t.Fatal(err)
			}
			if ids, err := s.ListMerged(); err != nil || len(ids) != 1 || ids[0] != m.ChainID {
				t.Errorf("merged %v %v", ids, err)
			}
			if err := errors.Join(s.RemoveMerged(m.ChainID), s.RemoveMerged(m.ChainID), s.Remove(id)); err != nil {
				t.Error(err)
			}
			if err := s.Remove(id); !errdef.Is(err, errdef.NotFound) {
				t.Errorf("second remove: %v", err)
			}
			if _, err := s.Info(id); !errdef.Is(err, errdef.NotFound) {
				t.Errorf("info after remove: %v", err)
			}
			if l := leftovers(t, s); l != nil {
				t.Errorf("left: %v", l)
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("read though nobody should") }

func TestIngestRefusesAndLeavesNothing(t *testing.T) {
	b := simple(t, 3, 100)
	id := digest.FromBytes(b)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	broken := errors.New("connection lost")
	cases := []struct {
		name string
		ctx  context.Context
		want digest.Digest
		r    io.Reader
		kind errdef.Kind
		text string
	}{
		{"wrong digest", nil, digest.FromString("other"), bytes.NewReader(b), errdef.DataLoss, id.String()},
		{"short", nil, id, bytes.NewReader(b[:len(b)-1]), errdef.DataLoss, ""},
		{"long", nil, id, bytes.NewReader(append(bytes.Clone(b), 0)), errdef.DataLoss, ""},
		{"truncated in an entry", nil, digest.FromBytes(b[:600]), bytes.NewReader(b[:600]), errdef.DataLoss, "middle of an entry"},
		{"cancelled", cancelled, id, bytes.NewReader(b), errdef.Cancelled, ""},
		{"read error", nil, id, io.MultiReader(bytes.NewReader(b[:600]), failing{broken}), errdef.System, "connection lost"},
		{"bad digest", nil, "sha256:../../etc", bytes.NewReader(b), errdef.InvalidArgument, ""},
		{"sha512", nil, digest.SHA512.FromBytes(b), bytes.NewReader(b), errdef.NotImplemented, "sha256"},
		{"no tar", nil, digest.FromBytes(bytes.Repeat([]byte("x"), 1024)), strings.NewReader(strings.Repeat("x", 1024)), errdef.InvalidArgument, "checksum"},
		{"silent reader", nil, id, silent{}, errdef.System, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := store(t, FormErofs)
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			_, err := s.Ingest(c.ctx, c.want, c.r)
			if err == nil || errdef.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), string(c.want)) {
				t.Errorf("got %v, kind %d", err, errdef.KindOf(err))
			}
			if l := leftovers(t, s); l != nil {
				t.Errorf("left: %v", l)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestIngestOnceForMany(t *testing.T) {
	s := store(t, FormErofs)
	b := simple(t, 200, 10000)
	id := digest.FromBytes(b)
	var read atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := s.Ingest(t.Context(), id, counted{bytes.NewReader(b), &read}); err != nil {
				t.Error(err)
			}
			if _, err := s.Merge(t.Context(), []digest.Digest{id}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if read.Load() != int64(len(b)) {
		t.Errorf("read %d bytes of a layer of %d", read.Load(), len(b))
	}
}

// A leader that fails must not take the others with it.
func TestIngestLeaderFails(t *testing.T) {
	s := store(t, FormErofs)
	b := simple(t, 3, 100)
	id := digest.FromBytes(b)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	first := make(chan error)
	go func() { _, err := s.Ingest(ctx, id, pr); first <- err }()
	pw.Write(b[:600]) // the leader is at work now
	second := make(chan error)
	go func() { _, err := s.Ingest(t.Context(), id, bytes.NewReader(b)); second <- err }()
	cancel()
	pw.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-first; err == nil {
		t.Error("the cancelled one succeeded")
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	s := store(t, FormErofs)
	old := filepath.Join(s.dir, tmpDir, "layer-123")
	if err := os.MkdirAll(filepath.Join(old, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	live, drop, err := s.stage("layer")
	if err != nil {
		t.Fatal(err)
	}
	defer drop()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(old); !os.IsNotExist(err) {
		t.Error("the leftover is still there")
	}
	if _, err := os.Lstat(live); err != nil {
		t.Error("a folder in use was swept")
	}
}

// TestFree: what is removed has no name at once, and can come again; its space comes back behind that.
func TestFree(t *testing.T) {
	s := store(t, FormErofs)
	b := simple(t, 3, 100)
	id := digest.FromBytes(b)
	for range 2 {
		if _, err := s.Ingest(t.Context(), id, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		m, err := s.Merge(t.Context(), []digest.Digest{id})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.RemoveMerged(m.ChainID), s.Remove(id)); err != nil || s.Has(id) {
			t.Fatal(err)
		}
	}
	if err := s.Remove(id); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
	left := func() int {
		es, err := os.ReadDir(filepath.Join(s.dir, tmpDir))
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	if n := left(); n != 4 {
		t.Errorf("%d folders on their way out, want 4", n)
	}
	<-s.Free()
	<-s.Free()
	if n := left(); n != 0 {
		t.Errorf("%d folders are left", n)
	}
}

func TestMergeManyLayers(t *testing.T) {
	s := store(t, FormErofs)
	var chain []digest.Digest
	for n := range MaxLayers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", n), Typeflag: tar.TypeReg, Size: 4})
		fmt.Fprintf(w, "%04d", n)
		w.Close()
		id := digest.FromBytes(b.Bytes())
		if _, err := s.Ingest(t.Context(), id, &b); err != nil {
			t.Fatal(err)
		}
		chain = append(chain, id)
	}
	m, err := s.Merge(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Devices) != MaxLayers || len(m.Lower) != 1 {
		t.Errorf("%d devices, %d lower layers", len(m.Devices), len(m.Lower))
	}
	if _, err := s.Merge(t.Context(), append(chain, chain[0])); !errdef.Is(err, errdef.InvalidArgument) {
		t.Errorf("501 layers: %v", err)
	}
	if os.Getuid() != 0 {
		return
	}
	if err := s.Usable(); err != nil {
		t.Skip(err)
	}
	f, err := MountErofs(m.Index, m.Devices, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{0, 250, 499} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/f%d", f.Fd(), n))
		if err != nil || string(b) != fmt.Sprintf("%04d", n) {
			t.Errorf("f%d: %q %v", n, b, err)
		}
	}
}

func BenchmarkIngest(b *testing.B) {
	for _, size := range []struct{ files, bytes int }{{4000, 64 << 10}, {40000, 4 << 10}} {
		data := simple(b, size.files, size.bytes)
		id := digest.FromBytes(data)
		b.Run(fmt.Sprintf("%dx%d", size.files, size.bytes), func(b *testing.B) {
			s := store(b, FormErofs)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := s.Ingest(context.Background(), id, bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
				s.Remove(id)
			}
		})
		b.Run(fmt.Sprintf("sha256-%dx%d", size.files, size.bytes), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				sha256.Sum256(data)
			}
		})
	}
}
