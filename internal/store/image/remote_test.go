package image

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestPullByMirror: a mirror that does not have it, one that breaks off within a layer, and one that has it; docker.io is never asked.
func TestPullByMirror(t *testing.T) {
	empty, breaks, good := kit.StartHostile(t), kit.StartHostile(t), kit.StartHostile(t)
	img := three(t, "gzip", false)
	breaks.Serve("library/boat:1", img)
	good.Serve("library/boat:1", img)
	breaks.Fault(img.Manifest.Layers[2].Digest.String(), kit.Status(403, ""))
	k := registry.New(registry.Config{BackOff: time.Millisecond, Mirrors: []string{empty.URL, breaks.URL, good.URL + "/"}})
	e := newEnv(t, k)
	var said []string
	got, err := e.Pull(context.Background(), "boat:1", PullOptions{Auth: &registry.Auth{Username: "u", Password: "hidden"}, Progress: func(ev Event) { said = append(said, ev.Status) }})
	if err != nil {
		t.Fatal(err)
	}
	checkLayers(t, e, img, got)
	if !slices.Equal(got.RepoTags, []string{"boat:1"}) {
		t.Error(got.RepoTags)
	}
	for _, m := range []*kit.Hostile{empty, breaks} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "Mirror "+m.URL+": ") }) {
			t.Errorf("nothing was said of %s in %q", m.URL, said)
		}
		for _, s := range m.Seen() {
			if s.Authorization != "" {
				t.Error("a mirror got", s.Authorization)
			}
		}
	}
}

func TestRemote(t *testing.T) {
	h := kit.StartHostile(t)
	var parts []*kit.Image
	for _, arch := range []string{"amd64", "arm64"} {
		s := kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("arch", arch))}}
		s.Platform.OS, s.Platform.Architecture = "linux", arch
		parts = append(parts, kit.Build(t, s))
	}
	all := kit.Index(t, parts...)
	for name, c := range map[string]struct {
		img  *kit.Image
		want []string
	}{h.Serve("multi:1", all): {all, []string{"linux/amd64", "linux/arm64"}}, h.Serve("one:1", parts[1]): {parts[1], []string{"linux/arm64"}}} {
		d, platforms, err := Remote(context.Background(), quick(), name, nil)
		var got []string
		for _, p := range platforms {
			got = append(got, manifest.PlatformString(p))
		}
		if err != nil || d.Digest != c.img.Top.Desc().Digest || d.MediaType != c.img.Top.MediaType || d.Size != int64(len(c.img.Top.Raw)) || !slices.Equal(got, c.want) {
			t.Error(name, d, got, err)
		}
	}
	if _, _, err := Remote(context.Background(), quick(), h.Host+"/nosuch:1", nil); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
}
