package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/testkit/heap"
)

// crowd writes a tar of n small files, in folders of width.
func crowd(w io.Writer, n, width, size int) error {
	t := tar.NewWriter(w)
	body := make([]byte, size)
	for i := range n {
		h := tar.Header{Name: fmt.Sprintf("usr/lib/python3/package-%d/module_%d.py", i/width, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size), ModTime: time.Unix(1700000000+int64(i), 0)}
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		t.Write(body)
	}
	return t.Close()
}

// crowded streams such a tar, and tells its digest.
func crowded(n, width, size int) (id digest.Digest, open func() io.Reader) {
	h := sha256.New()
	crowd(h, n, width, size)
	return digest.NewDigest(digest.SHA256, h), func() io.Reader {
		r, w := io.Pipe()
		go func() { w.CloseWithError(crowd(w, n, width, size)) }() // ends with the reader
		return r
	}
}

// TestMemory: a layer's entries cost little while it comes in and while layers are merged.
func TestMemory(t *testing.T) {
	for _, c := range []struct{ entries, width, most int }{{164_000, 12, 40}, {1_000_000, 1_000_000, 40}} {
		if testing.Short() && c.entries > 200_000 {
			continue
		}
		id, open := crowded(c.entries, c.width, 0)
		s := store(t, FormErofs)
		check := func(what string, f func() error) {
			var err error
			began := time.Now()
			grown := heap.Highest(func() { err = f() }) >> 20
			t.Logf("%s %d entries: %d MiB, %s", what, c.entries, grown, time.Since(began))
			if err != nil || grown > uint64(c.most) {
				t.Errorf("%s %d entries: the heap grew by %d MiB, more than %d: %v", what, c.entries, grown, c.most, err)
			}
		}
		check("ingest", func() error { _, err := s.Ingest(context.Background(), id, open()); return err })
		check("merge", func() error { _, err := s.Merge(context.Background(), []digest.Digest{id}); return err })
	}
}
