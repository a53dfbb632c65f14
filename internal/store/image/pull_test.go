package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// three is an image of three layers with a whiteout, in one of the forms that registries serve.
func three(t testing.TB, compress string, docker bool) *kit.Image {
	body := strings.Repeat("sail ", 50_000)
	return kit.Build(t, kit.Spec{Compress: compress, Docker: docker, Tars: [][]byte{
		kit.Tar(t, kit.Dir("a"), kit.Text("a/one", body+compress), kit.Text("a/two", "2")),
		kit.Tar(t, kit.Whiteout("a/two"), kit.Text("b", "b")),
		kit.Tar(t, kit.Text("c", "c")),
	}, History: []ocispec.History{{CreatedBy: "ADD a"}, {CreatedBy: "ENV x", EmptyLayer: true}, {CreatedBy: "RUN rm"}, {CreatedBy: "RUN c"}}})
}

func checkLayers(t *testing.T, e *env, want *kit.Image, got Image) {
	t.Helper()
	if got.ID != want.ID || !slices.Equal(got.DiffIDs, want.DiffIDs) {
		t.Fatalf("pulled %s with layers %v, want %s %v", got.ID, got.DiffIDs, want.ID, want.DiffIDs)
	}
	var size int64
	for _, d := range want.DiffIDs {
		f, err := e.l.OpenTar(d)
		if err != nil {
			t.Fatal(err)
		}
		h := digest.SHA256.Digester()
		n, err := io.Copy(h.Hash(), f)
		f.Close()
		if err != nil || h.Digest() != d {
			t.Fatalf("layer %s: %v", d, err)
		}
		size += n
	}
	if got.Size != size {
		t.Fatalf("size %d, want %d", got.Size, size)
	}
}

func TestPullFromRealRegistry(t *testing.T) {
	srv := kit.Start(t)
	for _, form := range []string{"gzip", "zstd", "none"} {
		for _, docker := range []bool{false, true} {
			t.Run(fmt.Sprint(form, " docker=", docker), func(t *testing.T) {
				e := newEnv(t, quick())
				img := three(t, form, docker)
				name := srv.Push(t, "forms/"+form+fmt.Sprint(docker)+":1", img)
				var words []string
				got, err := e.Pull(context.Background(), name, PullOptions{Progress: func(ev Event) { words = append(words, ev.Status) }})
				if err != nil {
					t.Fatal(err)
				}
				checkLayers(t, e, img, got)
				if !slices.Equal(got.RepoTags, []string{name}) || len(got.RepoDigests) != 1 ||
					!strings.HasSuffix(got.RepoDigests[0], "@"+img.Top.Desc().Digest.String()) {
					t.Fatal(got.RepoTags, got.RepoDigests)
				}
				for _, w := range []string{"Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Status: Downloaded newer image for " + name} {
					if !slices.Contains(words, w) {
						t.Errorf("no event %q in %q", w, words)
					}
				}
				words = nil
				if _, err := e.Pull(context.Background(), name, PullOptions{Progress: func(ev Event) { words = append(words, ev.Status) }}); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(words, "Already exists") || words[len(words)-1] != "Status: Image is up to date for "+name {
					t.Errorf("second pull: %q", words)
				}
			})
		}
	}
}

func TestPullIndexAndDigest(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	arm := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("arm", "v7"))}, Platform: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}})
	amd := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("amd", "64"))}, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	ix := kit.Index(t, arm, amd)
	name := srv.Push(t, "multi:1", ix)
	ctx := context.Background()
	for platform, want := range map[string]*kit.Image{"": amd, "linux/amd64": amd, "linux/arm/v7": arm, "linux/arm": arm} {
		got, err := e.Pull(ctx, name, PullOptions{Platform: platform})
		if err != nil {
			t.Fatal(platform, err)
		}
		if got.ID != want.ID {
			t.Fatalf("%q: got %s", platform, got.Config.Architecture)
		}
	}
	if _, err := e.Pull(ctx, name, PullOptions{Platform: "linux/riscv64"}); !errdef.Is(err, errdef.NotFound) {
		t.Fatal(err)
	}
	single := srv.Push(t, "single:1", amd)
	if _, err := e.Pull(ctx, single, PullOptions{Platform: "linux/arm64"}); !errdef.Is(err, errdef.NotFound) || !strings.Contains(err.Error(), "linux/amd64") {
		t.Fatal(err)
	}

	byDigest := srv.Ref("multi@" + ix.Top.Desc().Digest.String())
	e2 := newEnv(t, quick())
	got, err := e2.Pull(ctx, byDigest, PullOptions{})
	if err != nil || len(got.RepoTags) != 0 || !slices.Equal(got.RepoDigests, []string{byDigest}) {
		t.Fatal(got.RepoTags, got.RepoDigests, err)
	}
	if again, err := e2.Resolve(byDigest); err != nil || again.ID != amd.ID {
		t.Fatal(again.ID, err)
	}
	if again, err := e2.Resolve(ix.Top.Desc().Digest.String()); err != nil || again.ID != amd.ID {
		t.Fatal(again.ID, err)
	}
	last := ""
	_, err = e2.Pull(ctx, byDigest, PullOptions{Progress: func(ev Event) { last = ev.Status }})
	if err != nil || last != "Status: Image is up to date for "+byDigest {
		t.Fatal(last, err)
	}
}

func TestPullWithCredentials(t *testing.T) {
	srv := kit.Start(t, kit.WithAuth)
	img := three(t, "gzip", false)
	name := srv.Push(t, "private:1", img)
	e := newEnv(t, quick())
	ctx := context.Background()
	if _, err := e.Pull(ctx, name, PullOptions{}); !errdef.Is(err, errdef.NotFound) || !strings.Contains(err.Error(), "pull access denied for "+srv.Ref("private")) {
		t.Fatal(err)
	}
	_, err := e.Pull(ctx, name, PullOptions{Auth: &registry.Auth{Username: srv.User, Password: "wrong-word"}})
	if !errdef.Is(err, errdef.Unauthorized) || strings.Contains(err.Error(), "wrong-word") {
		t.Fatal(err)
	}
	auth := &registry.Auth{Username: srv.User, Password: srv.Password}
	got, err := e.Pull(ctx, name, PullOptions{Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	checkLayers(t, e, img, got)
	if err := quick().Login(ctx, srv.Host, auth); err != nil {
		t.Fatal(err)
	}
	if err := quick().Login(ctx, srv.Host, &registry.Auth{Username: "x", Password: "y"}); !errdef.Is(err, errdef.Unauthorized) {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", auth, auth, auth); strings.Contains(s, srv.Password) {
		t.Fatal("the secret prints:", s)
	}
}

func TestPullErrors(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	srv.Push(t, "there:1", three(t, "gzip", false))
	for _, c := range []struct {
		name string
		kind errdef.Kind
		text string
	}{
		{srv.Ref("there:2"), errdef.NotFound, "manifest for " + srv.Ref("there:2") + " not found"},
		{srv.Ref("nowhere"), errdef.NotFound, srv.Ref("nowhere")},
		{"127.0.0.1:1/x", errdef.Unavailable, "registry 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"not:/valid", errdef.InvalidArgument, "invalid reference format"},
	} {
		_, err := e.Pull(context.Background(), c.name, PullOptions{})
		if !errdef.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: kind %d: %v", c.name, errdef.KindOf(err), err)
		}
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left behind", n)
	}
}

// TestManyPulls has 16 goroutines pull two images that share layers: each layer is stored once and everybody succeeds.
func TestManyPulls(t *testing.T) {
	srv := kit.Start(t)
	base := kit.Tar(t, kit.Text("base", strings.Repeat("keel ", 400_000)))
	a := kit.Build(t, kit.Spec{Tars: [][]byte{base, kit.Tar(t, kit.Text("a", "a"))}})
	b := kit.Build(t, kit.Spec{Tars: [][]byte{base, kit.Tar(t, kit.Text("b", "b"))}})
	names := []string{srv.Push(t, "a:1", a), srv.Push(t, "b:1", b)}
	e := newEnv(t, quick())
	var wg sync.WaitGroup
	var mu sync.Mutex
	fetched := map[string]int{}
	for i := range 16 {
		wg.Go(func() {
			seen := map[string]bool{}
			_, err := e.Pull(context.Background(), names[i%2], PullOptions{Progress: func(ev Event) {
				mu.Lock()
				defer mu.Unlock()
				if ev.Status == "Verifying Checksum" && !seen[ev.ID] {
					seen[ev.ID] = true
					fetched[ev.ID]++
				}
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(fetched) != 3 {
		t.Fatalf("fetched %v", fetched)
	}
	for id, n := range fetched {
		if n != 1 {
			t.Errorf("layer %s was fetched %d times", id, n)
		}
	}
	if n := len(e.pins); n != 0 {
		t.Errorf("%d pins left", n)
	}
}

// TestSkopeoReadsTheLayout has another program read our blob store.
func TestSkopeoReadsTheLayout(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	srv := kit.Start(t)
	e := newEnv(t, quick())
	img := three(t, "gzip", false)
	name := srv.Push(t, "lay/out:1", img)
	if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("skopeo", "inspect", "--raw", "oci:"+e.c.Content.Dir()+":"+name).CombinedOutput()
	if err != nil || !bytes.Equal(out, img.Top.Raw) {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = exec.Command("skopeo", "inspect", "--config", "--raw", "oci:"+e.c.Content.Dir()+":"+name).CombinedOutput()
	if err != nil || !bytes.Equal(out, img.Blobs[img.ID]) {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestPullWhatSkopeoPushed has another program write the registry: converted to Docker's schema 2.
func TestPullWhatSkopeoPushed(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	srv := kit.Start(t)
	img := kit.Busybox(t)
	from, to := srv.Push(t, "from:1", img), srv.Ref("to:1")
	out, err := exec.Command("skopeo", "copy", "--insecure-policy", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e := newEnv(t, quick())
	got, err := e.Pull(context.Background(), to, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Manifest.MediaType != manifest.DockerManifest || !slices.Equal(got.DiffIDs, img.DiffIDs) || got.Config.Config.Cmd[0] != "sh" {
		t.Errorf("%+v", got)
	}
}

func TestAddLocal(t *testing.T) {
	e := newEnv(t, nil)
	tarball := kit.Tar(t, kit.Text("hello", "world"))
	var cfg dockerspec.DockerOCIImage
	cfg.OS, cfg.Architecture = "linux", "amd64"
	cfg.Config.Cmd = []string{"/hello"}
	for _, r := range []interface{ Read([]byte) (int, error) }{bytes.NewReader(tarball), bytes.NewBuffer(tarball)} {
		img, err := e.AddLocal(context.Background(), "hello", cfg, r)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(img.RepoTags, []string{"hello:latest"}) || img.Size != int64(len(tarball)) || img.Config.Config.Cmd[0] != "/hello" {
			t.Fatalf("%+v", img)
		}
	}
	if all, err := e.List(); err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if n := e.files(t); n != 3 {
		t.Fatalf("%d files, want manifest, config and layer", n)
	}
	if len(e.pins) != 0 {
		t.Fatal("pins left:", e.pins)
	}
}
