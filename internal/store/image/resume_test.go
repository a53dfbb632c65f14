package image

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// halfway is a store with a registry that has an image of one layer of 1.3 MB, of which the store has had 500,000 bytes.
type halfway struct {
	*env
	h     *kit.Hostile
	name  string
	layer digest.Digest
	blob  []byte
	diff  digest.Digest
	from  int // requests before
}

const hadBytes = 500_000

func newHalfway(t *testing.T, compress string) *halfway {
	t.Helper()
	img := kit.Build(t, kit.Spec{Compress: compress, Tars: [][]byte{kit.Tar(t, kit.Text("f", noise(1_300_000)))}})
	w := &halfway{env: newEnv(t, quick()), h: kit.StartHostile(t), layer: img.Manifest.Layers[0].Digest, diff: img.DiffIDs[0]}
	w.name, w.blob = w.h.Serve("x:1", img), img.Blobs[w.layer]
	w.h.Fault(w.layer.String(), kit.BreakAfter(w.blob, hadBytes/5)) // five attempts
	if _, err := w.pull(nil); !errdef.Is(err, errdef.Unavailable) {
		t.Fatalf("got %v", err)
	}
	w.h.Fault(w.layer.String(), nil)
	if got, err := os.ReadFile(w.part()); err != nil || string(got) != string(w.blob[:hadBytes]) {
		t.Fatalf("%d bytes are kept: %v", len(got), err)
	}
	w.from = len(w.h.Seen())
	return w
}

func (w *halfway) part() string { return filepath.Join(w.dir, "content/partial", w.layer.Encoded()) }

func (w *halfway) pull(progress func(Event)) (Image, error) {
	return w.Pull(context.Background(), w.name, PullOptions{Progress: progress})
}

// asked are the ranges of the layer that were asked for.
func (w *halfway) asked() (all []string) {
	for _, s := range w.h.Seen()[w.from:] {
		if strings.HasSuffix(s.Path, w.layer.String()) {
			all = append(all, s.Range)
		}
	}
	return all
}

// TestResumed: what a broken pull had of a layer is not fetched again, and whatever has become of it meanwhile, the next pull succeeds.
func TestResumed(t *testing.T) {
	const rest = "bytes=500000-"
	flip := func(at int64) func(*testing.T, *halfway) {
		return func(t *testing.T, w *halfway) {
			f, err := os.OpenFile(w.part(), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 1)
			f.ReadAt(b, at)
			b[0] ^= 0x10
			f.WriteAt(b, at)
		}
	}
	for _, c := range []struct {
		name   string
		before func(*testing.T, *halfway)
		want   []string // two: it may be found out before the rest is asked for
	}{
		{"as it was", nil, []string{rest}},
		{"its first byte is another", flip(0), []string{rest, ""}},
		{"a byte in the middle is another", flip(hadBytes / 2), []string{rest, ""}},
		{"the last byte is another", flip(hadBytes - 1), []string{rest, ""}},
		{"its end is lost", func(_ *testing.T, w *halfway) { os.Truncate(w.part(), 1000) }, []string{"bytes=1000-"}},
		{"its end is a hole", func(_ *testing.T, w *halfway) { os.Truncate(w.part(), 1000); os.Truncate(w.part(), 600000) }, []string{"bytes=600000-", ""}},
		{"it is empty", func(_ *testing.T, w *halfway) { os.Truncate(w.part(), 0) }, []string{""}},
		{"it is gone", func(_ *testing.T, w *halfway) { os.Remove(w.part()) }, []string{""}},
		{"it is whole", func(_ *testing.T, w *halfway) { os.WriteFile(w.part(), w.blob, 0o600) }, nil},
		{"whole, and another blob", func(_ *testing.T, w *halfway) { os.WriteFile(w.part(), make([]byte, len(w.blob)), 0o600) }, []string{""}},
		{"longer than the blob", func(_ *testing.T, w *halfway) { os.WriteFile(w.part(), append(w.blob, 0), 0o600) }, []string{""}},
		{"a folder is in its place", func(_ *testing.T, w *halfway) { os.Remove(w.part()); os.Mkdir(w.part(), 0o700) }, []string{""}},
		{"the registry knows no ranges", func(_ *testing.T, w *halfway) {
			w.h.Fault("blob", func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
		}, []string{rest}},
		{"the registry refuses ranges", func(_ *testing.T, w *halfway) {
			w.h.Fault("blob", func(rw http.ResponseWriter, r *http.Request) bool {
				return r.Header.Get("Range") != "" && kit.Status(416, "")(rw, r)
			})
		}, []string{rest, ""}},
	} {
		for _, compress := range []string{"none", "gzip", "zstd"} {
			t.Run(c.name+", "+compress, func(t *testing.T) {
				w := newHalfway(t, compress)
				if c.before != nil {
					c.before(t, w)
				}
				if _, err := w.pull(nil); err != nil {
					t.Error(err)
				}
				if got := w.asked(); !slices.Equal(got, c.want) && !(len(c.want) == 2 && slices.Equal(got, c.want[1:])) {
					t.Errorf("asked for %q, want %q", got, c.want)
				}
				if have, err := w.l.List(); err != nil || !slices.Equal(have, []digest.Digest{w.diff}) {
					t.Errorf("layers %v: %v", have, err)
				}
				if st, err := os.Stat(w.part()); err == nil && st.Mode().IsRegular() {
					t.Error("the beginning is still there")
				}
			})
		}
	}
}

// TestResumedProgress: a resumed download goes on where it was, for whoever looks.
func TestResumedProgress(t *testing.T) {
	w := newHalfway(t, "none")
	var seen []Event
	if _, err := w.pull(func(e Event) {
		if e.Total > 0 {
			seen = append(seen, e)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if e := seen[0]; e.Status != "Resuming download" || e.Current != hadBytes || e.Total != int64(len(w.blob)) {
		t.Errorf("%+v", e)
	}
	for n, e := range seen[1:] {
		if e.Current < hadBytes || n == 0 && e.Status != "Downloading" {
			t.Errorf("%+v", e)
		}
	}
}

// TestResumedBad: a layer that is not what was promised is fetched anew once, and then nothing of it is kept.
func TestResumedBad(t *testing.T) {
	w := newHalfway(t, "none")
	w.h.Fault(w.layer.String(), kit.Body(append(w.blob[:len(w.blob)-1:len(w.blob)-1], 'x'), true))
	if _, err := w.pull(nil); !errdef.Is(err, errdef.DataLoss) {
		t.Errorf("got %v", err)
	}
	if got := w.asked(); !slices.Equal(got, []string{"bytes=500000-", ""}) || w.files(t) != 0 {
		t.Errorf("asked for %q; %d files are left", got, w.files(t))
	}
}

// TestResumedLater: what cannot be had now is kept for as long as it may be mended; a prune takes it.
func TestResumedLater(t *testing.T) {
	w := newHalfway(t, "none")
	for _, status := range []int{401, 403, 404, 503} {
		w.h.Fault(w.layer.String(), kit.Status(status, ""))
		if _, err := w.pull(nil); err == nil {
			t.Error("a layer came from nowhere")
		}
		if st, err := os.Stat(w.part()); err != nil || st.Size() != hadBytes {
			t.Errorf("%d: %v %v", status, st, err)
		}
	}
	if _, deleted, freed, err := w.Prune(PruneOptions{Until: time.Now()}); err != nil || freed != 0 || len(deleted) != 0 || w.files(t) != 1 {
		t.Errorf("pruned with a filter: %v, %d bytes; %v", deleted, freed, err)
	}
	if _, deleted, freed, err := w.Prune(PruneOptions{}); err != nil || freed < hadBytes || len(deleted) != 0 || w.files(t) != 0 {
		t.Errorf("pruned: %v, %d bytes; %v; %d files are left", deleted, freed, err, w.files(t))
	}
}

// TestResumedRepair: a repair goes on with a layer, too.
func TestResumedRepair(t *testing.T) {
	w := newHalfway(t, "none")
	if _, err := w.pull(nil); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(layer.Dir(w.l, w.diff), "layer.tar")
	if err := os.Truncate(tar, 5000); err != nil {
		t.Fatal(err)
	}
	f, err := LedgerOf(w.Store).Refetcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.h.Fault(w.layer.String(), kit.BreakAfter(w.blob, hadBytes/5))
	if _, err := f.Layer(context.Background(), w.diff); !errdef.Is(err, errdef.Unavailable) && !strings.Contains(fmt.Sprint(err), "broke off") {
		t.Errorf("got %v", err)
	}
	w.h.Fault(w.layer.String(), nil)
	w.from = len(w.h.Seen())
	if _, err := f.Layer(context.Background(), w.diff); err != nil {
		t.Error(err)
	}
	if got := w.asked(); !slices.Equal(got, []string{"bytes=500000-"}) {
		t.Errorf("asked for %q", got)
	}
	if bad, err := layer.Verify(context.Background(), w.l, w.diff); err != nil || len(bad) != 0 {
		t.Errorf("%v %v", bad, err)
	}
	if _, err := os.Stat(w.part()); err == nil {
		t.Error("the beginning is still there")
	}
}

// TestResumedByAnother: of two pulls that want a layer the second goes on where the first was cancelled; nothing is fetched twice.
func TestResumedByAnother(t *testing.T) {
	w := newHalfway(t, "none")
	more := make(chan struct{})
	w.h.Fault(w.layer.String(), kit.Times(1, func(rw http.ResponseWriter, r *http.Request) bool { // sends some, and then waits
		rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", hadBytes, len(w.blob)-1, len(w.blob)))
		rw.WriteHeader(http.StatusPartialContent)
		rw.Write(w.blob[hadBytes : 2*hadBytes])
		rw.(http.Flusher).Flush()
		close(more)
		<-r.Context().Done()
		return true
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := w.Pull(ctx, w.name, PullOptions{}); !errdef.Is(err, errdef.Cancelled) {
			t.Errorf("the first: %v", err)
		}
	})
	<-more
	waits := make(chan struct{}, 1)
	wg.Go(func() {
		if _, err := w.pull(func(e Event) {
			if e.Status == "Pulling fs layer" {
				waits <- struct{}{}
			}
		}); err != nil {
			t.Errorf("the second: %v", err)
		}
	})
	<-waits
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if st, err := os.Stat(w.part()); err == nil && st.Size() == 2*hadBytes {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("what comes is not kept")
		}
	}
	cancel()
	wg.Wait()
	if got := w.asked(); !slices.Equal(got, []string{"bytes=500000-", "bytes=1000000-"}) {
		t.Errorf("asked for %q", got)
	}
}
