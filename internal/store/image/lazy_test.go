package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/dhow-containers/dhow/internal/store/snapshot"
	"github.com/dhow-containers/dhow/internal/testkit/listing"
	"github.com/dhow-containers/dhow/internal/testkit/odd"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// patient is a client that waits for a gate.
func patient() *registry.Client {
	return registry.New(registry.Config{BackOff: 5 * time.Millisecond, Stall: time.Minute})
}

// lazyFormats push an image with tables of contents to a registry.
var lazyFormats = map[string]func(t *testing.T, s *kit.Server, name string, tars [][]byte) (repo string){
	"zstd:chunked": func(t *testing.T, s *kit.Server, name string, tars [][]byte) string {
		return s.PushChunked(t, name, kit.Build(t, kit.Spec{Tars: tars, Compress: "none"}))
	},
	"eStargz": func(t *testing.T, s *kit.Server, name string, tars [][]byte) string {
		return s.Push(t, name, kit.Build(t, kit.Spec{Tars: tars, Compress: "estargz"}))
	},
	"stargz-snapshotter's zstd:chunked": func(t *testing.T, s *kit.Server, name string, tars [][]byte) string {
		return s.Push(t, name, kit.Build(t, kit.Spec{Tars: tars, Compress: "stargz-zstd"}))
	},
}

// lazyEnv is a store before a gate.
type lazyEnv struct {
	*env
	snaps   *snapshot.Store
	gate    *kit.Gate
	arrived chan error
	trouble chan error
	mu      sync.Mutex
	said    []string // by pulls
}

func (e *lazyEnv) say(v Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said = append(e.said, v.Status)
}

// told tells whether a pull has said it.
func (e *lazyEnv) told(words string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(strings.Join(e.said, "\n"), words)
}

// at is a name as it is called behind the gate.
func (e *lazyEnv) at(name string) string {
	_, repo, _ := strings.Cut(name, "/")
	return e.gate.Host + "/" + repo
}

func newLazyEnv(t *testing.T, s *kit.Server) *lazyEnv {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	e := newEnv(t, patient())
	t.Cleanup(func() { Close(e.Store); e.l.Close() })
	snaps, err := snapshot.Open(filepath.Join(e.dir, "snapshots"), e.l)
	if err != nil {
		t.Fatal(err)
	}
	return &lazyEnv{env: e, snaps: snaps, gate: s.Gate(t, 100_000, nil), arrived: make(chan error, 3), trouble: make(chan error, 100)}
}

// pull begins a lazy pull through the gate.
func (e *lazyEnv) pull(t *testing.T, name string) Image {
	t.Helper()
	img, err := e.try(name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (e *lazyEnv) try(name string) (Image, error) {
	return e.Pull(context.Background(), e.at(name), PullOptions{Progress: e.say, Lazy: &Lazy{
		Arrived: func(_ Image, err error) { e.arrived <- err },
		Trouble: func(err error) { e.trouble <- err },
	}})
}

// root is the root of a container of an image.
func (e *lazyEnv) root(t *testing.T, id string, img Image) *os.File {
	t.Helper()
	if _, err := e.snaps.Prepare(t.Context(), id, img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	m, err := e.snaps.Mount(id, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func read(root *os.File, name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", root.Fd(), name))
}

// tree is what a container of an image sees.
func (e *lazyEnv) tree(t *testing.T, id string, img Image) listing.Tree {
	t.Helper()
	m := e.root(t, id, img)
	defer m.Close()
	all, err := listing.Of(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// oddTars are layers with all that tars can say, and one of large files.
func oddTars(t *testing.T, seed uint64, layers, entries int, once bool) (tars [][]byte) {
	t.Helper()
	m := odd.New(seed)
	for range layers {
		var own, posix bytes.Buffer
		if err := m.Layer(&own, &posix, entries/layers); err != nil {
			t.Fatal(err)
		}
		tars = append(tars, tame(t, &posix, once))
	}
	return append(tars, kit.Tar(t, kit.Dir("large"), kit.Text("large/noise", noise(9_000_000)), kit.Text("large/zeros", strings.Repeat("\x00", 300_000)),
		kit.Text("large/text", strings.Repeat("all work and no play\n", 100_000)), kit.Text("large/empty", "")))
}

// tame takes out of a layer what tables of contents, or those who write them, have no words for: fractions of seconds, times out of the ordinary,
// names that are not UTF-8, attributes without a value. With once no name comes twice: stargz-snapshotter takes the first away, from its links, too.
func tame(t *testing.T, r io.Reader, once bool) []byte {
	t.Helper()
	var b bytes.Buffer
	seen := map[string]byte{}
	from, to := tar.NewReader(r), tar.NewWriter(&b)
	for {
		h, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		h.Name, h.Linkname = strings.ToValidUTF8(h.Name, "x"), strings.ToValidUTF8(h.Linkname, "x")
		clean := path.Clean("/" + h.Name)
		if typ, again := seen[clean]; once && (again || below(seen, clean)) && (typ != tar.TypeDir || h.Typeflag != tar.TypeDir) {
			continue
		}
		seen[clean] = h.Typeflag
		for k, v := range h.PAXRecords {
			if v == "" {
				delete(h.PAXRecords, k)
			}
		}
		sec := h.ModTime.Unix()
		if sec <= 0 || sec > 1<<32 {
			sec = 1 << 30
		}
		h.ModTime, h.AccessTime, h.ChangeTime, h.Format = time.Unix(sec, 0), time.Time{}, time.Time{}, tar.FormatPAX
		for _, k := range []string{"path", "linkpath", "mtime", "atime", "ctime"} {
			delete(h.PAXRecords, k)
		}
		if err := to.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// below tells whether something else than a folder is above a path.
func below(seen map[string]byte, p string) bool {
	for p = path.Dir(p); p != "/"; p = path.Dir(p) {
		if typ, ok := seen[p]; ok && typ != tar.TypeDir {
			return true
		}
	}
	return false
}

// TestLazy: a container of an image that has not arrived sees what one of the same image sees, pulled as any other.
func TestLazy(t *testing.T) {
	s := kit.Start(t)
	for format, push := range lazyFormats {
		t.Run(format, func(t *testing.T) {
			name := push(t, s, "x:"+format[:1], oddTars(t, 1, 3, 1500, format != "zstd:chunked"))
			e := newLazyEnv(t, s)
			img := e.pull(t, name)
			if img.Arriving == 0 {
				t.Fatal("all of it is here")
			}
			got := e.tree(t, "lazy", img)
			select {
			case err := <-e.arrived:
				t.Fatalf("it arrived: %v", err)
			default:
			}
			e.gate.Open()
			if err := <-e.arrived; err != nil {
				t.Fatal(err)
			}
			want := e.tree(t, "whole", img)
			if len(want) < 1000 {
				t.Fatalf("%d objects", len(want))
			}
			for n, d := range listing.Compare(got, want) {
				if n > 20 {
					break
				}
				t.Errorf("%s", d)
			}
			if _, err := e.Resolve(e.at(name)); err != nil {
				t.Error(err)
			}
		})
	}
}

// twoLayers is an image of a small layer and one of 400 KB, which a gate holds back.
func twoLayers(t *testing.T, compress string, edit func(*dockerspec.DockerOCIImage, *ocispec.Manifest)) *kit.Image {
	return kit.Build(t, kit.Spec{Compress: compress, Edit: edit, Tars: [][]byte{kit.Tar(t, kit.Text("small", "small\n")), kit.Tar(t, kit.Dir("d"), kit.Text("d/large", noise(400_000)))}})
}

// TestLazyOrdinary: where an image cannot be used before it is here, a lazy pull is an ordinary one, and says why.
func TestLazyOrdinary(t *testing.T) {
	s := kit.Start(t)
	plain, stargz := s.Push(t, "plain:1", twoLayers(t, "gzip", nil)), s.Push(t, "stargz:1", twoLayers(t, "estargz", nil))
	for what, c := range map[string]struct {
		name, words string
		prepare     func(*lazyEnv)
	}{
		"no table": {plain, "has a table of contents", func(*lazyEnv) {}},
		"no sections": {stargz, "gives no sections", func(e *lazyEnv) {
			e.gate.Fault(func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
		}},
		"another form": {stargz, "in the form \"erofs\"", func(e *lazyEnv) {
			l, err := layer.Open(filepath.Join(e.dir, "layers"), layer.Options{Form: layer.FormDir})
			if err != nil {
				t.Fatal(err)
			}
			e.c.Layers = l
		}},
	} {
		t.Run(what, func(t *testing.T) {
			e := newLazyEnv(t, s)
			c.prepare(e)
			e.gate.Open()
			img := e.pull(t, c.name)
			if img.Arriving != 0 || !e.told("Not lazily: ") || !e.told(c.words) {
				t.Errorf("%d layers arrive: %q", img.Arriving, e.said)
			}
			if _, err := e.Resolve(e.at(c.name)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLazyMixed: layers without a table are pulled first, and those that are here already are not asked for.
func TestLazyMixed(t *testing.T) {
	s := kit.Start(t)
	base := kit.Tar(t, kit.Text("base", "base\n"), kit.Text("gone", ""))
	plain := kit.Build(t, kit.Spec{Tars: [][]byte{base}})
	img := kit.Build(t, kit.Spec{Compress: "estargz", Tars: [][]byte{base, kit.Tar(t, kit.Text("plain", noise(120_000))), kit.Tar(t, kit.Dir("d"), kit.Text("d/large", noise(400_000)), kit.Whiteout("gone"))},
		Edit: func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) {
			m.Layers[0], c.RootFS.DiffIDs[0] = plain.Manifest.Layers[0], plain.DiffIDs[0]
			m.Layers[1].Annotations = nil
		}})
	for d, b := range plain.Blobs {
		img.Blobs[d] = b
	}
	e := newLazyEnv(t, s)
	if _, err := e.Pull(context.Background(), e.at(s.Push(t, "plain:1", plain)), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	name := s.Push(t, "x:1", img)
	go func() {
		for !e.told("Pulling fs layer") {
			time.Sleep(time.Millisecond)
		}
		e.gate.Open() // the one without a table has to pass
	}()
	got := e.pull(t, name)
	if !e.told("Already exists") || !e.told("Can be used, arrives later") || !e.l.Has(got.DiffIDs[1]) {
		t.Errorf("%q", e.said)
	}
	root := e.root(t, "x", got)
	for name, want := range map[string]string{"base": "base\n", "plain": noise(120_000), "d/large": noise(400_000)} {
		if b, err := read(root, name); err != nil || string(b) != want {
			t.Errorf("%s: %d bytes: %v", name, len(b), err)
		}
	}
	if _, err := read(root, "gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a lazy layer hides: %v", err)
	}
	if err := <-e.arrived; err != nil {
		t.Error(err)
	}
}

// TestLazyRefused: a table that is not what the manifest promised is refused like a layer that is not, and nothing is left.
func TestLazyRefused(t *testing.T) {
	s := kit.Start(t)
	other := twoLayers(t, "estargz", func(_ *dockerspec.DockerOCIImage, m *ocispec.Manifest) {
		m.Layers[1].Annotations[kit.TOCDigest] = digest.FromString("another").String()
	})
	e := newLazyEnv(t, s)
	if _, err := e.try(s.Push(t, "x:1", other)); !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), "table of contents") {
		t.Errorf("got %v", err)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// TestLazyContradicted: an image whose layers turn out to be others than promised never becomes one; who runs on it has seen nothing but what
// tables promised.
func TestLazyContradicted(t *testing.T) {
	s := kit.Start(t)
	name := s.Push(t, "x:1", twoLayers(t, "estargz", func(c *dockerspec.DockerOCIImage, _ *ocispec.Manifest) {
		c.RootFS.DiffIDs[1] = digest.FromString("another")
	}))
	e := newLazyEnv(t, s)
	img := e.pull(t, name)
	root := e.root(t, "x", img)
	e.gate.Open()
	if err := <-e.arrived; !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), "content has the digest") {
		t.Errorf("got %v", err)
	}
	if _, err := Find(e.Store, e.at(name), ""); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("the image: %v", err)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files are left", n)
	}
	if b, err := read(root, "d/large"); err != nil || string(b) != noise(400_000) {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	if _, err := e.snaps.Mount("x", true); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("another start: %v", err)
	}
}

// TestLazyTrouble: what a registry does not give, or gives wrong, is an error for who reads it, and told; later it is tried again.
func TestLazyTrouble(t *testing.T) {
	s := kit.Start(t)
	name := s.Push(t, "x:1", twoLayers(t, "estargz", nil))
	zeros := func(w http.ResponseWriter, r *http.Request) bool {
		var from, to int
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); n < 2 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", from, to))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, to-from+1))
		return true
	}
	for what, fault := range map[string]kit.Fault{"other bytes": zeros, "no such blob": kit.Status(404, ""), "other credentials": kit.Status(403, "")} {
		e := newLazyEnv(t, s)
		root := e.root(t, "x", e.pull(t, name))
		e.gate.Fault(fault)
		if b, err := read(root, "d/large"); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %d bytes: %v", what, len(b), err)
		}
		if err := (<-e.trouble).Error(); !strings.Contains(err, e.at(name)) || !strings.Contains(err, "\"/d/large\"") {
			t.Errorf("%s: told: %s", what, err)
		}
		e.gate.Fault(nil)
		if b, err := read(root, "d/large"); err != nil || string(b) != noise(400_000) {
			t.Errorf("%s, later: %d bytes: %v", what, len(b), err)
		}
	}
}

// TestLazyOffline: what has arrived is read from the disk, not from the registry.
func TestLazyOffline(t *testing.T) {
	s := kit.Start(t)
	for format, push := range lazyFormats {
		e := newLazyEnv(t, s)
		root := e.root(t, "x", e.pull(t, push(t, s, "x:"+format[:1], [][]byte{kit.Tar(t, kit.Dir("d"), kit.Text("d/large", noise(400_000)))})))
		e.gate.Open()
		if err := <-e.arrived; err != nil {
			t.Fatal(err)
		}
		e.gate.Fault(kit.Status(404, ""))
		if b, err := read(root, "d/large"); err != nil || string(b) != noise(400_000) {
			t.Errorf("%s: %d bytes: %v", format, len(b), err)
		}
	}
}

// TestLazyRemoved: what arrives can be removed when nobody uses it; else it stays.
func TestLazyRemoved(t *testing.T) {
	s := kit.Start(t)
	name := s.Push(t, "x:1", twoLayers(t, "estargz", nil))
	e := newLazyEnv(t, s)
	img := e.pull(t, name)
	for _, force := range []bool{false, true} {
		_, _, err := e.Remove(e.at(name), force, func(digest.Digest) []string { return []string{"0123456789abcdef"} })
		if !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), "still arriving") || e.Stands(img.ID) != nil {
			t.Errorf("with a user, force %v: %v", force, err)
		}
	}
	if _, _, _, err := e.Prune(PruneOptions{All: true}); err != nil || e.Stands(img.ID) != nil {
		t.Errorf("prune: %v", err)
	}
	if err := e.Freeze(func(l Live) error {
		if !l.Digests[img.ID] || !l.Digests[img.DiffIDs[0]] {
			return errors.New("its parts are not kept")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	untagged, _, err := e.Remove(e.at(name), false, nil)
	if err != nil || !slices.Contains(untagged, e.at(name)) {
		t.Errorf("untagged %v: %v", untagged, err)
	}
	if err := <-e.arrived; !errdef.Is(err, errdef.Cancelled) {
		t.Errorf("it arrived: %v", err)
	}
	if _, err := Find(e.Store, e.at(name), ""); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("afterwards: %v", err)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// TestLazyNames: several lazy pulls of an image are one, and bring all its names; an ordinary one waits for all of it.
func TestLazyNames(t *testing.T) {
	s := kit.Start(t)
	img := twoLayers(t, "estargz", nil)
	one, two := s.Push(t, "x:1", img), s.Push(t, "x:2", img)
	e := newLazyEnv(t, s)
	var pulls sync.WaitGroup
	for _, name := range []string{one, two, one, two} {
		pulls.Go(func() {
			if got, err := e.try(name); err != nil || got.Arriving == 0 {
				t.Errorf("%s: %d layers arrive: %v", name, got.Arriving, err)
			}
		})
	}
	pulls.Wait()
	if got, err := Find(e.Store, e.at(one), ""); err != nil || len(got.RepoTags) != 2 {
		t.Errorf("%v: %v", got.RepoTags, err)
	}
	root := e.root(t, "x", Arriving(e.Store)[0])
	if b, err := read(root, "d/large"); err != nil || string(b) != noise(400_000) {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	whole := make(chan error, 1)
	go func() {
		got, err := e.Pull(context.Background(), e.at(one), PullOptions{})
		if err == nil && got.Arriving != 0 {
			err = fmt.Errorf("%d layers arrive", got.Arriving)
		}
		whole <- err
	}()
	for _, name := range []string{one, two} {
		if err := e.Tag(e.at(name), "other:1"); !errdef.Is(err, errdef.Conflict) {
			t.Errorf("tag %s: %v", name, err)
		}
		if _, err := e.Resolve(e.at(name)); !errdef.Is(err, errdef.Conflict) {
			t.Errorf("resolve %s: %v", name, err)
		}
	}
	e.gate.Open()
	for _, c := range []chan error{whole, e.arrived} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{one, two} {
		if _, err := e.Resolve(e.at(name)); err != nil {
			t.Error(err)
		}
	}
}

// TestLazyClosed: a store that is closed meanwhile has no half image when it is opened again, and the next pull goes on with what there is.
func TestLazyClosed(t *testing.T) {
	s := kit.Start(t)
	name := s.Push(t, "x:1", twoLayers(t, "estargz", nil))
	e := newLazyEnv(t, s)
	img := e.pull(t, name)
	for !e.l.Has(img.DiffIDs[0]) { // the small one passes the gate
		time.Sleep(time.Millisecond)
	}
	Close(e.Store)
	if err := <-e.arrived; !errdef.Is(err, errdef.Cancelled) {
		t.Errorf("it arrived: %v", err)
	}
	if _, err := e.try(name); err == nil {
		t.Error("a closed store begins to pull")
	}
	again, err := Open(e.c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Find(again, e.at(name), ""); !errdef.Is(err, errdef.NotFound) {
		t.Errorf("got %v", err)
	}
	e.gate.Open()
	if _, err := again.Pull(context.Background(), e.at(name), PullOptions{Progress: e.say}); err != nil || !e.told("Already exists") {
		t.Errorf("%v: %q", err, e.said)
	}
}
