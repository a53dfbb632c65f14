package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/linux/tripwire"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/partial"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

const bb = harness.Image

// world is an engine with a registry, and a wire that goes off at one of its calls.
type world struct {
	*harness.Engine
	reg   *registry.Hostile
	file  string // an archive of one image
	plain string // a tar
	want  *registry.Image

	reused int64 // bytes that repeated pulls need not fetch

	mu     sync.Mutex
	armed  bool
	n      int    // calls since arm
	last   int    // the one at which it goes off, 0 for never
	hit    string // what that was
	off    func()
	prefix string
}

// start makes a world in dir, or in the engine's own folder.
func start(t *testing.T, flags ...string) *world {
	t.Helper()
	w := &world{Engine: harness.Start(t, flags...)}
	w.prefix = w.DataRoot
	for i, f := range flags {
		if f == "--data-root" {
			w.DataRoot, w.prefix = flags[i+1], flags[i+1]
		}
	}
	w.Kill() // it was not watched
	w.Watch(w.see)
	w.Run()
	w.reg = w.Hostile(harness.RegistryAddr)
	w.reg.Serve("busybox:latest", registry.Busybox(t))
	w.Dhow("pull", "-q", bb).OK()
	w.want = sample(t)
	w.reg.Serve("sample:1", w.want)
	w.reg.Serve("large:1", large(t))
	w.reg.Serve("lazy:1", lazily(t))
	dir := t.TempDir()
	w.file, w.plain = filepath.Join(dir, "image.tar"), filepath.Join(dir, "plain.tar")
	w.Dhow("pull", "-q", sampleRef).OK()
	w.Dhow("save", "-o", w.file, sampleRef).OK()
	w.Dhow("rmi", sampleRef).OK()
	if err := os.WriteFile(w.plain, registry.Tar(t, registry.Dir("d"), registry.Text("d/f", noise(300_000))), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

const sampleRef = harness.RegistryAddr + "/sample:1"

// sample is an image of three layers that do not compress.
func sample(t *testing.T) *registry.Image {
	var tars [][]byte
	for i := range 3 {
		tars = append(tars, registry.Tar(t, registry.Dir("d"), registry.Text(fmt.Sprint("d/", i), noise(150_000+i))))
	}
	return registry.Build(t, registry.Spec{Tars: tars})
}

// lazyRef is an image of three layers with tables of contents.
const lazyRef = harness.RegistryAddr + "/lazy:1"

func lazily(t *testing.T) *registry.Image {
	var tars [][]byte
	for i := range 3 {
		tars = append(tars, registry.Tar(t, registry.Dir("d"), registry.Text(fmt.Sprint("d/", i), noise(160_000+i))))
	}
	return registry.Build(t, registry.Spec{Tars: tars, Compress: "estargz"})
}

const largeRef = harness.RegistryAddr + "/large:1"

// large is an image of two layers whose blobs are large enough for their beginnings to be kept.
func large(t *testing.T) *registry.Image {
	var tars [][]byte
	for i := range 2 {
		tars = append(tars, registry.Tar(t, registry.Text(fmt.Sprint("f", i), noise(partial.Least+50_000+i))))
	}
	return registry.Build(t, registry.Spec{Tars: tars})
}

func noise(n int) string {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// see counts the calls that change the data root, and sets off what arm was told to.
func (w *world) see(c tripwire.Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return true
	}
	p, ok := strings.CutPrefix(c.Path(), w.prefix)
	if !ok {
		return true
	}
	if w.n++; w.n != w.last {
		return w.last == 0 || w.n < w.last
	}
	w.hit = c.Name() + " " + strings.TrimPrefix(p, "/")
	w.off()
	return false
}

// arm lets off happen in place of the nth call from now on; with 0 calls are counted.
func (w *world) arm(n int, off func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.n, w.last, w.hit, w.off = true, 0, n, "", off
}

// disarm ends that, when the engine is done with what it was told, and tells what was hit and how many calls there were.
func (w *world) disarm(t *testing.T, o operation) (hit string, n int) {
	w.behind(t, o)
	harness.Settle(w.Engine)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	return w.hit, w.n
}

// points chooses some of n points, spread over all.
func points(t *testing.T, n, few int) (out []int) {
	t.Helper()
	switch s := os.Getenv("DHOW_CRASH_POINTS"); {
	case s == "all":
		few = n
	case s != "":
		var err error
		if few, err = strconv.Atoi(s); err != nil {
			t.Fatalf("DHOW_CRASH_POINTS=%s: want a number or all", s)
		}
	case testing.Short():
		few = min(few, 2)
	}
	few = min(few, n)
	for i := range few {
		out = append(out, 1+i*n/few+n/few/2)
	}
	return out
}

const partialDir = "content/partial"

// begun are the blobs whose beginnings are kept.
func (w *world) begun(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(w.DataRoot, partialDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stored lists everything of images below the data root.
func (w *world) stored(t *testing.T) []string {
	t.Helper()
	harness.Settle(w.Engine)
	var all []string
	for _, d := range []string{"content/blobs/sha256", "content/ingest", partialDir, "layers/sha256", "layers/tmp"} {
		es, err := os.ReadDir(filepath.Join(w.DataRoot, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			all = append(all, d+"/"+e.Name())
		}
	}
	for _, d := range []string{"", "content"} {
		tmp, _ := filepath.Glob(filepath.Join(w.DataRoot, d, ".tmp-*"))
		all = append(all, tmp...)
	}
	return all
}

// verify reads the whole store: whatever has a name is what the name says, and nothing has no name.
func (w *world) verify(t *testing.T) (layers []digest.Digest) {
	t.Helper()
	ls, err := layer.Open(filepath.Join(w.DataRoot, "layers"), layer.Options{Form: layer.FormErofs}) // reads only
	if err != nil {
		t.Fatal(err)
	}
	if layers, err = ls.List(); err != nil {
		t.Fatal(err)
	}
	for _, d := range layers {
		if bad, err := layer.Verify(context.Background(), ls, d); err != nil || len(bad) > 0 {
			t.Errorf("layer %s: %v %v", d, bad, err)
		}
	}
	cs, err := content.Open(filepath.Join(w.DataRoot, "content"))
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := cs.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if _, err := cs.Read(b.Digest, 4<<20); err != nil {
			t.Error(err)
		}
	}
	w.Dhow("system", "check").OK()
	if n := len(blobs) + len(layers); len(w.stored(t)) != n+len(w.begun(t)) {
		t.Errorf("%d blobs and layers, and besides them: %v", n, w.stored(t))
	}
	for _, id := range strings.Fields(w.Dhow("images", "-aq", "--no-trunc").OK()) {
		for _, d := range strings.Fields(w.Dhow("image", "inspect", "-f", "{{range .RootFS.Layers}}{{.}} {{end}}", id).OK()) {
			if !slices.Contains(layers, digest.Digest(d)) {
				t.Errorf("image %s is there, its layer %s is not", id, d)
			}
		}
	}
	return layers
}

// fetched counts the bytes of layers that the registry was asked for from a request on.
func (w *world) fetched(from int) (bytes int64) {
	for _, s := range w.reg.Seen()[from:] {
		if d := digest.Digest(filepath.Base(s.Path)); s.Method == "GET" && strings.Contains(s.Path, "/blobs/") && d != w.want.ID {
			bytes += int64(len(w.reg.Blob(d)))
		}
	}
	return bytes
}
