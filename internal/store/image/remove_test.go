package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/store/layer"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// local adds an image whose layers are files named like their bodies.
func local(t *testing.T, e *env, name string, created time.Time, labels map[string]string, layers ...string) Image {
	t.Helper()
	var cfg dockerspec.DockerOCIImage
	cfg.OS, cfg.Architecture, cfg.Created, cfg.Config.Labels = "linux", "amd64", &created, labels
	var rs []io.Reader
	for _, l := range layers {
		rs = append(rs, bytes.NewReader(kit.Tar(t, kit.Text(l, l))))
		cfg.History = append(cfg.History, ocispec.History{CreatedBy: "COPY " + l})
	}
	img, err := e.AddLocal(context.Background(), name, cfg, rs...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestResolve(t *testing.T) {
	e := newEnv(t, nil)
	img := local(t, e, "team/app:1", kit.Epoch, nil, "a")
	hex := img.ID.Encoded()
	for _, name := range []string{"team/app:1", "docker.io/team/app:1", img.ID.String(), hex, hex[:12], hex[:1], "sha256:" + hex[:8], img.Manifest.Digest.String()} {
		if got, err := e.Resolve(name); err != nil || got.ID != img.ID {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"team/app", "team/app:2", "app:1", "", "sha256:", "sha256:" + strings.Repeat("0", 64), "x\x1b[2J", "../..", hex[:12] + "zz"} {
		_, err := e.Resolve(name)
		if !errdef.Is(err, errdef.NotFound) || !strings.HasPrefix(err.Error(), "No such image: ") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", name, err)
		}
	}
	// A name that is also the start of an ID is the name.
	other := local(t, e, hex[:4], kit.Epoch, nil, "b")
	if got, err := e.Resolve(hex[:4]); err != nil || got.ID != other.ID {
		t.Error(err)
	}
	if err := e.Tag(hex[:12], "x@sha256:"+hex); !errdef.Is(err, errdef.InvalidArgument) {
		t.Error(err)
	}
	if err := e.Tag("nope", "x"); !errdef.Is(err, errdef.NotFound) {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	e := newEnv(t, nil)
	a := local(t, e, "a:1", kit.Epoch, nil, "base", "a")
	b := local(t, e, "b:1", kit.Epoch.Add(time.Hour), nil, "base", "b")
	if all, err := e.List(); err != nil || len(all) != 2 || all[0].ID != b.ID {
		t.Fatal("not the youngest first", err)
	}
	if _, err := e.l.Merge(context.Background(), a.DiffIDs); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"a:2", "c:1"} {
		if err := e.Tag("a:1", tag); err != nil {
			t.Fatal(err)
		}
	}
	un, del, err := e.Remove("a:2", false, nil)
	if err != nil || !slices.Equal(un, []string{"a:2"}) || len(del) != 0 {
		t.Fatal(un, del, err)
	}
	if _, _, err := e.Remove(a.ID.String(), false, nil); !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), "multiple repositories") {
		t.Fatal(err)
	}
	used := func(d digest.Digest) []string {
		if d == a.ID {
			return []string{"0123456789abcdef"}
		}
		return nil
	}
	if _, _, err := e.Remove("c:1", false, used); err != nil { // a:1 still names it
		t.Fatal(err)
	}
	for _, name := range []string{"a:1", id.Short(a.ID.String())} {
		if _, _, err := e.Remove(name, false, used); !errdef.Is(err, errdef.Conflict) || !strings.Contains(err.Error(), "0123456789ab") {
			t.Fatal(name, err)
		}
	}
	removeUsed(t, e, a, b, used)
}

// removeUsed goes on with a, which has one name left and a user, and b, which shares its base.
func removeUsed(t *testing.T, e *env, a, b Image, used InUse) {
	t.Helper()
	un, del, err := e.Remove("a:1", true, used)
	if err != nil || !slices.Equal(un, []string{"a:1"}) || len(del) != 0 || !e.l.Has(a.DiffIDs[1]) {
		t.Fatal("an image in use lost its layers", un, del, err)
	}
	if got, err := e.Resolve(a.ID.String()); err != nil || len(got.RepoTags) != 0 {
		t.Fatal(err)
	}
	if err := e.Stands(a.ID); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 2)
	late := func(digest.Digest) []string { // asks while the removal is being decided, and is no user yet
		asked := make(chan error)
		go func() { asked <- e.Stands(a.ID) }()
		select {
		case err := <-asked:
			t.Errorf("a removal is under way, and the answer is: %v", err)
		case <-time.After(50 * time.Millisecond):
			go func() { answer <- <-asked }()
		}
		return nil
	}
	_, del, err = e.Remove(a.ID.String(), false, late)
	if err != nil || !slices.Equal(del, []string{a.ID.String(), a.DiffIDs[1].String()}) {
		t.Fatal(del, err)
	}
	if err := <-answer; !errdef.Is(err, errdef.NotFound) {
		t.Fatal("a container is made of an image that is being removed:", err)
	}
	if !e.l.Has(b.DiffIDs[0]) || !e.l.Has(b.DiffIDs[1]) || e.l.Has(a.DiffIDs[1]) {
		t.Fatal("wrong layers removed")
	}
	if m, _ := e.l.ListMerged(); len(m) != 0 {
		t.Fatal("merged index left")
	}
	if _, _, err := e.Remove("b", true, nil); !errdef.Is(err, errdef.NotFound) {
		t.Fatal(err)
	}
	if _, _, err := e.Remove("b:1", false, nil); err != nil || e.files(t) != 0 {
		t.Fatal("files left:", e.files(t), err)
	}
}

func TestHistory(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	img, err := e.Pull(context.Background(), srv.Push(t, "h:1", three(t, "gzip", false)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.History(img.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var size int64
	for _, s := range h {
		got = append(got, fmt.Sprint(s.CreatedBy, s.Size > 0))
		size += s.Size
	}
	if strings.Join(got, ",") != "RUN ctrue,RUN rmtrue,ENV xfalse,ADD atrue" || size != img.Size || h[0].ID != img.ID.String() || h[1].ID != "<missing>" {
		t.Error(got, size, img.Size)
	}
}

func TestPrune(t *testing.T) {
	e := newEnv(t, nil)
	old := local(t, e, "", kit.Epoch, nil, "old")
	local(t, e, "", kit.Epoch.Add(2*time.Hour), map[string]string{"keep": "1"}, "labelled")
	local(t, e, "named:1", kit.Epoch, nil, "named")
	busy := local(t, e, "", kit.Epoch, nil, "busy")
	o := PruneOptions{Until: kit.Epoch.Add(time.Hour), InUse: func(d digest.Digest) []string {
		if d == busy.ID {
			return []string{"c"}
		}
		return nil
	}}
	takes := du.Of(layer.Dir(e.l, old.DiffIDs[0]))
	_, del, freed, err := e.Prune(o)
	if err != nil || !slices.Equal(del, []string{old.ID.String(), old.DiffIDs[0].String()}) || freed != takes || takes < old.Size {
		t.Fatal(del, freed, err)
	}
	o.Until, o.Labels = time.Time{}, func(l map[string]string) bool { return l["keep"] == "" }
	if _, del, _, err = e.Prune(o); err != nil || len(del) != 0 {
		t.Fatal(del, err)
	}
	o.Labels, o.All = nil, true
	un, del, _, err := e.Prune(o)
	if err != nil || !slices.Equal(un, []string{"named:1"}) || len(del) != 4 {
		t.Fatal(un, del, err)
	}
	if all, err := e.List(); err != nil || len(all) != 1 || all[0].ID != busy.ID {
		t.Fatal(all, err)
	}
}

// TestPullAgainstPruneAndRemove is torture case 26: whatever the order, a pull that says it succeeded left a whole image, unless
// a later removal took it.
func TestPullAgainstPruneAndRemove(t *testing.T) {
	srv := kit.Start(t)
	e := newEnv(t, quick())
	base := kit.Tar(t, kit.Text("base", strings.Repeat("oar", 10_000)))
	var names []string
	for i := range 4 {
		names = append(names, srv.Push(t, fmt.Sprint("r", i, ":1"), kit.Build(t, kit.Spec{Tars: [][]byte{base, kit.Tar(t, kit.Text(fmt.Sprint(i), "x"))}})))
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			name := names[i%4]
			for range 5 {
				switch i / 4 % 4 {
				case 0, 1:
					if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil && !errdef.Is(err, errdef.NotFound) {
						t.Error(err)
					}
				case 2:
					if _, _, err := e.Remove(name, true, nil); err != nil && !errdef.Is(err, errdef.NotFound) {
						t.Error(err)
					}
				case 3:
					if _, _, _, err := e.Prune(PruneOptions{All: true}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	whole(t, e)
	for _, name := range names {
		if _, err := e.Pull(context.Background(), name, PullOptions{}); err != nil {
			t.Error(err)
		}
	}
	whole(t, e)
	if _, _, _, err := e.Prune(PruneOptions{All: true}); err != nil || e.files(t) != 0 || len(e.pins) != 0 {
		t.Errorf("%d files, pins %v left: %v", e.files(t), e.pins, err)
	}
}

// whole checks that every listed image has all it needs, byte for byte.
func whole(t *testing.T, e *env) {
	t.Helper()
	all, err := e.List() // reads and verifies configs
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		if _, err := e.c.Content.Read(img.Manifest.Digest, 4<<20); err != nil {
			t.Error(err)
		}
		for _, d := range img.DiffIDs {
			f, err := e.l.OpenTar(d)
			if err != nil {
				t.Error(err)
				continue
			}
			got, err := digest.SHA256.FromReader(f)
			f.Close()
			if got != d || err != nil {
				t.Errorf("layer %s holds %s: %v", d, got, err)
			}
		}
		if _, err := e.l.Merge(context.Background(), img.DiffIDs); err != nil {
			t.Error(err)
		}
	}
}
