package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// pushed pushes and returns the digest, and the words of the progress without their numbers.
func pushed(t *testing.T, e *env, name string, o PushOptions) (digest.Digest, []string) {
	t.Helper()
	var words []string
	o.Progress = func(ev Event) {
		if !slices.Contains(words, ev.Status) {
			words = append(words, ev.Status)
		}
	}
	d, err := e.Push(context.Background(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest, words
}

func retag(t *testing.T, e *env, from, to string) string {
	t.Helper()
	if err := e.Tag(from, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestPushToRealRegistry: every form, with and without passwords; to the same repository, another one, and another registry, which has
// none of the blobs.
func TestPushToRealRegistry(t *testing.T) {
	open, locked := kit.Start(t), kit.Start(t, kit.WithAuth)
	login := &registry.Auth{Username: locked.User, Password: locked.Password}
	for _, form := range []string{"gzip", "zstd", "none"} {
		for _, docker := range []bool{false, true} {
			t.Run(fmt.Sprint(form, " docker=", docker), func(t *testing.T) {
				e, path := newEnv(t, quick()), form+fmt.Sprint(docker)
				img := three(t, form, docker)
				top := img.Top.Desc().Digest
				name := open.Push(t, path+":1", img)
				if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
					t.Fatal(err)
				}
				if d, words := pushed(t, e, name, PushOptions{}); d != top || slices.Contains(words, "Pushed") || !slices.Contains(words, "Layer already exists") {
					t.Error("same repository:", d, words)
				}
				if d, words := pushed(t, e, retag(t, e, name, open.Ref("other/"+path+":1")), PushOptions{}); d != top || slices.Contains(words, "Pushed") || !slices.Contains(words, "Mounted from "+path) {
					t.Error("other repository:", d, words)
				}
				far := retag(t, e, name, locked.Ref("far/"+path+":1"))
				first, words := pushed(t, e, far, PushOptions{Auth: login})
				if !slices.Contains(words, "Pushed") || form == "none" && first != top {
					t.Error("other registry:", first, words)
				}
				if d, words := pushed(t, e, far, PushOptions{Auth: login}); d != first || slices.Contains(words, "Pushed") {
					t.Error("the second push was not the same:", d, words)
				}
				back := newEnv(t, quick())
				got, err := back.Pull(context.Background(), far, PullOptions{Auth: login})
				if err != nil {
					t.Fatal(err)
				}
				checkLayers(t, back, img, got)
				if got.Manifest.MediaType != img.Top.MediaType || got.Manifest.Digest != first {
					t.Error("manifest", got.Manifest)
				}
				if _, err := e.Push(context.Background(), far, PushOptions{}); errdef.KindOf(err) != errdef.Forbidden && errdef.KindOf(err) != errdef.Unauthorized {
					t.Error("without a password:", err)
				}
			})
		}
	}
}

// TestPushBuiltOnPulled: what an image made here has from a pulled one is found in the registry, by zstd the rest is sent.
func TestPushBuiltOnPulled(t *testing.T) {
	srv, e := kit.Start(t), newEnv(t, quick())
	base := kit.Tar(t, kit.Text("base", strings.Repeat("keel ", 10000)))
	img := kit.Build(t, kit.Spec{Tars: [][]byte{base}})
	if _, err := e.Pull(context.Background(), srv.Push(t, "base:1", img), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	cfg := dockerspec.DockerOCIImage{}
	cfg.OS, cfg.Architecture = "linux", "amd64"
	name := srv.Ref("built:1")
	own := kit.Tar(t, kit.Text("own", strings.Repeat("mast ", 10000)))
	made, err := e.AddLocal(context.Background(), name, cfg, bytes.NewReader(base), bytes.NewReader(own))
	if err != nil {
		t.Fatal(err)
	}
	_, words := pushed(t, e, name, PushOptions{Compression: "zstd"})
	if !slices.Contains(words, "Mounted from base") || !slices.Contains(words, "Pushed") {
		t.Error(words)
	}
	back := newEnv(t, quick())
	got, err := back.Pull(context.Background(), name, PullOptions{})
	if err != nil || got.ID != made.ID {
		t.Fatal(got.ID, err)
	}
	raw, err := back.c.Content.Read(got.Manifest.Digest, 1<<20)
	if err != nil || !bytes.Contains(raw, []byte(img.Manifest.Layers[0].Digest)) || !bytes.Contains(raw, []byte("tar+zstd")) {
		t.Errorf("%s %v", raw, err)
	}
}

// TestPushIndex: an index goes along when every image of it is here, and by platform only one.
func TestPushIndex(t *testing.T) {
	srv, e := kit.Start(t), newEnv(t, quick())
	var parts []*kit.Image
	for _, arch := range []string{"amd64", "arm64"} {
		s := kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("arch", arch))}}
		s.Platform.OS, s.Platform.Architecture = "linux", arch
		parts = append(parts, kit.Build(t, s))
	}
	all := kit.Index(t, parts...)
	name := srv.Push(t, "multi:1", all)
	pull := func(platform string) {
		if _, err := e.Pull(context.Background(), name, PullOptions{Platform: platform}); err != nil {
			t.Fatal(err)
		}
	}
	pull("linux/arm64")
	if d, _ := pushed(t, e, retag(t, e, name, srv.Ref("one:1")), PushOptions{}); d != parts[1].Top.Desc().Digest {
		t.Error("half an index was pushed as", d)
	}
	pull("linux/amd64")
	copied := retag(t, e, name, srv.Ref("two:1"))
	if d, _ := pushed(t, e, copied, PushOptions{}); d != all.Top.Desc().Digest {
		t.Error("the whole index was pushed as", d)
	}
	for i, p := range []string{"linux/amd64", "linux/arm64"} {
		if d, _ := pushed(t, e, copied, PushOptions{Platform: p}); d != parts[i].Top.Desc().Digest {
			t.Error(p, "was pushed as", d)
		}
	}
	if _, err := e.Push(context.Background(), copied, PushOptions{Platform: "linux/s390x"}); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
	far := kit.Start(t) // has nothing: everything is compressed anew, the index follows
	d, _ := pushed(t, e, retag(t, e, name, far.Ref("two:1")), PushOptions{Compression: "zstd"})
	back := newEnv(t, quick())
	for i, p := range []string{"linux/amd64", "linux/arm64"} {
		got, err := back.Pull(context.Background(), far.Ref("two:1"), PullOptions{Platform: p})
		if err != nil || got.ID != parts[i].ID || !strings.HasSuffix(got.RepoDigests[0], d.String()) {
			t.Error(got.ID, got.RepoDigests, d, err)
		}
	}
}

// TestPushDamaged: a layer whose bytes changed on disk is never sent as if it were whole.
func TestPushDamaged(t *testing.T) {
	h, e := kit.StartHostile(t), newEnv(t, quick())
	img := three(t, "gzip", false)
	name := h.Serve("app:1", img)
	if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(e.dir, "layers/sha256", img.DiffIDs[0].Encoded(), "layer.tar")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{0xff}, 5000)
	f.Close()
	far := kit.StartHostile(t)
	_, err = e.Push(context.Background(), retag(t, e, name, far.Host+"/app:1"), PushOptions{})
	if !errdef.Is(err, errdef.DataLoss) || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	for _, s := range far.Seen() {
		if strings.Contains(s.Path, "/manifests/") {
			t.Error("a manifest was pushed")
		}
	}
}

// TestSqueeze: the same bytes again, so that a broken upload can go on, and a reader that leaves ends the work.
func TestSqueeze(t *testing.T) {
	raw := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{1}).Read(raw[:10<<20])
	for _, format := range []string{"gzip", "zstd"} {
		var a, b bytes.Buffer
		if err := squeeze(&a, bytes.NewReader(raw), format); err != nil {
			t.Fatal(err)
		}
		if err := squeeze(&b, io.MultiReader(bytes.NewReader(raw[:777]), bytes.NewReader(raw[777:])), format); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error(format, "differs", err)
		}
		f, err := inflate(&a, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(f); err != nil || !bytes.Equal(back, raw) {
			t.Error(format, err)
		}
		f.Close()
		r, w := io.Pipe()
		ended := make(chan error)
		go func() { ended <- squeeze(w, bytes.NewReader(raw), format) }()
		r.Read(make([]byte, 10))
		r.Close()
		if err := <-ended; err == nil {
			t.Error(format, "went on without a reader")
		}
	}
}

// TestSqueezeMemory: as many layers as are pushed at a time, on a machine with many processors, stay below the engine's 64 MiB.
func TestSqueezeMemory(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	defer debug.SetGCPercent(debug.SetGCPercent(40)) // as in dhowd
	raw := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{2}).Read(raw)
	for _, format := range []string{"gzip", "zstd"} {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		before, peak := m.HeapInuse, uint64(0)
		var g sync.WaitGroup
		for range 5 {
			g.Go(func() {
				if err := squeeze(io.Discard, bytes.NewReader(raw), format); err != nil {
					t.Error(err)
				}
			})
		}
		done := make(chan struct{})
		go func() { g.Wait(); close(done) }()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			case <-time.After(5 * time.Millisecond):
			}
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
		if grown := int64(peak) - int64(before); grown > 64<<20 {
			t.Errorf("%s: the heap grew by %d MiB", format, grown>>20)
		} else {
			t.Logf("%s: %d MiB", format, grown>>20)
		}
	}
}
