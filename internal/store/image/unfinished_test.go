package image

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestUnfinished: what a broken pull has brought waits for the next try, a day long, unless there is no use in one.
func TestUnfinished(t *testing.T) {
	var tars [][]byte
	for i := range 3 {
		tars = append(tars, kit.Tar(t, kit.Text(fmt.Sprint(i), noise(1000+i))))
	}
	img := kit.Build(t, kit.Spec{Tars: tars})
	last := img.Manifest.Layers[2].Digest
	h := kit.StartHostile(t)
	name := h.Serve("x:1", img)
	gate := make(chan struct{}, 2)
	for _, d := range img.Manifest.Layers[:2] {
		h.Fault(d.Digest.String(), func(http.ResponseWriter, *http.Request) bool { gate <- struct{}{}; return false })
	}
	// broken is a pull whose last layer fails once the others are there.
	broken := func(e *env, f kit.Fault, want errdef.Kind) {
		t.Helper()
		h.Fault(last.String(), func(w http.ResponseWriter, r *http.Request) bool {
			for !e.l.Has(img.DiffIDs[0]) || !e.l.Has(img.DiffIDs[1]) {
				time.Sleep(time.Millisecond)
			}
			return f(w, r)
		})
		if _, err := e.Pull(context.Background(), name, PullOptions{}); !errdef.Is(err, want) {
			t.Fatalf("got %v", err)
		}
		h.Fault(last.String(), nil)
		for len(gate) > 0 {
			<-gate
		}
	}
	e := newEnv(t, quick())
	broken(e, kit.Status(503, ""), errdef.Unavailable)
	if n := e.files(t); n != 2 {
		t.Errorf("%d files, want the two whole layers", n)
	}
	if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil || len(gate) != 0 {
		t.Errorf("the next try fetched %d of them again: %v", len(gate), err)
	}
	if c, err := e.catalog(); err != nil || len(c.pulls) != 0 {
		t.Errorf("still on record: %v %v", c.pulls, err)
	}
	if _, _, err := e.Remove(name, false, nil); err != nil || e.files(t) != 0 {
		t.Errorf("removed, and %d files are left: %v", e.files(t), err)
	}

	broken(e, kit.Status(503, ""), errdef.Unavailable)
	if err := e.c.DB.Put(bucketPulls, img.ID.String(), unfinished{img.DiffIDs, time.Now().Add(-keepUnfinished)}); err != nil {
		t.Fatal(err)
	}
	if err := e.Freeze(func(l Live) error {
		if len(l.Digests) != 0 {
			t.Errorf("after a day there still live %v", l.Digests)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, deleted, freed, err := e.Prune(PruneOptions{}); err != nil || len(deleted) != 2 || freed < 2000 || e.files(t) != 0 {
		t.Errorf("pruned %v, %d bytes, %v; %d files are left", deleted, freed, err, e.files(t))
	}

	broken(e, kit.Body([]byte("something else"), true), errdef.DataLoss)
	if c, err := e.catalog(); err != nil || len(c.pulls) != 0 || e.files(t) != 0 {
		t.Errorf("no use in another try, and there are %v and %d files: %v", c.pulls, e.files(t), err)
	}
}
