package image

import (
	"context"
	"slices"
	"strings"
	"testing"

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
