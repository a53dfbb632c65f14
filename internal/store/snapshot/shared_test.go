package snapshot

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

// TestShared: what one container has read is in memory for the next of the same image; the mount that they share goes with the image, and another is
// made when a repair has put a new file in an old one's place.
func TestShared(t *testing.T) {
	const size = 4 << 20
	forms(t, func(t *testing.T, w world) {
		chain := w.ingest(t, makeTar(t, entry{name: "big", data: strings.Repeat("0123456789abcdef", size/16)}))
		if _, err := w.snaps.Prepare(t.Context(), "x", chain); err != nil {
			t.Fatal(err)
		}
		m, err := w.snaps.Mount("x", true)
		if err != nil {
			t.Fatal(err)
		}
		f, err := safepath.FromFile(m).Open("big", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, f); n != size || err != nil {
			t.Fatal(n, err)
		}
		f.Close()
		m.Close()
		if err := w.snaps.Remove(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.snaps.Prepare(t.Context(), "y", chain); err != nil {
			t.Fatal(err)
		}
		r, layers, err := w.snaps.Open(t.Context(), "y")
		if err != nil {
			t.Fatal(err)
		}
		if layers == nil {
			t.Skip("nothing to share but folders or loop devices, or no Linux 6.15")
		}
		lower := safepath.FromFile(layers)
		defer lower.Close()
		if f, err = lower.Open("big", unix.O_RDONLY, 0); err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var c unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{Len: size}, &c, 0); err != nil {
			t.Fatal(err)
		}
		if have := int(c.Cache) * os.Getpagesize(); have != size {
			t.Errorf("%d of %d bytes are in memory after the first container", have, size)
		}

		id := func() uint64 {
			t.Helper()
			_, again, err := w.snaps.Open(t.Context(), "y")
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			return mountID(t, again)
		}
		before := mountID(t, layers)
		if now := id(); now != before {
			t.Errorf("two containers, mounts %d and %d", before, now)
		}
		index := r.Lower[0].Source
		b, err := os.ReadFile(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(index+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(index+".new", index); err != nil {
			t.Fatal(err)
		}
		if now := id(); now == before {
			t.Errorf("%s is another file now, and mount %d still used", index, before)
		}

		ids, err := w.layers.ListMerged()
		if err != nil || len(ids) != 1 {
			t.Fatal(ids, err)
		}
		if err := w.layers.RemoveMerged(ids[0]); err != nil {
			t.Fatal(err)
		}
		last := id() // made of nothing that was held
		if err := w.layers.RemoveMerged(ids[0]); err != nil {
			t.Fatal(err)
		}
		if now := id(); now == last {
			t.Error("the mount outlived what Merge had made")
		}
	})
}

func mountID(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mnt_id
}
