package check_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/store/check"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/meta"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/dhow-containers/dhow/internal/store/snapshot"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// rig is a data root.
type rig struct {
	t    *testing.T
	c    check.Config
	hub  *kit.Hostile
	img  *kit.Image
	name string
	used map[string][]string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, hub: kit.StartHostile(t), used: map[string][]string{}}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	r.c = check.Config{Root: dir, Users: func(id string) []string { return r.used[id] }}
	r.c.DB, err = meta.Open(filepath.Join(dir, "meta.db"))
	must(err)
	t.Cleanup(func() { r.c.DB.Close() })
	r.c.Content, err = content.Open(filepath.Join(dir, "content"))
	must(err)
	r.c.Layers, err = layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs})
	must(err)
	r.c.Snapshots, err = snapshot.Open(filepath.Join(dir, "snapshots"), r.c.Layers)
	must(err)
	r.c.Images, err = image.Open(image.Config{DB: r.c.DB, Content: r.c.Content, Layers: r.c.Layers, Registry: registry.New(registry.Config{Attempts: 1})})
	must(err)
	r.img = kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("a", strings.Repeat("one\n", 1000))), kit.Tar(t, kit.Text("b", "two\n"))}})
	r.name = r.hub.Serve("app:1", kit.Index(t, r.img, kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("c", "other"))}})))
	_, err = r.c.Images.Pull(t.Context(), r.name, image.PullOptions{})
	must(err)
	_, err = r.c.Layers.Merge(t.Context(), r.img.DiffIDs)
	must(err)
	return r
}

// run checks, or repairs, and returns what was found.
func (r *rig) run(repair bool) (found []check.Finding, sum check.Summary) {
	r.t.Helper()
	c := r.c
	c.Repair, c.Report = repair, func(f check.Finding) { found = append(found, f) }
	sum, err := check.Run(context.Background(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return found, sum
}

func (r *rig) sound() {
	r.t.Helper()
	if found, _ := r.run(false); len(found) > 0 {
		r.t.Fatalf("not sound: %+v", found)
	}
}

func (r *rig) flip(path string) {
	r.t.Helper()
	p := filepath.Join(r.c.Root, path)
	raw, err := os.ReadFile(p)
	if err != nil {
		r.t.Fatal(err)
	}
	raw[len(raw)/3] ^= 2
	if err := os.WriteFile(p, raw, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// asked is what the registry was asked for since it was asked last, without pings.
func (r *rig) asked() (out []string) {
	for _, s := range r.hub.Seen() {
		if _, what, ok := strings.Cut(s.Path, "/v2/app/"); ok {
			out = append(out, what)
		}
	}
	return out
}

// TestFlipped flips a bit in each kind of file. The check names that file and changes nothing; the repair fetches exactly what is damaged.
func TestFlipped(t *testing.T) {
	r := newRig(t)
	r.sound()
	first, id := r.img.DiffIDs[0].Encoded(), r.img.ID.Encoded()
	top := r.img.Top.Desc().Digest.Encoded()
	rec, _ := r.c.Images.Resolve(r.name)
	index := strings.TrimPrefix(rec.RepoDigests[0][strings.Index(rec.RepoDigests[0], "@")+1:], "sha256:")
	for path, want := range map[string][]string{
		"content/blobs/sha256/" + id:                                                     {"blobs/sha256:" + id},
		"content/blobs/sha256/" + top:                                                    {"manifests/sha256:" + top},
		"content/blobs/sha256/" + index:                                                  {"manifests/sha256:" + index},
		"layers/sha256/" + first + "/layer.tar":                                          {"blobs/" + r.img.Manifest.Layers[0].Digest.String()},
		"layers/sha256/" + first + "/tree.bin":                                           nil,
		"layers/sha256/" + first + "/info.json":                                          nil,
		"layers/merged/" + layer.ChainID(r.img.DiffIDs).Encoded() + ".erofs/index.erofs": nil,
		"layers/merged/" + layer.ChainID(r.img.DiffIDs).Encoded() + ".erofs/info.json":   nil,
		"content/index.json":                                                             nil,
	} {
		t.Run(path, func(t *testing.T) {
			r.t = t
			if _, err := r.c.Layers.Merge(t.Context(), r.img.DiffIDs); err != nil { // what a repair took away
				t.Fatal(err)
			}
			r.flip(path)
			before := len(r.asked())
			found, _ := r.run(false)
			if len(found) == 0 || found[0].Path != path || found[0].Repaired || !strings.HasPrefix(found[0].Advice, "dhow system check --repair ") {
				t.Fatalf("found %+v", found)
			}
			if got := r.asked()[before:]; len(got) > 0 {
				t.Errorf("a check asked the registry for %v", got)
			}
			found, sum := r.run(true)
			if sum.Found != sum.Repaired || found[0].Path != path {
				t.Fatalf("not repaired: %+v", found)
			}
			if got := r.asked()[before:]; !slices.Equal(got, want) {
				t.Errorf("the registry was asked for %v, want %v", got, want)
			}
			r.sound()
		})
	}
	r.t = t
	if left, _ := os.ReadDir(filepath.Join(r.c.Root, "quarantine")); len(left) > 0 {
		t.Errorf("%d files in quarantine", len(left))
	}
}

// TestRecords: a damaged record of an image is made anew, a name that leads nowhere goes, and one bad record hides no other image.
func TestRecords(t *testing.T) {
	r := newRig(t)
	local, err := r.c.Images.AddLocal(t.Context(), "mine:1", dockerspec.DockerOCIImage{}, bytes.NewReader(kit.Tar(t, kit.Text("x", "y"))))
	if err != nil {
		t.Fatal(err)
	}
	before, _ := r.c.Images.List()
	r.put("images", r.img.ID.String(), `{"Manifest":{"mediaType":"x","digest":"sha256:nonsense","size":3}}`)
	if all, err := r.c.Images.List(); err != nil || len(all) != 1 || all[0].ID != local.ID {
		t.Fatalf("with one damaged record: %v %v", all, err)
	}
	if _, _, err := r.c.Images.Remove("mine:1", false, nil); err == nil || !strings.Contains(err.Error(), "dhow system check --repair") {
		t.Fatalf("what is live is not known, and yet: %v", err)
	}
	found, _ := r.run(false)
	if len(found) == 0 || found[0].Kind != check.Record || found[0].Object != "images/"+r.img.ID.String() {
		t.Fatalf("%+v", found)
	}
	if slices.ContainsFunc(found, func(f check.Finding) bool { return f.Kind == check.Stray }) {
		t.Fatalf("strays while a record cannot be read: %+v", found)
	}
	r.run(true)
	r.sound()
	after, _ := r.c.Images.List()
	for i := range after {
		after[i].Added = before[i].Added
	}
	a, _ := json.Marshal(before)
	b, _ := json.Marshal(after)
	if !bytes.Equal(a, b) {
		t.Errorf("before %s\nafter  %s", a, b)
	}

	r.put("image-tags", "docker.io/library/ghost:latest", `"sha256:`+strings.Repeat("0", 64)+`"`)
	r.put("image-digests", "docker.io/library/ghost@sha256:"+strings.Repeat("0", 64), `{"no":1}`)
	if found, _ = r.run(false); len(found) != 2 || found[0].Kind != check.Name || found[1].Kind != check.Name {
		t.Fatalf("%+v", found)
	}
	r.run(true)
	r.sound()
}

// put writes a raw record.
func (r *rig) put(bucket, key, raw string) {
	r.t.Helper()
	if err := r.c.DB.Put(bucket, key, json.RawMessage(raw)); err != nil {
		r.t.Fatal(err)
	}
}

// TestBeyondRepair: what nobody has any more goes into quarantine with its image, so that it can be pulled again; not while a container uses it.
func TestBeyondRepair(t *testing.T) {
	r := newRig(t)
	r.hub.Fault("blob", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true })
	path := "layers/sha256/" + r.img.DiffIDs[0].Encoded() + "/layer.tar"
	r.flip(path)
	r.used[r.img.ID.String()] = []string{"c0ffee"}
	found, sum := r.run(true)
	if sum.Repaired != 0 || len(found) != 2 || found[0].Kind != check.Layer || found[1].Kind != check.Image || !strings.Contains(found[1].Advice, "container c0ffee") {
		t.Fatalf("%+v", found)
	}
	if _, err := r.c.Images.Resolve(r.name); err != nil {
		t.Fatal(err)
	}
	delete(r.used, r.img.ID.String())
	found, _ = r.run(true)
	if len(found) != 2 || !found[1].Repaired {
		t.Fatalf("%+v", found)
	}
	r.sound()
	if _, err := r.c.Images.Resolve(r.name); err == nil {
		t.Error("the image is still there")
	}
	if left, _ := os.ReadDir(filepath.Join(r.c.Root, "quarantine")); len(left) != 1 {
		t.Errorf("%d in quarantine, want the layer", len(left))
	}
	r.hub.Fault("blob", nil)
	if _, err := r.c.Images.Pull(t.Context(), r.name, image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	r.sound()
}

// TestSharedBeyondRepair: a damaged layer that a container stands on stays where it is, whichever image it is found by, and so do the images;
// and while somebody is about to make an image of it.
func TestSharedBeyondRepair(t *testing.T) {
	r := newRig(t)
	other := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("a", strings.Repeat("one\n", 1000))), kit.Tar(t, kit.Text("d", "three\n"))}})
	name := r.hub.Serve("other:1", other)
	if _, err := r.c.Images.Pull(t.Context(), name, image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	r.hub.Fault("blob", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true })
	path := "layers/sha256/" + r.img.DiffIDs[0].Encoded() + "/layer.tar"
	r.flip(path)
	if _, err := r.c.Snapshots.Prepare(t.Context(), "c0ffee", r.img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	kept := func(when string) {
		t.Helper()
		for _, n := range []string{r.name, name} {
			if _, err := r.c.Images.Resolve(n); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if _, err := os.Stat(filepath.Join(r.c.Root, path)); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	r.used[r.img.ID.String()] = []string{"c0ffee"}
	found, sum := r.run(true)
	if sum.Repaired != 0 || len(found) != 3 || !strings.Contains(found[1].Advice, "container c0ffee") || !strings.Contains(found[2].Advice, "container c0ffee") {
		t.Fatalf("%+v", found)
	}
	kept("beside a container")
	if err := r.c.Snapshots.Remove(t.Context(), "c0ffee"); err != nil {
		t.Fatal(err)
	}
	delete(r.used, r.img.ID.String())
	b := r.c.Images.Begin()
	if _, err := b.Known(r.img.DiffIDs[0]); err != nil {
		t.Fatal(err)
	}
	if found, sum = r.run(true); sum.Repaired != 0 || !strings.Contains(found[1].Advice, "check again when it is done") {
		t.Errorf("%+v", found)
	}
	kept("beside a load")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	r.run(true)
	r.sound()
	r.hub.Fault("blob", nil)
	for _, n := range []string{r.name, name} {
		if _, err := r.c.Images.Pull(t.Context(), n, image.PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.sound()
}

// TestOddFiles: what is no regular file in the place of one is told, and mended, without waiting for anybody.
func TestOddFiles(t *testing.T) {
	r := newRig(t)
	at := func(p string) string { return filepath.Join(r.c.Root, p) }
	tar, config := at("layers/sha256/"+r.img.DiffIDs[0].Encoded()+"/layer.tar"), at("content/blobs/sha256/"+r.img.ID.Encoded())
	other := strings.Repeat("a", 64)
	for _, p := range []string{tar, config} {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(unix.Mkfifo(tar, 0o600), os.Mkdir(config, 0o700), os.Symlink("/etc/passwd", at("content/blobs/sha256/"+other)), os.WriteFile(at("layers/sha256/"+other), nil, 0o600),
		os.Mkdir(at("content/partial/"+other), 0o700), os.WriteFile(at("content/partial/notes"), nil, 0o600), os.WriteFile(at("content/partial/"+strings.Repeat("b", 64)), []byte("half a blob"), 0o600)) // the last is one
	if err != nil {
		t.Fatal(err)
	}
	found, _ := r.run(false)
	if len(found) != 6 { // and none that says that nobody has what a repair fetches
		t.Errorf("%+v", found)
	}
	found, sum := r.run(true)
	if len(found) != 6 || sum.Repaired != 6 {
		t.Errorf("%+v", found)
	}
	r.sound()
	if left, _ := os.ReadDir(at("quarantine")); len(left) != 4 { // the layer's file is removed as a layer
		t.Errorf("in quarantine: %v", left)
	}
}

// TestAnyKindOfFile puts a pipe, a socket, a link and a folder in the place of each file that is read: it is told at once, and mended.
func TestAnyKindOfFile(t *testing.T) {
	r := newRig(t)
	if _, err := r.c.Snapshots.Prepare(t.Context(), "c0ffee", r.img.DiffIDs); err != nil {
		t.Fatal(err)
	}
	r.put("containers", "c0ffee", `{"id":"c0ffee","name":"c","image_id":"`+r.img.ID.String()+`"}`)
	first, merged := "layers/sha256/"+r.img.DiffIDs[0].Encoded(), "layers/merged/"+layer.ChainID(r.img.DiffIDs).Encoded()+".erofs"
	for _, path := range []string{first + "/layer.tar", first + "/tree.bin", first + "/info.json", first, merged + "/info.json", merged + "/index.erofs",
		"content/blobs/sha256/" + r.img.ID.Encoded(), "content/blobs/sha256/" + r.img.Top.Desc().Digest.Encoded(), "content/index.json"} {
		for kind, put := range map[string]func(string) error{
			"pipe":   func(p string) error { return unix.Mkfifo(p, 0o600) },
			"socket": func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) },
			"link":   func(p string) error { return os.Symlink("/etc/passwd", p) },
			"folder": func(p string) error { return os.Mkdir(p, 0o700) },
		} {
			t.Run(kind+" "+path, func(t *testing.T) {
				r.t = t
				if path == first && kind == "folder" {
					t.Skip("it is one")
				}
				if _, err := r.c.Layers.Merge(t.Context(), r.img.DiffIDs); err != nil { // what a repair took away
					t.Fatal(err)
				}
				p := filepath.Join(r.c.Root, path)
				if err := errors.Join(os.RemoveAll(p), put(p)); err != nil {
					t.Fatal(err)
				}
				found, _ := r.run(false)
				if len(found) == 0 || !strings.HasPrefix(found[0].Path, path) {
					t.Fatalf("found %+v", found)
				}
				if found, sum := r.run(true); sum.Found == 0 || sum.Found != sum.Repaired {
					t.Fatalf("not repaired: %+v", found)
				}
				r.sound()
			})
		}
	}
	r.t = t
}

// TestModes: what others may do more than they should is told and put right; what an image, a container or an OCI layout wants is left alone.
func TestModes(t *testing.T) {
	r := newRig(t)
	if _, err := r.c.Snapshots.Prepare(t.Context(), "bbbb", r.img.DiffIDs); err != nil {
		t.Skipf("no snapshots: %v", err)
	}
	tar := "layers/sha256/" + r.img.DiffIDs[0].Encoded() + "/layer.tar"
	for path, mode := range map[string]os.FileMode{tar: 0o644, "snapshots/bbbb/upper": 0o777, "layers/sha256": 0o700 | os.ModeSetgid, "content": 0o500} {
		if err := os.Chmod(filepath.Join(r.c.Root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	r.sound()
	for path, mode := range map[string]os.FileMode{".": 0o777, "meta.db": 0o640, "content/blobs/sha256": 0o777, "content/blobs/sha256/" + r.img.ID.Encoded(): 0o604,
		"layers": 0o701, tar: 0o646, "layers/tmp": 0o755, "layers/empty": 0o757, filepath.Dir(tar): 0o770, "snapshots/bbbb": 0o777, "snapshots/bbbb/snapshot.json": 0o666, "content/index.json": 0o600 | os.ModeSetuid} {
		if err := os.Chmod(filepath.Join(r.c.Root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(filepath.Join(r.c.Root, filepath.Dir(tar), "info.json"), 1234, 0); err != nil {
			t.Fatal(err)
		}
	}
	found, sum := r.run(false)
	if want := 12 + 1 - min(os.Getuid(), 1); len(found) != want || slices.ContainsFunc(found, func(f check.Finding) bool { return f.Kind != check.Mode }) {
		t.Fatalf("%d, want %d: %+v", len(found), want, found)
	}
	if found, sum = r.run(true); sum.Repaired != sum.Found {
		t.Fatalf("%+v", found)
	}
	r.sound()
	if st, err := os.Stat(filepath.Join(r.c.Root, tar)); err != nil || st.Mode() != 0o644 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// TestUnfinishedDamage: a damaged layer that only a broken pull has brought goes, and the next pull fetches it.
func TestUnfinishedDamage(t *testing.T) {
	r := newRig(t)
	img := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("x", "whole")), kit.Tar(t, kit.Text("y", "broken"))}})
	name := r.hub.Serve("broken:1", img)
	last := img.Manifest.Layers[1].Digest.String()
	r.hub.Fault(last, func(w http.ResponseWriter, _ *http.Request) bool {
		for !r.c.Layers.Has(img.DiffIDs[0]) {
			time.Sleep(time.Millisecond)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, err := r.c.Images.Pull(t.Context(), name, image.PullOptions{}); err == nil {
		t.Fatal("pulled")
	}
	r.hub.Fault(last, nil)
	r.flip("layers/sha256/" + img.DiffIDs[0].Encoded() + "/layer.tar")
	found, _ := r.run(false)
	if len(found) != 1 || found[0].Kind != check.Layer || !strings.Contains(found[0].Problem, "only an unfinished pull needs it") {
		t.Fatalf("%+v", found)
	}
	b := r.c.Images.Begin()
	if _, err := b.Known(img.DiffIDs[0]); err != nil {
		t.Fatal(err)
	}
	if found, sum := r.run(true); sum.Repaired != 0 || !strings.Contains(found[0].Advice, "check again when it is done") {
		t.Errorf("beside a load: %+v", found)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if found, sum := r.run(true); sum.Repaired != 1 || r.c.Layers.Has(img.DiffIDs[0]) {
		t.Fatalf("%+v", found)
	}
	r.sound()
	if _, err := r.c.Images.Pull(t.Context(), name, image.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	r.sound()
}

// TestStrays: what nobody refers to is named, and removed by the repair; what is none of ours is moved away.
func TestStrays(t *testing.T) {
	r := newRig(t)
	raw := []byte("nobody's")
	if err := r.c.Content.Put(t.Context(), digest.FromBytes(raw), -1, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	tar := kit.Tar(t, kit.Text("left", "over"))
	if _, err := r.c.Layers.Ingest(t.Context(), digest.FromBytes(tar), bytes.NewReader(tar)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.c.Root, "content/blobs/sha256/notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"aaaa", "bbbb"} {
		if _, err := r.c.Snapshots.Prepare(t.Context(), id, r.img.DiffIDs); err != nil {
			t.Skipf("no snapshots: %v", err)
		}
	}
	old := time.Now().Add(-time.Hour)
	os.Chtimes(r.c.Snapshots.Dir("aaaa"), old, old) // bbbb may be a container's that is being made
	found, sum := r.run(false)
	if sum.Found != 4 || slices.ContainsFunc(found, func(f check.Finding) bool { return f.Kind != check.Stray }) {
		t.Fatalf("%+v", found)
	}
	if found, sum = r.run(true); sum.Repaired != 4 {
		t.Fatalf("%+v", found)
	}
	r.sound()
	if _, err := r.c.Snapshots.Chain("bbbb"); err != nil {
		t.Error(err)
	}
}

// TestBesideWork: checks and repairs that run while images come, go and change their names find nothing and take nothing.
func TestBesideWork(t *testing.T) {
	r := newRig(t)
	var names []string
	for i := range 3 {
		names = append(names, r.hub.Serve(fmt.Sprint("w", i, ":1"), kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("base", strings.Repeat("oar", 10_000))), kit.Tar(t, kit.Text("n", fmt.Sprint(i)))}})))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				img, err := r.c.Images.Pull(context.Background(), names[i], image.PullOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				if i > 0 {
					if _, err := r.c.Layers.Merge(context.Background(), img.DiffIDs); err != nil {
						t.Error(err)
					}
				}
				if err := r.c.Images.Tag(names[i], fmt.Sprint("t", i, ":", n%3)); err != nil {
					t.Error(err)
				}
				if _, _, err := r.c.Images.Remove(img.ID.String(), true, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rounds := 0
	for ; ctx.Err() == nil; rounds++ {
		if found, _ := r.run(rounds%2 == 1); len(found) > 0 {
			t.Errorf("round %d: %+v", rounds, found)
			break
		}
	}
	wg.Wait()
	r.sound()
	if rounds < 2 {
		t.Errorf("%d rounds only", rounds)
	}
}

// TestAttestation: files of an attestation are checked and fetched again; where nobody has them any more the image stays.
func TestAttestation(t *testing.T) {
	r := newRig(t)
	a := kit.Attest(t, r.img, "a statement about the image")
	name := r.hub.Serve("attested:1", kit.Index(t, r.img, a))
	if _, err := r.c.Images.Pull(t.Context(), name, image.PullOptions{Platform: image.AllPlatforms}); err != nil {
		t.Fatal(err)
	}
	r.sound()
	files := []digest.Digest{a.Top.Desc().Digest, a.Manifest.Config.Digest, a.Manifest.Layers[0].Digest}
	for _, d := range files {
		r.flip("content/blobs/sha256/" + d.Encoded())
		found, _ := r.run(false)
		if len(found) != 1 || found[0].Object != d.String() || !strings.Contains(found[0].Problem, "of an attestation of") {
			t.Errorf("%s: %+v", d, found)
		}
		if found, sum := r.run(true); sum.Repaired != 1 {
			t.Errorf("%s: %+v", d, found)
		}
		r.sound()
	}
	r.hub.Fault("blob", kit.Status(http.StatusNotFound, ""))
	r.flip("content/blobs/sha256/" + files[2].Encoded())
	if found, sum := r.run(true); len(found) != 1 || sum.Repaired != 0 || !strings.Contains(found[0].Advice, "not repaired") {
		t.Errorf("%+v", found)
	}
	if _, err := r.c.Images.Resolve(name); err != nil {
		t.Errorf("the image: %v", err)
	}
}
