package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/archive"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// whole checks that an image and its layers are what was built.
func (e *env) whole(t *testing.T, name string, want *kit.Image) {
	t.Helper()
	img, err := e.images.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != want.ID || !slices.Equal(img.DiffIDs, want.DiffIDs) {
		t.Fatalf("%s: %s %v, want %s %v", name, img.ID, img.DiffIDs, want.ID, want.DiffIDs)
	}
	for _, d := range img.DiffIDs {
		info, err := e.layers.Info(d)
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.layers.OpenTar(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := digest.SHA256.FromReader(io.LimitReader(f, info.Size))
		f.Close()
		if err != nil || got != d {
			t.Fatalf("layer %s holds %s: %v", d, got, err)
		}
	}
	if _, err := e.layers.Merge(t.Context(), img.DiffIDs); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	a, b := newEnv(t), newEnv(t)
	big, small := sample(t, true, "gzip"), sample(t, false, "none")
	for tag, img := range map[string]*kit.Image{"big:1": big, "reg.example:5000/x/small:2": small} {
		if _, err := a.load(t, kit.Tar(t, kit.Archive(t, img, tag)...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tag := range []string{"big:also", "other:1"} {
		if err := a.images.Tag("big:1", tag); err != nil {
			t.Fatal(err)
		}
	}
	saved := a.save(t, "big", "reg.example:5000/x/small:2", "other:1", big.ID.String()[7:19])
	made, err := b.load(t, saved)
	if err != nil || len(made) != 2 {
		t.Fatal(made, err)
	}
	for _, n := range []string{"big:1", "big:also", "other:1"} {
		b.whole(t, n, big)
	}
	b.whole(t, "reg.example:5000/x/small:2", small)
	if again := b.save(t, "big", "reg.example:5000/x/small:2", "other:1"); !bytes.Equal(saved, again) {
		t.Error("the same images make another archive")
	}
	c := newEnv(t)
	if made, err := c.load(t, a.save(t, big.ID.String())); err != nil || len(made) != 1 || len(made[0].Names) != 0 || made[0].Image.ID != big.ID {
		t.Error(made, err)
	}
	n := len(c.files(t))
	if _, err := c.load(t, saved); err != nil || len(c.files(t)) <= n {
		t.Error(err)
	}
	if made, err := c.load(t, saved); err != nil || made[0].Moved["big:1"] != "" {
		t.Error(made, err)
	}
	if err := c.images.Tag("other:1", "reg.example:5000/x/small:2"); err != nil {
		t.Fatal(err)
	}
	if made, err := c.load(t, saved); err != nil || made[1].Moved["reg.example:5000/x/small:2"] != big.ID {
		t.Error(made, err)
	}
	for _, name := range []string{"nosuch", "big:3", "sha256:" + strings.Repeat("0", 64)} {
		if _, err := archive.NewSaving(a.images, []string{name}, nil); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := archive.NewSaving(a.images, []string{"big"}, []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
}

// TestForms loads every form of archive that people have.
func TestForms(t *testing.T) {
	img, big := sample(t, false, "gzip"), sample(t, true, "zstd")
	plain := sample(t, false, "none")
	arm := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("arm", "arm"))}, Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	both := kit.Index(t, arm, big)
	att := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("sbom", "x"))}, Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"}})
	full := map[string]string{"io.containerd.image.name": "docker.io/library/x:1", "org.opencontainers.image.ref.name": "1"}
	linked := kit.Archive(t, plain, "x:1")
	for i, f := range linked {
		if strings.HasSuffix(f.Name, plain.DiffIDs[0].Encoded()+"/layer.tar") { // as Docker wrote layers that several images have
			linked[i] = kit.Link(f.Name, "../shared/layer.tar")
			linked = append(linked, file("shared/layer.tar", f.Body))
		}
	}
	hard := append(kit.Archive(t, plain, "x:1"), hardlink("copy", "manifest.json"))
	var dotted []kit.File
	for _, f := range kit.Archive(t, big, "x:1") {
		f.Name = "./" + f.Name
		dotted = append(dotted, f)
	}
	for name, c := range map[string]struct {
		tar  []byte
		want *kit.Image
	}{
		"classic":            {kit.Tar(t, kit.Archive(t, plain, "x:1")...), plain},
		"compressed layers":  {kit.Tar(t, kit.Archive(t, img, "x:1")...), img},
		"large layers":       {kit.Tar(t, dotted...), big},
		"linked":             {kit.Tar(t, linked...), plain},
		"hard link":          {kit.Tar(t, hard...), plain},
		"same twice":         {kit.Tar(t, append(kit.Archive(t, plain, "x:1"), kit.Archive(t, plain, "x:1")...)...), plain},
		"gzip":               {kit.Gzip(kit.Tar(t, kit.Archive(t, plain, "x:1")...)), plain},
		"zstd":               {kit.Zstd(kit.Tar(t, kit.Archive(t, big, "x:1")...)), big},
		"layout":             {kit.Tar(t, layout(t, full, img)...), img},
		"layout zstd":        {kit.Tar(t, layout(t, full, big)...), big},
		"ref.name":           {kit.Tar(t, layout(t, map[string]string{"org.opencontainers.image.ref.name": "localhost/x:1"}, img)...), img},
		"index":              {kit.Tar(t, layout(t, full, both)...), big},
		"index in an index":  {kit.Tar(t, layout(t, full, kit.Index(t, both))...), big},
		"attestation":        {kit.Tar(t, layout(t, full, kit.Index(t, img, att))...), img},
		"layout and classic": {kit.Tar(t, append(layout(t, full, both), kit.Archive(t, img, "x:1")...)...), img},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			made, err := e.load(t, c.tar)
			if err != nil || len(made) != 1 || len(made[0].Names) != 1 {
				t.Fatal(made, err)
			}
			e.whole(t, made[0].Names[0], c.want)
			if _, _, err := e.images.Remove(c.want.ID.String(), true, nil); err != nil {
				t.Fatal(err)
			}
			if left := e.files(t); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	e := newEnv(t)
	for _, tar := range [][]byte{kit.Tar(t, layout(t, full, both)...), kit.Tar(t, append(layout(t, full, both), kit.Archive(t, img, "x:1")...)...)} {
		if made, err := e.load(t, tar, ocispec.Platform{OS: "linux", Architecture: "s390x"}); err != nil || made[0].Image.ID != arm.ID {
			t.Error(made, err)
		}
	}
	if _, err := e.load(t, kit.Tar(t, kit.Archive(t, img, "x:1")...), ocispec.Platform{OS: "linux", Architecture: "s390x"}); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
	bare := map[string]string{"org.opencontainers.image.ref.name": "latest"}
	if made, err := e.load(t, kit.Tar(t, layout(t, bare, img)...)); err != nil || len(made[0].Names) != 0 {
		t.Error(made, err)
	}
}

// TestHowManyLayers is torture case 39: none, 500, and one more.
func TestHowManyLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	tars := make([][]byte, 501)
	for i := range tars {
		tars[i] = kit.Tar(t, kit.Text(fmt.Sprint(i), "x"))
	}
	e := newEnv(t)
	for _, n := range []int{0, 500} {
		img := kit.Build(t, kit.Spec{Compress: "none", Tars: tars[:n]})
		if n == 0 { // an empty list, not none
			img = kit.Build(t, kit.Spec{Edit: func(c *dockerspec.DockerOCIImage, _ *ocispec.Manifest) { c.RootFS.DiffIDs = []digest.Digest{} }})
		}
		if _, err := e.load(t, kit.Tar(t, kit.Archive(t, img, "x:1")...)); err != nil {
			t.Fatal(n, err)
		}
		e.whole(t, "x:1", img)
		to := newEnv(t)
		if _, err := to.load(t, e.save(t, "x:1")); err != nil {
			t.Fatal(n, err)
		}
		to.whole(t, "x:1", img)
	}
	if _, err := e.load(t, kit.Tar(t, kit.Archive(t, kit.Build(t, kit.Spec{Compress: "none", Tars: tars}), "y:1")...)); !errdef.Is(err, errdef.DataLoss) {
		t.Error(err)
	}
}

// TestDamagedOnDisk is torture case 28: what is saved is verified.
func TestDamagedOnDisk(t *testing.T) {
	e := newEnv(t)
	img := sample(t, false, "none")
	if _, err := e.load(t, kit.Tar(t, kit.Archive(t, img, "x:1")...)); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(e.dir, "layers/sha256", img.DiffIDs[1].Encoded(), "layer.tar")
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	b[700] ^= 1
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := archive.NewSaving(e.images, []string{"x:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Write(context.Background(), io.Discard); !errdef.Is(err, errdef.DataLoss) {
		t.Error(err)
	}
}

// TestSaveWhileRemoved: an image that is removed while it is saved is saved whole.
func TestSaveWhileRemoved(t *testing.T) {
	e, to := newEnv(t), newEnv(t)
	img := sample(t, true, "none")
	if _, err := e.load(t, kit.Tar(t, kit.Archive(t, img, "x:1")...)); err != nil {
		t.Fatal(err)
	}
	v, err := archive.NewSaving(e.images, []string{"x:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.images.Remove("x:1", false, nil); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := v.Write(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if left := e.files(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := to.load(t, b.Bytes()); err != nil {
		t.Fatal(err)
	}
	to.whole(t, "x:1", img)
}

// TestOtherTools: skopeo and podman read what we save and write what we load.
func TestOtherTools(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	e := newEnv(t)
	img := sample(t, true, "gzip")
	if _, err := e.load(t, kit.Tar(t, layout(t, map[string]string{"io.containerd.image.name": "docker.io/library/x:1"}, img)...)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ours.tar"), e.save(t, "x:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{"d.tar": "docker-archive:d.tar:x:2", "o.tar": "oci-archive:o.tar:localhost/x:2"}
	for out, to := range copies {
		for _, from := range []string{"docker-archive:ours.tar", "oci-archive:ours.tar:1"} {
			os.Remove(filepath.Join(dir, out))
			run(skopeo, "--insecure-policy", "copy", "-q", from, to)
		}
	}
	files := []string{"d.tar", "o.tar"}
	if podman, err := exec.LookPath("podman"); err == nil && os.Getuid() == 0 {
		store := []string{podman, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
		run(append(store, "load", "-q", "-i", "ours.tar")...)
		for _, f := range []string{"docker-archive", "oci-archive"} {
			run(append(store, "save", "-q", "--format", f, "-o", "podman-"+f, "x:1")...)
			files = append(files, "podman-"+f)
		}
	} else {
		t.Log("not tried with podman: it is missing, or we are not root")
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		to := newEnv(t)
		made, err := to.load(t, b)
		if err != nil || len(made) != 1 {
			t.Fatalf("%s: %v %v", f, made, err)
		}
		t.Logf("%s: %v", f, made[0].Names)
		to.whole(t, made[0].Image.ID.String(), img)
		if len(made[0].Names) != 1 {
			t.Errorf("%s: names %v", f, made[0].Names)
		}
	}
}
