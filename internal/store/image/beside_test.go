package image

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// attested is an index of two images with an attestation each, one of them larger than a document may be.
func attested(t *testing.T) (images []*kit.Image, index *kit.Image) {
	host := manifest.HostPlatform()
	for _, p := range []ocispec.Platform{host, {OS: "linux", Architecture: "s390x"}} {
		images = append(images, kit.Build(t, kit.Spec{Platform: p, Tars: [][]byte{kit.Tar(t, kit.Text("for", p.Architecture))}}))
	}
	return images, kit.Index(t, images[0], kit.Attest(t, images[0], `{"one":1}`), images[1], kit.Attest(t, images[1], strings.Repeat("2", manifest.MaxSize+1)))
}

// TestAttestations: a pull of all platforms brings what stands beside them, a push sends the index as it came, and it goes with the image.
func TestAttestations(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	_, index := attested(t)
	name := srv.Push(t, "attested:1", index)
	if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := e.files(t); n != 4 {
		t.Errorf("a pull for one platform keeps %d files: no attestation is of use to it", n)
	}
	img, err := e.Pull(context.Background(), name, PullOptions{Platform: AllPlatforms})
	if err != nil {
		t.Fatal(err)
	}
	if img.Platform.Architecture != manifest.HostPlatform().Architecture {
		t.Errorf("the tag is for %+v", img.Platform)
	}
	if list, err := e.List(); err != nil || len(list) != 1 || len(list[0].Parts) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	there := kit.Start(t) // to another registry: nothing to mount
	copied := there.Ref("copy:1")
	if err := e.Tag(name, copied); err != nil {
		t.Fatal(err)
	}
	d, err := e.Push(context.Background(), copied, PushOptions{Compression: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := e.c.Registry.Repo(parsed(t, copied), nil).Manifest(context.Background(), d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var ix ocispec.Index
	if err := json.Unmarshal(raw, &ix); err != nil {
		t.Fatal(err)
	}
	if d.Digest == index.Top.Desc().Digest && len(ix.Manifests) != 4 || d.Digest != index.Top.Desc().Digest && len(ix.Manifests) != 2 {
		t.Errorf("%s was pushed: %s; attestations go along only when the manifests that they are about do", index.Top.Desc().Digest, raw)
	}
	back := srv.Ref("back:1") // the same registry has every blob
	if err := e.Tag(name, back); err != nil {
		t.Fatal(err)
	}
	if d, err := e.Push(context.Background(), back, PushOptions{}); err != nil || d.Digest != index.Top.Desc().Digest {
		t.Errorf("pushed as %s, it is %s: %v", d.Digest, index.Top.Desc().Digest, err)
	}
	fresh := newEnv(t, quick())
	if _, err := fresh.Pull(context.Background(), back, PullOptions{Platform: AllPlatforms}); err != nil {
		t.Errorf("what was pushed: %v", err)
	}
	for _, n := range []string{name, copied, back} {
		if _, _, err := e.Remove(n, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestAttestationsMissing: an attestation that cannot be had, or is too large, is told and left out; the images come, and are pushed one by one.
func TestAttestationsMissing(t *testing.T) {
	srv := kit.StartHostile(t)
	e := newEnv(t, quick())
	img := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("for", "us"))}})
	for name, spoil := range map[string]func(*kit.Image){
		"gone": func(a *kit.Image) { delete(a.Blobs, a.Manifest.Layers[0].Digest) },
		"large": func(a *kit.Image) {
			a.Manifest.Layers[0].Size = MaxBeside + 1
			a.Top.Raw, _ = json.Marshal(a.Manifest)
		},
		"wrong": func(a *kit.Image) { a.Blobs[a.Manifest.Layers[0].Digest] = []byte("something else") },
	} {
		a := kit.Attest(t, img, name)
		spoil(a)
		ref := srv.Serve(name+":1", kit.Index(t, img, a))
		said := ""
		if _, err := e.Pull(context.Background(), ref, PullOptions{Platform: AllPlatforms, Progress: func(ev Event) { said += ev.Status + "\n" }}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(said, "left out") {
			t.Errorf("%s: %s", name, said)
		}
		if rec := e.record(t, img.ID); len(rec.Beside) != 0 {
			t.Errorf("%s: %v", name, rec.Beside)
		}
		if _, _, err := e.Remove(ref, false, nil); err != nil {
			t.Fatal(err)
		}
		if n := e.files(t); n != 0 {
			t.Errorf("%s: %d files left", name, n)
		}
	}
}

func (e *env) record(t *testing.T, id digest.Digest) (r record) {
	t.Helper()
	if found, err := e.c.DB.Get(bucketImages, id.String(), &r); err != nil || !found {
		t.Fatal(found, err)
	}
	return r
}

func parsed(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
