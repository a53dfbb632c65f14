package snapshot

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/store/layer"
)

// BenchmarkSnapshot is what the store adds to the start and end of a container.
func BenchmarkSnapshot(b *testing.B) {
	dir := b.TempDir()
	l, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "snapshots"), l)
	if err != nil {
		b.Fatal(err)
	}
	tar := makeTar(b, entry{name: "bin/"}, entry{name: "bin/sh", data: "x"})
	chain := []digest.Digest{digest.FromBytes(tar)}
	if _, err := l.Ingest(b.Context(), chain[0], bytes.NewReader(tar)); err != nil {
		b.Fatal(err)
	}
	b.Run("prepare+remove", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Prepare(b.Context(), "x", chain); err != nil {
				b.Fatal(err)
			}
			if err := s.Remove(b.Context(), "x"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mount", func(b *testing.B) {
		if _, err := s.Prepare(b.Context(), "x", chain); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			m, err := s.Mount("x", true)
			if err != nil {
				b.Fatal(err)
			}
			m.Close()
		}
	})
}
