package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// one is an image with one layer made of these compressed bytes; diff is the tar its config promises.
func one(t testing.TB, mediaType string, blob, diff []byte) *kit.Image {
	t.Helper()
	img := kit.Build(t, kit.Spec{Edit: func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) {
		c.RootFS.DiffIDs = []digest.Digest{digest.FromBytes(diff)}
		m.Layers = []ocispec.Descriptor{{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}}
	}})
	img.Add(mediaType, blob)
	img.DiffIDs = []digest.Digest{digest.FromBytes(diff)}
	return img
}

// refused pulls and wants an error of a kind with a text, no tag and no file left.
func refused(t *testing.T, e *env, name string, kind errdef.Kind, text string) {
	t.Helper()
	_, err := e.Pull(context.Background(), name, PullOptions{})
	if !errdef.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("kind %d: %v; want kind %d and %q", errdef.KindOf(err), err, kind, text)
	}
	if n := e.files(t); n != 0 {
		t.Errorf("%d files left behind", n)
	}
	if all, err := e.List(); err != nil || len(all) != 0 || len(e.pins) != 0 {
		t.Errorf("images %v, pins %v, %v", all, e.pins, err)
	}
}

func TestBadLayers(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", strings.Repeat("rope ", 100_000)))
	other := kit.Tar(t, kit.Text("g", "other"))
	gz := kit.Gzip(tar)
	gzType := ocispec.MediaTypeImageLayerGzip
	for name, c := range map[string]struct {
		blob, diff []byte
		fault      kit.Fault
		kind       errdef.Kind
		text       string
	}{
		"wrong digest":          {gz, tar, kit.Body(flip(gz), true), errdef.DataLoss, ""},
		"short with length":     {gz, tar, kit.Body(gz[:len(gz)-9], true), errdef.DataLoss, "wrong size"},
		"short, chunked":        {gz, tar, kit.Body(gz[:len(gz)-9], false), errdef.DataLoss, "wrong size"},
		"long with length":      {gz, tar, kit.Body(append(bytes.Clone(gz), 0), true), errdef.DataLoss, "wrong size"},
		"long, chunked":         {gz, tar, kit.Body(append(bytes.Clone(gz), 0), false), errdef.DataLoss, "more than the promised"},
		"no body":               {gz, tar, kit.Status(200, ""), errdef.DataLoss, "wrong size"},
		"missing":               {gz, tar, kit.Status(404, ""), errdef.NotFound, "not found"},
		"forbidden":             {gz, tar, kit.Status(403, ""), errdef.NotFound, "pull access denied"},
		"truncated gzip":        {gz[:len(gz)-20], tar, nil, errdef.DataLoss, "damaged"},
		"gzip checksum":         {flipAt(gz, len(gz)-6), tar, nil, errdef.DataLoss, "damaged"},
		"trailing garbage":      {append(bytes.Clone(gz), "garbage behind it"...), tar, nil, errdef.DataLoss, ""},
		"second member unknown": {append(bytes.Clone(gz), kit.Gzip([]byte("x"))...), tar, nil, errdef.DataLoss, "content has the digest"},
		"wrong diff ID":         {gz, other, nil, errdef.DataLoss, "content has the digest"},
		"not compressed at all": {[]byte("no tar"), tar, nil, errdef.DataLoss, "content has the digest"},
		"empty blob":            {nil, tar, nil, errdef.DataLoss, "content has the digest"},
		"truncated zstd":        {kit.Zstd(tar)[:30], tar, nil, errdef.DataLoss, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			h := kit.StartHostile(t)
			img := one(t, gzType, c.blob, c.diff)
			ref := h.Serve("bad:1", img)
			h.Fault(digest.FromBytes(c.blob).String(), c.fault)
			refused(t, newEnv(t, quick()), ref, c.kind, c.text)
		})
	}
}

func flip(b []byte) []byte { return flipAt(b, len(b)/2) }

func flipAt(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 0x40
	return b
}

// TestTwoMembers: gzip members and zstd frames in a row are one stream by their standards; they are accepted when the diff ID
// covers all of them (eStargz and zstd:chunked are made so), and refused above when it does not.
func TestTwoMembers(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", "body"))
	h := kit.StartHostile(t)
	for i, blob := range [][]byte{append(kit.Gzip(tar[:700]), kit.Gzip(tar[700:])...), append(kit.Zstd(tar[:700]), kit.Zstd(tar[700:])...)} {
		name := h.Serve(fmt.Sprint("two:", i), one(t, ocispec.MediaTypeImageLayerGzip, blob, tar))
		if _, err := newEnv(t, quick()).Pull(context.Background(), name, PullOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestBombs: refused in time, and the process does not grow.
func TestBombs(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 1<<20)
	var gz, zst bytes.Buffer
	w, _ := gzip.NewWriterLevel(&gz, 9)
	z, _ := zstd.NewWriter(&zst, zstd.WithWindowSize(8<<20))
	for range 1 << 10 { // 1 GiB
		w.Write(zeros)
		z.Write(zeros)
	}
	w.Close()
	z.Close()
	h := kit.StartHostile(t)
	for name, blob := range map[string][]byte{"gzip": gz.Bytes(), "zstd": zst.Bytes()} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, quick())
			ref := h.Serve(name+":1", one(t, ocispec.MediaTypeImageLayerGzip, blob, zeros))
			start, before := time.Now(), heap()
			refused(t, e, ref, errdef.DataLoss, "bomb")
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %s", d)
			}
			if grown := heap() - before; grown > 64<<20 {
				t.Errorf("the process took %d MiB more from the system", grown>>20)
			}
		})
	}
	t.Run("cap", func(t *testing.T) {
		e := newEnv(t, quick())
		e.c.MaxLayerSize = 1 << 20
		tar := kit.Tar(t, kit.Text("f", strings.Repeat("abcdefgh", 200_000)))
		refused(t, e, h.Serve("cap:1", one(t, ocispec.MediaTypeImageLayerGzip, kit.Gzip(tar), tar)), errdef.DataLoss, "bomb")
	})
	t.Run("honest 64 MiB of zeros", func(t *testing.T) {
		e := newEnv(t, quick())
		tar := kit.Tar(t, kit.File{Header: kit.Text("z", "").Header, Body: bytes.Repeat(zeros, 63)})
		if _, err := e.Pull(context.Background(), h.Serve("zeros:1", one(t, ocispec.MediaTypeImageLayerGzip, kit.Gzip(tar), tar)), PullOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

func TestBadDocuments(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", "x"))
	good := kit.Build(t, kit.Spec{Tars: [][]byte{tar}})
	edit := func(f func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest)) *kit.Image {
		return kit.Build(t, kit.Spec{Tars: [][]byte{tar}, Edit: f})
	}
	raw := func(mt string, b []byte) *kit.Image {
		c := *good
		c.Top = kit.Doc{MediaType: mt, Raw: b}
		return &c
	}
	text := func(old, new string) *kit.Image {
		return raw(good.Top.MediaType, bytes.Replace(good.Top.Raw, []byte(old), []byte(new), 1))
	}
	for name, c := range map[string]struct {
		img  *kit.Image
		kind errdef.Kind
		text string
	}{
		"100 MiB manifest":   {raw(good.Top.MediaType, bytes.Repeat([]byte{' '}, 100<<20)), errdef.DataLoss, "4194304"},
		"manifest and index": {text(`"layers"`, `"manifests":[],"layers"`), errdef.DataLoss, "either"},
		"duplicate keys":     {text(`"layers"`, `"layers":[],"layers"`), errdef.DataLoss, "twice"},
		"folded keys":        {text(`"layers"`, `"Layers":[],"layers"`), errdef.DataLoss, "disguise"},
		"wrong header":       {raw(ocispec.MediaTypeImageIndex, good.Top.Raw), errdef.DataLoss, "mediaType"},
		"html":               {raw("text/html", []byte("<html>")), errdef.DataLoss, "no JSON"},
		"fewer diff IDs": {edit(func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) { c.RootFS.DiffIDs = nil }),
			errdef.DataLoss, "its manifest has 1 layers, its config 0"},
		"foreign config": {edit(func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) { c.Config.Env = []string{"A=\x00"} }),
			errdef.DataLoss, "NUL"},
		"10,000 layers": {edit(func(c *dockerspec.DockerOCIImage, m *ocispec.Manifest) {
			for range 9999 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}), errdef.DataLoss, "10000 layers"},
	} {
		t.Run(name, func(t *testing.T) {
			h := kit.StartHostile(t)
			refused(t, newEnv(t, quick()), h.Serve("bad:1", c.img), c.kind, c.text)
		})
	}
}

func TestBadAnswers(t *testing.T) {
	good := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("f", "x"))}})
	t.Run("config missing", func(t *testing.T) {
		h := kit.StartHostile(t)
		h.Fault(good.ID.String(), kit.Status(404, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}`))
		refused(t, newEnv(t, quick()), h.Serve("bad:1", good), errdef.NotFound, "blob unknown")
	})
	t.Run("endless manifest", func(t *testing.T) {
		h := kit.StartHostile(t)
		h.Fault("manifest", h.Endless(bytes.Repeat([]byte{' '}, 1<<16)))
		refused(t, newEnv(t, quick()), h.Serve("bad:1", good), errdef.DataLoss, "more than")
	})
	t.Run("lying digest header", func(t *testing.T) {
		h := kit.StartHostile(t)
		h.Fault("manifest", kit.Status(200, string(good.Top.Raw), "Content-Type", good.Top.MediaType, "Docker-Content-Digest", good.ID.String()))
		refused(t, newEnv(t, quick()), h.Serve("bad:1", good), errdef.DataLoss, "wrong digest: got "+good.Top.Desc().Digest.String()+", promised "+good.ID.String())
	})
	t.Run("other manifest under a digest", func(t *testing.T) {
		h := kit.StartHostile(t)
		h.Serve("bad:1", good)
		h.Fault("manifest", kit.Status(200, string(good.Top.Raw)+" ", "Content-Type", good.Top.MediaType))
		refused(t, newEnv(t, quick()), h.Host+"/bad@"+good.Top.Desc().Digest.String(), errdef.DataLoss, "wrong digest")
	})
}

func TestIndexes(t *testing.T) {
	h := kit.StartHostile(t)
	wrap := func(inner *kit.Image) *kit.Image {
		o := kit.Index(t, inner)
		raw := bytes.Replace(o.Top.Raw, []byte(`"platform":`), []byte(`"x":`), 1)
		o.Top.Raw = raw
		return o
	}
	good := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("f", "x"))}})
	nest := good
	for depth := 1; depth <= 5; depth++ {
		nest = wrap(nest)
		name := h.Serve(fmt.Sprint("nest:", depth), nest)
		if depth < manifest.MaxDepth {
			if _, err := newEnv(t, quick()).Pull(context.Background(), name, PullOptions{}); err != nil {
				t.Errorf("depth %d: %v", depth, err)
			}
			continue
		}
		refused(t, newEnv(t, quick()), name, errdef.DataLoss, "nested deeper than 4")
	}
	// An index cannot contain its own digest, but a lying registry can serve it under any digest: that is a wrong digest.
	self := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageIndex, Digest: good.ID, Size: 1}}}
	self.SchemaVersion = 2
	raw, _ := json.Marshal(self)
	h.Fault("manifest", kit.Status(200, string(raw), "Content-Type", ocispec.MediaTypeImageIndex))
	refused(t, newEnv(t, quick()), h.Host+"/self:1", errdef.DataLoss, "wrong digest")
	h.Fault("manifest", nil)
	big := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: make([]ocispec.Descriptor, 20_000)}
	big.SchemaVersion = 2
	for i := range big.Manifests {
		big.Manifests[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: good.ID, Size: 1}
	}
	raw, _ = json.Marshal(big)
	refused(t, newEnv(t, quick()), h.Serve("big:1", &kit.Image{Top: kit.Doc{MediaType: ocispec.MediaTypeImageIndex, Raw: raw}}), errdef.DataLoss, "20000 manifests")
}

// TestResume breaks the connection again and again: the blob arrives by ranges and the digest is right.
func TestResume(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", noise(3<<20)))
	blob := kit.Gzip(tar)
	img := one(t, ocispec.MediaTypeImageLayerGzip, blob, tar)
	h := kit.StartHostile(t)
	name := h.Serve("resume:1", img)
	key := digest.FromBytes(blob).String()
	h.Fault(key, kit.Times(3, kit.BreakAfter(blob, len(blob)/5)))
	if _, err := newEnv(t, quick()).Pull(context.Background(), name, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	ranges := 0
	for _, s := range h.Seen() {
		if s.Range != "" {
			ranges++
		}
	}
	if ranges != 3 {
		t.Errorf("%d ranged requests, want 3", ranges)
	}
	h.Fault(key, kit.BreakAfter(blob, 10))
	e := newEnv(t, quick())
	if _, err := e.Pull(context.Background(), name, PullOptions{}); !errdef.Is(err, errdef.Unavailable) || !strings.Contains(err.Error(), "broke off at") || e.files(t) != 1 {
		t.Errorf("%v; %d files are left, want what came of the layer", err, e.files(t))
	}
	// A server that knows no ranges sends everything again; one that sends another range is refused.
	first := kit.Times(1, kit.BreakAfter(blob, 1000))
	h.Fault(key, func(w http.ResponseWriter, r *http.Request) bool { return first(w, r) || kit.Body(blob, true)(w, r) })
	if _, err := newEnv(t, quick()).Pull(context.Background(), name, PullOptions{}); err != nil {
		t.Error(err)
	}
	first = kit.Times(1, kit.BreakAfter(blob, 1000))
	h.Fault(key, func(w http.ResponseWriter, r *http.Request) bool {
		return first(w, r) || kit.Status(206, "x", "Content-Range", "bytes 5-5/9")(w, r)
	})
	refused(t, newEnv(t, quick()), name, errdef.DataLoss, "registry sent range")
}

func noise(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// TestSlow: silence, a drip and an endless body end by themselves, and a cancelled pull ends at once.
func TestSlow(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", noise(200_000)))
	blob := kit.Gzip(tar)
	img := one(t, ocispec.MediaTypeImageLayerGzip, blob, tar)
	h := kit.StartHostile(t)
	name := h.Serve("slow:1", img)
	key := digest.FromBytes(blob).String()
	client := registry.New(registry.Config{BackOff: time.Millisecond, Stall: 150 * time.Millisecond, Attempts: 2})
	for what, f := range map[string]kit.Fault{"silent": h.Silent(), "drip": h.Drip(blob, 20*time.Millisecond), "slow-loris": h.Drip(blob, time.Hour)} {
		t.Run(what, func(t *testing.T) {
			h.Fault(key, f)
			start := time.Now()
			refused(t, newEnv(t, client), name, errdef.Unavailable, "")
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
	t.Run("endless", func(t *testing.T) {
		h.Fault(key, h.Endless(blob))
		refused(t, newEnv(t, client), name, errdef.DataLoss, "")
	})
	t.Run("cancel", func(t *testing.T) {
		h.Fault(key, h.Drip(blob, 10*time.Millisecond))
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		e, start := newEnv(t, quick()), time.Now()
		_, err := e.Pull(ctx, name, PullOptions{})
		if !errdef.Is(err, errdef.Cancelled) || time.Since(start) > time.Second {
			t.Error(err, time.Since(start))
		}
		if e.files(t) != 0 {
			t.Error("files left behind")
		}
	})
}

// TestFlightOfAnother: a pull that waits for another's layer goes on by itself when that one fails.
func TestFlightOfAnother(t *testing.T) {
	tar := kit.Tar(t, kit.Text("f", "shared"))
	blob := kit.Gzip(tar)
	img := one(t, ocispec.MediaTypeImageLayerGzip, blob, tar)
	evil, good := kit.StartHostile(t), kit.StartHostile(t)
	evil.Fault(digest.FromBytes(blob).String(), evil.Drip(flip(blob), 5*time.Millisecond))
	a, b := evil.Serve("x:1", img), good.Serve("x:1", img)
	e := newEnv(t, quick())
	ctx, cancel := context.WithCancel(context.Background())
	ended, begun := make(chan error, 1), make(chan bool, 1)
	go func() {
		_, err := e.Pull(ctx, a, PullOptions{Progress: func(ev Event) {
			if ev.Status == "Downloading" {
				select {
				case begun <- true:
				default:
				}
			}
		}})
		ended <- err
	}()
	<-begun
	go func() { time.Sleep(100 * time.Millisecond); cancel() }()
	if _, err := e.Pull(context.Background(), b, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatal("the evil pull succeeded")
	}
}

// TestManyLayers: none and 500 are fine.
func TestManyLayers(t *testing.T) {
	h := kit.StartHostile(t)
	for _, n := range []int{0, 500} {
		var tars [][]byte
		for i := range n {
			tars = append(tars, kit.Tar(t, kit.Text(fmt.Sprint(i), "x")))
		}
		e, img := newEnv(t, quick()), kit.Build(t, kit.Spec{Tars: tars})
		got, err := e.Pull(context.Background(), h.Serve(fmt.Sprint("many:", n), img), PullOptions{})
		if err != nil {
			t.Fatalf("%d layers: %v", n, err)
		}
		checkLayers(t, e, img, got)
		if _, del, err := e.Remove(got.ID.String(), false, nil); err != nil || len(del) != n+1 || e.files(t) != 0 {
			t.Errorf("%d layers: %d deleted, %d files left: %v", n, len(del), e.files(t), err)
		}
	}
}
