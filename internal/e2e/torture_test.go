package e2e

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/dhow-containers/dhow/internal/testkit/torture"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// gauntlet is a world whose engine is fed with hostile tars by every entry point there is.
type gauntlet struct {
	*world
	t      *testing.T
	h      *registry.Hostile
	canary string
	n      int
	most   time.Duration // that one tar may take
}

func newGauntlet(t *testing.T, flags ...string) *gauntlet {
	w := full(t, append(flags, "--insecure-registry", hostileAddr)...)
	g := &gauntlet{world: w, t: t, h: w.Hostile(hostileAddr), canary: t.TempDir(), most: 5 * time.Second} // two on a machine that does nothing else
	if err := os.WriteFile(filepath.Join(g.canary, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Dhow("run", "-d", "--name", "running", bb, "sleep", "1000").OK()
	return g
}

// sings checks that nothing happened to the host's file.
func (g *gauntlet) sings(what string) {
	g.t.Helper()
	p := filepath.Join(g.canary, "canary")
	b, err := os.ReadFile(p)
	st, serr := os.Lstat(p)
	es, _ := os.ReadDir(g.canary)
	if err != nil || serr != nil || string(b) != "alive" || st.Mode() != 0o600 || len(es) != 1 {
		g.t.Fatalf("%s: the canary: %q %v, beside it %v", what, b, err, es)
	}
}

// entry is a way in: it takes a compressed or plain tar, says what the engine answered, and puts all back.
type entry struct {
	name string
	give func(body []byte) (code int, text string)
}

// blob serves an image of one layer that is this very blob; diff is what it inflates to.
func (g *gauntlet) blob(body, diff []byte) *registry.Image {
	mt := ocispec.MediaTypeImageLayer
	if !bytes.Equal(body, diff) {
		mt = ocispec.MediaTypeImageLayerGzip
	}
	img := registry.Build(g.t, registry.Spec{Edit: func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) {
		c.RootFS.DiffIDs = []digest.Digest{digest.FromBytes(diff)}
		m.Layers = []ocispec.Descriptor{{MediaType: mt, Digest: digest.FromBytes(body), Size: int64(len(body))}}
		c.Config.Cmd = []string{"x"}
	}})
	img.Add(mt, body)
	img.DiffIDs = []digest.Digest{digest.FromBytes(diff)}
	return img
}

// layers are the entry points that make a layer of a tar.
func (g *gauntlet) layers() []entry {
	return []entry{
		{"pull", func(b []byte) (int, string) {
			g.n++
			ref := g.h.Serve(fmt.Sprintf("hostile:%d", g.n), g.blob(b, b))
			ref = strings.Replace(ref, g.h.Host, hostileAddr, 1)
			r := g.Dhow("pull", "-q", ref)
			if r.Code == 0 {
				g.use(ref)
				return 200, ""
			}
			return 500, r.Err
		}},
		{"load", func(b []byte) (int, string) {
			code, text := g.post(g.t, "/images/load?quiet=1", bytes.NewReader(registry.Tar(g.t, registry.Archive(g.t, g.blob(b, b), "loaded:1")...)))
			return g.made(code, text, "loaded:1")
		}},
		{"import", func(b []byte) (int, string) {
			code, text := g.post(g.t, "/images/create?fromSrc=-&repo=imported&tag=1&changes="+url.QueryEscape(`CMD ["x"]`), bytes.NewReader(b))
			return g.made(code, text, "imported:1")
		}},
	}
}

// made looks for errors within a stream, and uses the image otherwise.
func (g *gauntlet) made(code int, text, ref string) (int, string) {
	if code == 200 && !strings.Contains(text, `"error"`) {
		g.use(ref)
		return code, text
	}
	return max(code, 400), text
}

// use makes a container of an image, reads all of it, and removes both.
func (g *gauntlet) use(ref string) {
	g.t.Helper()
	if r := g.Dhow("create", ref); r.Code == 0 {
		id := strings.TrimSpace(r.Out)
		g.Dhow("export", "-o", filepath.Join(g.t.TempDir(), "export.tar"), id) // folders nested too deep end it
		g.Dhow("start", id)                                                    // there is nothing to run
		g.Dhow("rm", "-f", id).OK()
	} else if strings.Contains(r.Err, "panic") {
		g.t.Error(r.Err)
	}
	g.Dhow("rmi", ref).OK()
}

// copies are the entry points that lay a tar over a container's files; a commit follows.
func (g *gauntlet) copies() []entry {
	into := func(name string, commit bool) func([]byte) (int, string) {
		return func(b []byte) (int, string) {
			g.n++
			dir := fmt.Sprintf("case%d", g.n)
			if name == "" {
				g.Dhow("create", "--name", dir, bb, "true").OK()
				defer func() { g.Dhow("rm", "-f", dir).OK() }()
			}
			c := name
			if c == "" {
				c = dir
			}
			if code, text, err := g.put("/containers/"+c+"/archive?path=/tmp", bytes.NewReader(registry.Tar(g.t, registry.Dir(dir)))); err != nil || code != 200 {
				g.t.Fatalf("%d %s %v", code, text, err)
			}
			code, text, err := g.put("/containers/"+c+"/archive?path=/tmp/"+dir, bytes.NewReader(b))
			if err != nil {
				return 500, err.Error()
			}
			if code == 200 && commit {
				if r := g.Dhow("commit", c, "committed:1"); strings.Contains(r.Err, "names that begin with .wh. have a meaning of their own") {
					return code, text // such a file was copied
				} else {
					r.OK()
				}
				g.Dhow("run", "--rm", "committed:1", "find", "/tmp", "-name", "nosuch").OK()
				g.Dhow("rmi", "committed:1").OK()
			}
			return code, text
		}
	}
	return []entry{{"copy into a running container", into("running", false)}, {"copy into a stopped one, commit", into("", true)}}
}

// run gives one tar to one way in.
func (g *gauntlet) run(e entry, what string, body []byte, want string) {
	g.t.Helper()
	start := time.Now()
	code, text := e.give(body)
	if d := time.Since(start); d > patience.Of(g.most) {
		g.t.Errorf("%s: %s: took %s", e.name, what, d)
	}
	switch {
	case strings.Contains(text, "panic"):
		g.t.Errorf("%s: %s: %s", e.name, what, text)
	case want == torture.Any:
	case want == "" && code != 200 || want != "" && (code == 200 || !strings.Contains(text, want)):
		g.t.Errorf("%s: %s: %d %s; want %q", e.name, what, code, text, want)
	}
	g.sings(e.name + ": " + what)
}

// TestTortureUnpacked gives the hostile layers to engines that unpack them: by a process that is locked in.
func TestTortureUnpacked(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"dir", "vfs"} {
		t.Run(form, func(t *testing.T) {
			g := newGauntlet(t, "--layers", form)
			g.most *= 4 // folders a thousand deep are made, copied and removed, too
			before := g.stored(t)
			for _, c := range torture.Cases(t, torture.Canary(g.canary)) {
				for _, e := range g.layers() {
					g.run(e, c.Name, c.Tar, c.Layer)
				}
			}
			eventually(t, "nothing of it is left", func() bool { return g.stored(t) == before }, func() string { return g.stored(t) })
			g.Dhow("rm", "-f", "running").OK()
			if now := g.idle(); now > g.fds {
				t.Errorf("the engine holds %d descriptors, %d before", now, g.fds)
			}
		})
	}
}

// TestTorture gives every entry point the hostile layers 29 to 36 and the bombs of 37: each answer is the right one and comes in time,
// nothing happens outside, nothing is left, and the engine does not grow.
func TestTorture(t *testing.T) {
	t.Parallel()
	g := newGauntlet(t)
	before, memory := g.stored(t), g.memory(t)
	for _, c := range torture.Cases(t, torture.Canary(g.canary)) {
		for _, e := range g.layers() {
			g.run(e, c.Name, c.Tar, c.Layer)
		}
		for _, e := range g.copies() {
			g.run(e, c.Name, c.Tar, c.Copy)
		}
	}
	t.Logf("hostile layers: the engine grew by %d MiB", (g.memory(t)-memory)>>20)
	for _, b := range torture.Bombs(t) {
		want := "bomb"
		switch b.Name {
		case "xz":
			want = "xz"
		case "gzip in gzip":
			want = ""
		}
		for _, e := range append(g.layers()[1:], g.copies()...) {
			if want == "" { // what is inside is no tar
				g.run(e, b.Name, b.Body, torture.Any)
				continue
			}
			g.run(e, b.Name, b.Body, want)
		}
		ref := strings.Replace(g.h.Serve("bomb:"+strings.ReplaceAll(b.Name, " ", "-"), g.blob(b.Body, []byte("x"))), g.h.Host, hostileAddr, 1)
		start := time.Now()
		if r := g.Dhow("pull", "-q", ref); r.Code == 0 {
			t.Errorf("pull: %s: it succeeds", b.Name)
		}
		if d := time.Since(start); d > patience.Of(5*time.Second) {
			t.Errorf("pull: %s: took %s", b.Name, d)
		}
	}
	if grown := g.memory(t) - memory; grown > 64<<20 {
		t.Errorf("the engine grew by %d MiB", grown>>20)
	} else {
		t.Logf("with the bombs: by %d MiB", grown>>20)
	}
	eventually(t, "nothing of it is left", func() bool { return g.stored(t) == before }, func() string { return g.stored(t) })
	g.Dhow("rm", "-f", "running").OK()
	if ids := g.Dhow("ps", "-aq").OK(); ids != "" {
		t.Errorf("containers are left: %s", ids)
	}
	if now := g.idle(); now > g.fds {
		t.Errorf("the engine holds %d descriptors, %d before", now, g.fds)
	}
}
