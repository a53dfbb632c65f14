package layer

import (
	"bytes"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestIndexReadAhead: an index that memory does not hold is on its way before the first file is looked at.
func TestIndexReadAhead(t *testing.T) {
	s := store(t, FormErofs)
	defer s.Close()
	raw := simple(t, 20_000, 0)
	id := digest.FromBytes(raw)
	if _, err := s.Ingest(t.Context(), id, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	m, err := s.Merge(t.Context(), []digest.Digest{id})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(m.Index)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	pages := uint64((st.Size() + page - 1) / page)
	cached := func() uint64 {
		t.Helper()
		var c unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &c, 0); err != nil {
			t.Skipf("cachestat (Linux 6.5): %v", err)
		}
		return c.Cache
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if cached() > pages/2 {
		t.Skip("the file system of TMPDIR keeps its files in memory")
	}
	layers, err := m.Share()
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Close() // of a nil file it is an error without effect
	if n := cached(); n < pages {
		t.Errorf("%d of the %d pages of the index are in memory or on their way", n, pages)
	}
}
