package archive_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/image"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestPlatforms: a load keeps every platform that is whole in the archive as one image; a save has them all, and what it wrote is loaded and
// saved the same. One that was here alone joins them.
func TestPlatforms(t *testing.T) {
	host := manifest.HostPlatform()
	build := func(p ocispec.Platform, text string) *kit.Image {
		return kit.Build(t, kit.Spec{Platform: p, Tars: [][]byte{kit.Tar(t, kit.Text("base", "same")), kit.Tar(t, kit.Text("for", text))}})
	}
	s390x, arm := ocispec.Platform{OS: "linux", Architecture: "s390x"}, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	other, mine, absent := build(s390x, "other"), build(host, "mine"), build(arm, "absent")
	att := build(ocispec.Platform{OS: "unknown", Architecture: "unknown"}, "sbom")
	files := layout(t, map[string]string{"io.containerd.image.name": "docker.io/library/x:1"}, kit.Index(t, other, mine, absent, att))
	files = slices.DeleteFunc(files, func(f kit.File) bool { return f.Name == "blobs/sha256/"+absent.Manifest.Layers[1].Digest.Encoded() })
	tar := kit.Tar(t, files...)
	check := func(e *env) {
		t.Helper()
		list, err := e.images.List()
		if err != nil || len(list) != 1 || list[0].ID != mine.ID || !slices.Equal(list[0].RepoTags, []string{"x:1"}) || len(list[0].Parts) != 1 {
			t.Fatalf("%+v %v", list, err)
		}
		for p, want := range map[string]*kit.Image{"linux/s390x": other, manifest.PlatformString(host): mine} {
			if img, err := image.ResolvePlatform(e.images, "x:1", p); err != nil || img.ID != want.ID {
				t.Errorf("%s: %s %v", p, img.ID, err)
			}
			e.whole(t, want.ID.String(), want)
		}
		if _, err := image.ResolvePlatform(e.images, "x:1", "linux/arm/v6"); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("one that lacks a layer: %v", err)
		}
	}
	load := func(e *env, tar []byte, platforms ...ocispec.Platform) {
		t.Helper()
		if made, err := e.load(t, tar, platforms...); err != nil || len(made) != 1 || len(made[0].Names) != 1 {
			t.Fatal(made, err)
		}
	}
	a := newEnv(t)
	load(a, tar)
	check(a)
	n := len(a.files(t))
	load(a, tar) // again
	check(a)
	if len(a.files(t)) != n {
		t.Errorf("%d files, now %v", n, a.files(t))
	}
	saved := a.save(t, "x:1")
	b := newEnv(t)
	load(b, saved)
	check(b)
	if !bytes.Equal(b.save(t, "x:1"), saved) {
		t.Error("the same image makes another archive")
	}
	if _, _, err := b.images.Remove("x:1", false, nil); err != nil || len(b.files(t)) != 0 {
		t.Errorf("removed, and there are %v: %v", b.files(t), err)
	}

	c := newEnv(t)
	if _, err := c.load(t, kit.Tar(t, layout(t, nil, mine)...)); err != nil {
		t.Fatal(err)
	}
	load(c, tar, s390x, host)
	list, err := c.images.List()
	if err != nil || len(list) != 1 || len(list[0].Parts) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	var crowd []*kit.Image
	for range 3 {
		crowd = append(crowd, kit.Index(t, slices.Concat([]*kit.Image{build(host, strings.Repeat("x", len(crowd)))}, slices.Repeat([]*kit.Image{other}, 400))...))
	}
	if _, err := newEnv(t).load(t, kit.Tar(t, layout(t, nil, crowd...)...)); !errdef.Is(err, errdef.InvalidArgument) {
		t.Errorf("a crowd: %v", err)
	}
	d := newEnv(t)
	load(d, saved, s390x)
	if list, err := d.images.List(); err != nil || len(list) != 1 || list[0].ID != other.ID || len(list[0].Parts) != 0 {
		t.Fatalf("%+v %v", list, err)
	}
}
