package image

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestAllPlatforms: every image of an index comes under one name, can be picked by its platform, is pushed as the same index, and goes with
// the last tag.
func TestAllPlatforms(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	host := manifest.HostPlatform()
	var all []*kit.Image
	platforms := []string{"linux/s390x", manifest.PlatformString(host), "linux/arm/v6"}
	for _, p := range platforms {
		parts := append(strings.Split(p, "/"), "")
		all = append(all, kit.Build(t, kit.Spec{Platform: ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]},
			Tars: [][]byte{kit.Tar(t, kit.Text("base", "same")), kit.Tar(t, kit.Text("for", p))}}))
	}
	index := kit.Index(t, all...)
	name := srv.Push(t, "multi:1", index)
	img, err := e.Pull(context.Background(), name, PullOptions{Platform: AllPlatforms})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != all[1].ID || len(img.RepoTags) != 1 || !strings.HasSuffix(img.RepoDigests[0], index.Top.Desc().Digest.String()) {
		t.Fatalf("%+v", img)
	}
	list, err := e.List()
	if err != nil || len(list) != 1 || list[0].ID != img.ID || len(list[0].Parts) != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	for n, p := range platforms {
		if got, err := ResolvePlatform(e.Store, name, p); err != nil || got.ID != all[n].ID {
			t.Errorf("%s: %s %v", p, got.ID, err)
		}
	}
	if got, err := ResolvePlatform(e.Store, name, "linux/arm/v7"); err != nil || got.ID != all[2].ID {
		t.Errorf("v7 runs v6: %s %v", got.ID, err)
	}
	if _, err := ResolvePlatform(e.Store, name, "linux/riscv64"); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
	if _, del, _, err := e.Prune(PruneOptions{}); err != nil || len(del) != 0 {
		t.Errorf("a prune of nameless images took %v %v", del, err)
	}
	if err := e.Tag(name, srv.Ref("copy:2")); err != nil {
		t.Fatal(err)
	}
	d, err := e.Push(context.Background(), srv.Ref("copy:2"), PushOptions{})
	if err != nil || d.Digest != index.Top.Desc().Digest {
		t.Errorf("pushed as %s, it is %s: %v", d.Digest, index.Top.Desc().Digest, err)
	}
	if d, err = e.Push(context.Background(), srv.Ref("copy:2"), PushOptions{Platform: "linux/s390x"}); err != nil || d.Digest != all[0].Top.Desc().Digest {
		t.Errorf("one platform: %s %v", d.Digest, err)
	}
	if _, _, err := e.Remove(srv.Ref("copy:2"), false, nil); err != nil {
		t.Fatal(err)
	}
	if list, _ = e.List(); len(list) != 1 || len(list[0].Parts) != 2 {
		t.Fatalf("after one of two tags: %+v", list)
	}
	if _, _, err := e.Remove(name, false, nil); err != nil {
		t.Fatal(err)
	}
	if list, _ = e.List(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left", n)
	}

	// An image that is no index, and one whose host is not there.
	plain := srv.Push(t, "plain:1", all[0])
	if img, err = e.Pull(context.Background(), plain, PullOptions{Platform: AllPlatforms}); err != nil || img.ID != all[0].ID {
		t.Error(img.ID, err)
	}
	foreign := srv.Push(t, "foreign:1", kit.Index(t, all[2], all[0]))
	if img, err = e.Pull(context.Background(), foreign, PullOptions{Platform: AllPlatforms}); err != nil || img.ID != all[2].ID {
		t.Error(img.ID, err)
	}
}

// TestRemovePlatforms: platforms go one by one; the names stay with those that are left, and go with the last.
func TestRemovePlatforms(t *testing.T) {
	srv := kit.StartHostile(t)
	e := newEnv(t, quick())
	host := manifest.HostPlatform()
	var all []*kit.Image
	var platforms []ocispec.Platform
	for _, p := range []ocispec.Platform{{OS: "linux", Architecture: "s390x"}, {OS: host.OS, Architecture: host.Architecture, Variant: host.Variant}, {OS: "linux", Architecture: "arm", Variant: "v6"}} {
		platforms = append(platforms, p)
		all = append(all, kit.Build(t, kit.Spec{Platform: p, Tars: [][]byte{kit.Tar(t, kit.Text("base", "same")), kit.Tar(t, kit.Text("for", p.Architecture))}}))
	}
	index := kit.Index(t, all...)
	name := srv.Serve("multi:1", index)
	if _, err := e.Pull(context.Background(), name, PullOptions{Platform: AllPlatforms}); err != nil {
		t.Fatal(err)
	}
	if err := e.Tag(name, "copy:1"); err != nil {
		t.Fatal(err)
	}
	remove := func(want errdef.Kind, used digest.Digest, p ...ocispec.Platform) (untagged, deleted []string) {
		t.Helper()
		untagged, deleted, err := RemovePlatforms(e.Store, name, p, false, func(id digest.Digest) []string {
			if id == used {
				return []string{"c0ffee"}
			}
			return nil
		})
		if (want == 0) != (err == nil) || want != 0 && !errdef.Is(err, want) {
			t.Fatalf("%v: %v", p, err)
		}
		return untagged, deleted
	}
	remove(errdef.NotFound, "", platforms[0], ocispec.Platform{OS: "linux", Architecture: "riscv64"})
	remove(errdef.NotFound, "", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}) // would run v6
	remove(errdef.Conflict, all[1].ID, platforms[1])
	if un, del := remove(0, "", platforms[1]); len(un) != 0 || !slices.Equal(del, []string{all[1].ID.String(), all[1].DiffIDs[1].String()}) {
		t.Errorf("%v %v", un, del)
	}
	for _, n := range []string{name, "copy:1", strings.TrimSuffix(name, ":1") + "@" + index.Top.Desc().Digest.String()} {
		if img, err := e.Resolve(n); err != nil || img.ID != all[0].ID && img.ID != all[2].ID || len(img.RepoTags) != 2 {
			t.Errorf("%s is %s %v: %v", n, img.ID, img.RepoTags, err)
		}
	}
	if list, err := e.List(); err != nil || len(list) != 1 || len(list[0].Parts) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	img, err := e.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	last, other := 0, 2
	if img.ID == all[2].ID {
		last, other = 2, 0
	}
	if err := e.Tag(all[other].ID.String(), "own:1"); err != nil {
		t.Fatal(err)
	}
	remove(errdef.Conflict, "", platforms[other])
	if err := e.c.DB.Delete(bucketTags, "docker.io/library/own:1"); err != nil {
		t.Fatal(err)
	}
	remove(0, "", platforms[other])
	remove(errdef.Conflict, "", platforms[last]) // two repositories
	if err := e.c.DB.Delete(bucketTags, "docker.io/library/copy:1"); err != nil {
		t.Fatal(err)
	}
	if un, del := remove(0, "", platforms[last]); len(un) < 2 || del[0] != all[last].ID.String() {
		t.Errorf("%v %v", un, del)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestTagsStandForDocuments: two tags may name one image through different documents: two indexes, a manifest alone, one with other blobs.
// Each is pushed, removed and taken apart as what it came as.
func TestTagsStandForDocuments(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	host := manifest.HostPlatform()
	build := func(p ocispec.Platform, text, compress string) *kit.Image {
		return kit.Build(t, kit.Spec{Platform: p, Compress: compress, Tars: [][]byte{kit.Tar(t, kit.Text("base", "same")), kit.Tar(t, kit.Text("for", text))}})
	}
	mine, s390, arm := build(host, "us", "gzip"), build(ocispec.Platform{OS: "linux", Architecture: "s390x"}, "s390x", "gzip"), build(ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, "arm", "gzip")
	want := map[string]digest.Digest{}
	push := func(name string, img *kit.Image) string {
		name = srv.Push(t, name, img)
		want[name] = img.Top.Desc().Digest
		return name
	}
	one, two := push("multi:1", kit.Index(t, mine, s390)), push("multi:2", kit.Index(t, mine, arm))
	alone, zstd := push("alone:1", mine), push("alone:zstd", build(host, "us", "zstd"))
	for _, n := range []string{zstd, two, alone, one} {
		if _, err := e.Pull(context.Background(), n, PullOptions{Platform: AllPlatforms}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := e.List(); err != nil || len(list) != 1 || len(list[0].Parts) != 2 || len(list[0].RepoTags) != 4 {
		t.Fatalf("%+v %v", list, err)
	}
	for n, d := range want {
		copied := srv.Ref("copies" + strings.TrimPrefix(n, srv.Host))
		before := time.Now()
		if err := e.Tag(n, copied); err != nil {
			t.Fatal(err)
		}
		if img, err := e.Resolve(n); err != nil || img.Tagged.Before(before) {
			t.Errorf("tagged at %s: %v", img.Tagged, err)
		}
		if got, err := e.Push(context.Background(), copied, PushOptions{}); err != nil || got.Digest != d {
			t.Errorf("%s is pushed as %s, it came as %s: %v", n, got.Digest, d, err)
		}
		if _, _, err := e.Remove(copied, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, platform string
		id             digest.Digest
	}{{one, "linux/s390x", s390.ID}, {one, "linux/arm/v6", ""}, {two, "linux/arm/v6", arm.ID}, {two, "linux/s390x", ""}, {alone, "linux/s390x", ""}} {
		if got, err := ResolvePlatform(e.Store, c.name, c.platform); got.ID != c.id || (c.id == "") != errdef.Is(err, errdef.NotFound) {
			t.Errorf("%s of %s: %s %v", c.platform, c.name, got.ID, err)
		}
	}
	if _, _, err := RemovePlatforms(e.Store, one, []ocispec.Platform{host}, false, nil); !errdef.Is(err, errdef.Conflict) {
		t.Errorf("the image of other tags, too: %v", err)
	}
	if _, del, err := e.Remove(one, false, nil); err != nil || !slices.Contains(del, s390.ID.String()) || slices.Contains(del, arm.ID.String()) {
		t.Errorf("with one index goes %v %v", del, err)
	}
	if _, del, err := e.Remove(mine.ID.String(), true, nil); err != nil || !slices.Contains(del, arm.ID.String()) {
		t.Errorf("with all tags goes %v %v", del, err)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestOlderTags: a tag recorded as a mere image ID stands for any document of that image, as it did.
func TestOlderTags(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	other := kit.Build(t, kit.Spec{Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}, Tars: [][]byte{kit.Tar(t, kit.Text("for", "s390x"))}})
	mine := kit.Build(t, kit.Spec{Platform: manifest.HostPlatform(), Tars: [][]byte{kit.Tar(t, kit.Text("for", "us"))}})
	index := kit.Index(t, mine, other)
	name := srv.Push(t, "multi:1", index)
	if _, err := e.Pull(context.Background(), name, PullOptions{Platform: AllPlatforms}); err != nil {
		t.Fatal(err)
	}
	if err := e.c.DB.Put(bucketTags, name, mine.ID); err != nil {
		t.Fatal(err)
	}
	copied := srv.Ref("copy:1")
	if err := e.Tag(name, copied); err != nil {
		t.Fatal(err)
	}
	if d, err := e.Push(context.Background(), copied, PushOptions{}); err != nil || d.Digest != index.Top.Desc().Digest {
		t.Errorf("pushed as %s, it is %s: %v", d.Digest, index.Top.Desc().Digest, err)
	}
	if list, err := e.List(); err != nil || len(list) != 1 || len(list[0].Parts) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	for _, n := range []string{name, copied} {
		if _, _, err := e.Remove(n, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestPushAsItCame: a blob is mounted from the repository that has this very one, however many have the layer in another form, and an
// uncompressed layer stays so where the registry has it compressed.
func TestPushAsItCame(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	layer := kit.Tar(t, kit.Text("one", "layer"))
	want := map[string]digest.Digest{}
	for name, how := range map[string]string{"z:1": "zstd", "plain:1": "none", "a:1": "gzip", "b:1": "gzip", "c:1": "gzip"} {
		tars := [][]byte{layer}
		if how == "gzip" { // an image of its own
			tars = append(tars, kit.Tar(t, kit.Text("name", name)))
		}
		img := kit.Build(t, kit.Spec{Tars: tars, Compress: how})
		name = srv.Push(t, name, img)
		want[name] = img.Top.Desc().Digest
		if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"a:1", "z:1", "plain:1"} {
		copied := srv.Ref("copy:1")
		if err := e.Tag(srv.Ref(n), copied); err != nil {
			t.Fatal(err)
		}
		var said []string
		d, err := e.Push(context.Background(), copied, PushOptions{Progress: func(ev Event) { said = append(said, ev.Status) }})
		if err != nil || d.Digest != want[srv.Ref(n)] {
			t.Errorf("%s is pushed as %s, it came as %s: %v", n, d.Digest, want[srv.Ref(n)], err)
		}
		if n == "z:1" && !slices.Contains(said, "Mounted from z") {
			t.Errorf("not mounted: %q", said)
		}
	}
}
