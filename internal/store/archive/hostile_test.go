package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/archive"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
	"github.com/dhow-containers/dhow/internal/testkit/torture"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// refused loads an archive that must be refused for a reason, soon, and leave nothing.
func refused(t *testing.T, b []byte, kind errdef.Kind, text string) {
	t.Helper()
	e := newEnv(t)
	start := time.Now()
	made, err := e.load(t, b)
	if err == nil || errdef.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v %v (kind %d), want kind %d and %q", made, err, errdef.KindOf(err), kind, text)
	}
	if d := time.Since(start); d > 10*time.Second { // two on a machine that does nothing else
		t.Errorf("took %s", d)
	}
	if left := e.files(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if l, err := e.images.List(); err != nil || len(l) > 0 {
		t.Errorf("images: %v %v", l, err)
	}
}

// edited is an archive of which one entry is another.
func edited(t *testing.T, files []kit.File, name string, body []byte) []byte {
	t.Helper()
	for i := range files {
		if files[i].Name == name {
			files[i].Body = body
			return kit.Tar(t, files...)
		}
	}
	t.Fatalf("no entry %s", name)
	return nil
}

// TestRefuses: paths and links out, what is missing, wrong, twice or two things at once (torture cases 29, 31, 33, 38 to 42).
func TestRefuses(t *testing.T) {
	img, big := sample(t, false, "gzip"), sample(t, true, "none")
	good := func(more ...kit.File) []byte { return kit.Tar(t, append(kit.Archive(t, img, "x:1"), more...)...) }
	entry := func(h tar.Header) kit.File { return kit.File{Header: h} }
	items := func(s string) []byte { return edited(t, kit.Archive(t, img, "x:1"), "manifest.json", []byte(s)) }
	evil := func(files ...kit.File) []byte {
		return kit.Tar(t, kit.Archive(t, kit.Build(t, kit.Spec{Compress: "none", Tars: [][]byte{kit.Tar(t, files...)}}), "x:1")...)
	}
	config := func(f func(*dockerspec.DockerOCIImage)) []byte {
		i := kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("f", "x"))}, Edit: func(c *dockerspec.DockerOCIImage, _ *ocispec.Manifest) { f(c) }})
		return kit.Tar(t, kit.Archive(t, i, "x:1")...)
	}
	many := make([]string, 10000)
	for i := range many {
		many[i] = `"l"`
	}
	for name, c := range map[string]struct {
		tar  []byte
		kind errdef.Kind
		text string
	}{
		"path out":          {good(file("../canary", nil)), errdef.InvalidArgument, "leads out"},
		"path out below":    {good(file("a/../../canary", nil)), errdef.InvalidArgument, "leads out"},
		"long name":         {good(file(strings.Repeat("n/", 3000)+"x", nil)), errdef.InvalidArgument, "longer than"},
		"link out":          {good(kit.Link("l", "../../etc/passwd")), errdef.InvalidArgument, "leads out"},
		"hard link out":     {good(hardlink("l", "../etc/passwd")), errdef.InvalidArgument, "leads out"},
		"link to the host":  {edited(t, append(kit.Archive(t, img), kit.Link("etc", "/etc/passwd")), "manifest.json", []byte(`[{"Config":"etc","Layers":[]}]`)), errdef.DataLoss, `"etc" is missing`},
		"link to itself":    {edited(t, append(kit.Archive(t, img), kit.Link("l", "l")), "manifest.json", []byte(`[{"Config":"l","Layers":[]}]`)), errdef.InvalidArgument, "links"},
		"device":            {good(entry(tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3})), errdef.InvalidArgument, "type"},
		"pipe":              {good(entry(tar.Header{Name: "p", Typeflag: tar.TypeFifo})), errdef.InvalidArgument, "type"},
		"root is a link":    {good(kit.Link("./", "x")), errdef.InvalidArgument, ""},
		"twice":             {good(file("manifest.json", []byte("[]"))), errdef.InvalidArgument, "twice"},
		"twice, dotted":     {good(file("./x/../manifest.json", []byte("[]"))), errdef.InvalidArgument, "twice"},
		"no archive":        {kit.Tar(t, file("etc/passwd", []byte("x"))), errdef.InvalidArgument, "import"},
		"no tar":            {[]byte(strings.Repeat("what is this? ", 200)), errdef.InvalidArgument, "not a tar"},
		"empty":             {nil, errdef.InvalidArgument, "neither"},
		"old":               {kit.Tar(t, file("repositories", []byte("{}"))), errdef.NotImplemented, "before 1.10"},
		"xz":                {[]byte("\xfd7zXZ\x00\x00\x04"), errdef.NotImplemented, "xz -d"},
		"trailing garbage":  {append(kit.Gzip(good()), "garbage"...), errdef.DataLoss, ""},
		"cut gzip":          {kit.Gzip(good())[:500], errdef.DataLoss, ""},
		"cut":               {good()[:2000], errdef.DataLoss, "too early"},
		"missing config":    {items(`[{"Config":"nosuch.json","Layers":[]}]`), errdef.DataLoss, "nosuch.json"},
		"missing layer":     {items(`[{"Config":"` + img.ID.Encoded() + `.json","Layers":["nosuch","nosuch"]}]`), errdef.DataLoss, "nosuch"},
		"fewer layers":      {items(`[{"Config":"` + img.ID.Encoded() + `.json","Layers":[]}]`), errdef.DataLoss, "0 layers in the archive, 2 in its config"},
		"swapped layers":    {items(`[{"Config":"` + img.ID.Encoded() + `.json","Layers":["` + img.DiffIDs[1].Encoded() + `/layer.tar","` + img.DiffIDs[0].Encoded() + `/layer.tar"]}]`), errdef.DataLoss, "diff ID"},
		"10,000 layers":     {items(`[{"Config":"x","Layers":[` + strings.Join(many, ",") + `]}]`), errdef.DataLoss, "10000 layers"},
		"no images":         {items(`[]`), errdef.DataLoss, "0 images"},
		"not a list":        {items(`{"Config":"x"}`), errdef.DataLoss, "manifest.json"},
		"two lists":         {items(`[],"x":[]`), errdef.DataLoss, "manifest.json"},
		"key twice":         {items(`[{"Config":"a","Config":"b","Layers":[]}]`), errdef.DataLoss, "twice"},
		"key in disguise":   {items(`[{"config":"a","Layers":[]}]`), errdef.DataLoss, "disguise"},
		"deep":              {items(`[{"Config":"a","X":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}]`), errdef.DataLoss, "deeper"},
		"other config":      {edited(t, kit.Archive(t, img, "x:1"), img.ID.Encoded()+".json", big.Blobs[big.ID]), errdef.DataLoss, "digest"},
		"other layer":       {edited(t, kit.Archive(t, img, "x:1"), img.DiffIDs[0].Encoded()+"/layer.tar", kit.Tar(t, kit.Text("a", "b"))), errdef.DataLoss, "diff ID"},
		"other large layer": {edited(t, kit.Archive(t, big, "x:1"), big.DiffIDs[0].Encoded()+"/layer.tar", big.Blobs[big.DiffIDs[1]]), errdef.DataLoss, "diff ID"},
		"layer is no tar":   {edited(t, kit.Archive(t, big, "x:1"), big.DiffIDs[0].Encoded()+"/layer.tar", []byte(noise(5<<20))), errdef.InvalidArgument, "tar"},
		"bad name":          {kit.Tar(t, kit.Archive(t, img, "UPPER:1")...), errdef.InvalidArgument, "UPPER"},
		"name with digest":  {kit.Tar(t, kit.Archive(t, img, "x@"+img.ID.String())...), errdef.InvalidArgument, "digest"},
		"layer: path out":   {evil(kit.Text("../../canary", "x")), errdef.InvalidArgument, "leads out"},
		"layer: hard link":  {evil(hardlink("l", "../../etc/shadow")), errdef.InvalidArgument, "leads out"},
		"layer: root":       {evil(kit.Link("./", "/etc")), errdef.InvalidArgument, "root"},
		"layer: whiteout":   {evil(kit.Text(".wh...", "")), errdef.InvalidArgument, "whiteout"},
		"config: NUL":       {config(func(c *dockerspec.DockerOCIImage) { c.Config.Env = []string{"A=\x00"} }), errdef.DataLoss, "NUL"},
		"config: windows":   {config(func(c *dockerspec.DockerOCIImage) { c.OS = "windows" }), errdef.NotImplemented, "windows"},
		"config: diff ID":   {config(func(c *dockerspec.DockerOCIImage) { c.RootFS.DiffIDs[0] = "sha256:../../x" }), errdef.DataLoss, "digest"},
		"config: large":     {config(func(c *dockerspec.DockerOCIImage) { c.Config.Env = []string{"A=" + noise(6<<20)} }), errdef.InvalidArgument, "documents may have"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.tar, c.kind, c.text) })
	}
}

// TestRefusesLayouts is the same for OCI layouts (torture cases 38 to 41).
func TestRefusesLayouts(t *testing.T) {
	img, big := sample(t, false, "gzip"), sample(t, true, "none")
	blobOf := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	with := func(f func(m *ocispec.Manifest)) []byte {
		return kit.Tar(t, layout(t, nil, kit.Build(t, kit.Spec{Tars: [][]byte{kit.Tar(t, kit.Text("f", "x"))},
			Edit: func(_ *dockerspec.DockerOCIImage, m *ocispec.Manifest) { f(m) }}))...)
	}
	index := func(s string) []byte { return edited(t, layout(t, nil, img), "index.json", []byte(s)) }
	deep := img
	for range 5 {
		deep = kit.Index(t, deep)
	}
	top := img.Top.Desc()
	without := func(name string) []byte {
		var files []kit.File
		for _, f := range layout(t, nil, img) {
			if f.Name != name {
				files = append(files, f)
			}
		}
		return kit.Tar(t, files...)
	}
	confused := *img
	confused.Top.Raw = append([]byte(`{"manifests":[],`), img.Top.Raw[1:]...)
	for name, c := range map[string]struct {
		tar  []byte
		kind errdef.Kind
		text string
	}{
		"wrong blob":        {edited(t, layout(t, nil, img), blobOf(img.ID), []byte("{}")), errdef.DataLoss, "its contents have digest"},
		"wrong large blob":  {edited(t, layout(t, nil, big), blobOf(big.DiffIDs[0]), big.Blobs[big.DiffIDs[1]]), errdef.DataLoss, "its contents have digest"},
		"missing manifest":  {without(blobOf(top.Digest)), errdef.DataLoss, "missing"},
		"missing config":    {without(blobOf(img.ID)), errdef.DataLoss, "missing"},
		"missing layer":     {without(blobOf(img.Manifest.Layers[0].Digest)), errdef.DataLoss, "missing"},
		"no oci-layout":     {without("oci-layout"), errdef.InvalidArgument, "neither"},
		"other version":     {edited(t, layout(t, nil, img), "oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`)), errdef.NotImplemented, "2.0.0"},
		"wrong size":        {with(func(m *ocispec.Manifest) { m.Layers[0].Size++ }), errdef.DataLoss, "bytes, promised"},
		"wrong config size": {index(strings.Replace(string(indexOf(t, img)), fmt.Sprintf(`"size":%d`, top.Size), `"size":1`, 1)), errdef.DataLoss, "bytes, promised are 1"},
		"deep indexes":      {kit.Tar(t, layout(t, nil, deep)...), errdef.DataLoss, "deeper than 4"},
		"no index":          {index(string(img.Top.Raw)), errdef.DataLoss, ""},
		"both at once":      {kit.Tar(t, layout(t, nil, &confused)...), errdef.DataLoss, "either"},
		"bad digest":        {index(`{"schemaVersion":2,"manifests":[{"mediaType":"` + top.MediaType + `","digest":"sha256:../x","size":1}]}`), errdef.DataLoss, "digest"},
		"key twice":         {index(`{"schemaVersion":2,"manifests":[],"manifests":[]}`), errdef.DataLoss, "twice"},
		"nothing":           {index(`{"schemaVersion":2,"manifests":[]}`), errdef.NotFound, "no image"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.tar, c.kind, c.text) })
	}
}

func indexOf(t *testing.T, img *kit.Image) []byte {
	for _, f := range layout(t, nil, img) {
		if f.Name == "index.json" {
			return f.Body
		}
	}
	return nil
}

// TestCutAnywhere cuts an archive at many places: nothing is left, however far it came.
func TestCutAnywhere(t *testing.T) {
	whole := kit.Tar(t, kit.Archive(t, sample(t, true, "none"), "x:1")...)
	packed := kit.Gzip(whole)
	for i := range 12 {
		for _, b := range [][]byte{whole, packed} {
			if n := len(b) * i / 12; n > 0 {
				refused(t, b[:n], errdef.DataLoss, "")
			}
		}
	}
}

func sys() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

// bounded runs f and checks that the process' memory grew by less than 64 MiB.
func bounded(t *testing.T, f func()) {
	t.Helper()
	before := sys()
	f()
	if grown := sys() - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

// zeroTar is an archive with an entry of n zero bytes.
func zeroTar(w io.Writer, name string, n int64) {
	tw := tar.NewWriter(w)
	tw.WriteHeader(&tar.Header{Name: name, Size: n, Mode: 0o600})
	io.CopyN(tw, zeros{}, n)
	tw.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// manyTimes are n layers of more than 4 MiB, each the same bomb and zeros that make it long.
func manyTimes(bomb []byte, n int) (files []kit.File) {
	var half bytes.Buffer // inflates 100 times: what one layer may do
	zeroTar(&half, "half", 60<<20)
	for i := range n {
		body := append(append([]byte{}, kit.Gzip(half.Bytes())...), make([]byte, 5<<20)...)
		files = append(files, file(fmt.Sprint(i, "/layer.tar"), body))
	}
	return files
}

// TestBombs is torture case 37: compression of everything, of a layer, and of both.
func TestBombs(t *testing.T) {
	var plain bytes.Buffer
	zeroTar(&plain, "big", 150<<20)
	inner := kit.Gzip(plain.Bytes())
	victim := sample(t, false, "none")
	bombs := map[string][]byte{
		"gzip": inner, "zstd": kit.Zstd(plain.Bytes()),
		"gzip layer":   edited(t, kit.Archive(t, victim, "x:1"), victim.DiffIDs[0].Encoded()+"/layer.tar", inner),
		"gzip in gzip": kit.Gzip(kit.Tar(t, append(kit.Archive(t, victim, "x:1"), manyTimes(inner, 20)...)...)),
	}
	if p, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(p, "-c")
		cmd.Stdin = &plain
		if bombs["bzip2"], err = cmd.Output(); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range bombs {
		t.Run(name, func(t *testing.T) {
			bounded(t, func() {
				e := newEnv(t)
				start := time.Now()
				_, err := e.load(t, b)
				if err == nil {
					t.Error("loaded")
				}
				if !strings.Contains(err.Error(), "bomb") {
					t.Error(err)
				}
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("took %s", d)
				}
				if left := e.files(t); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				t.Log(len(b), time.Since(start), err)
			})
		})
	}
}

// TestCrowds: very many entries, names, layers (torture cases 35, 39).
func TestCrowds(t *testing.T) {
	layers := func(n int) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		one := kit.Tar(t, kit.Text("f", "x"))
		for i := range n {
			tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("%08d/layer.tar", i), Size: int64(len(one)), Mode: 0o600})
			tw.Write(one)
		}
		tw.Close()
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		tar  func() []byte
		text string
	}{
		"10,000 layers": {func() []byte { return layers(10_000) }, "neither"},
		"100,001 entries": {func() []byte {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for i := range 100_001 {
				tw.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Mode: 0o600})
			}
			tw.Close()
			return b.Bytes()
		}, "more than 100000 entries"},
		"names": {func() []byte {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			long := strings.Repeat(strings.Repeat("n", 200)+"/", 18)
			for i := range 3000 {
				tw.WriteHeader(&tar.Header{Name: fmt.Sprint(long, i), Mode: 0o600})
			}
			tw.Close()
			return b.Bytes()
		}, "names of more than"},
		"pax bomb": {func() []byte {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			tw.WriteHeader(&tar.Header{Name: "x", Size: 64 << 20, Mode: 0o600})
			h := b.Bytes()[:512]
			h[156] = 'x'
			sum := 256
			for i, c := range h {
				if i < 148 || i >= 156 {
					sum += int(c)
				}
			}
			copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
			return append(h, make([]byte, 64<<20)...)
		}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.tar()
			bounded(t, func() { refused(t, b, errdef.InvalidArgument, c.text) })
		})
	}
}

// TestSlowClient: a client that stops sending and goes away leaves nothing, at once (torture case 60).
func TestSlowClient(t *testing.T) {
	whole := kit.Tar(t, kit.Archive(t, sample(t, true, "none"), "x:1")...)
	for _, part := range []int{1, 3, 9} {
		e := newEnv(t)
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := archive.Load(ctx, e.images, r, archive.LoadOptions{Host: manifest.HostPlatform()})
			done <- err
		}()
		if _, err := w.Write(whole[:len(whole)*part/10]); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("it ended by itself: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		cancel()
		w.CloseWithError(io.ErrUnexpectedEOF) // as net/http does with the body of a request whose connection broke
		select {
		case err := <-done:
			if !errdef.Is(err, errdef.Cancelled) {
				t.Error(err)
			}
		case <-time.After(time.Second):
			t.Fatal("it goes on")
		}
		if left := e.files(t); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// FuzzLoad loads anything; whatever it is, a failure leaves nothing and a success leaves an image that is whole.
func FuzzLoad(f *testing.F) {
	img := sample(f, false, "none")
	f.Add(kit.Tar(f, kit.Archive(f, img, "x:1")...))
	f.Add(kit.Tar(f, layout(f, map[string]string{"org.opencontainers.image.ref.name": "x:1"}, img)...))
	f.Add(kit.Tar(f, layout(f, nil, kit.Index(f, img))...))
	f.Add(kit.Gzip(kit.Tar(f, file("manifest.json", []byte(`[{"Config":"a","Layers":["b"]}]`)), kit.Link("b", "a"))))
	for _, c := range torture.Cases(f, "/host/folder") {
		evil := kit.Build(f, kit.Spec{Compress: "none", Tars: [][]byte{c.Tar}})
		f.Add(kit.Tar(f, kit.Archive(f, evil, "x:1")...))
	}
	e, err := openEnv(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.db.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		made, err := archive.Load(context.Background(), e.images, bytes.NewReader(b), archive.LoadOptions{Host: manifest.HostPlatform()})
		if err == nil {
			for _, m := range made {
				if _, err := e.images.Resolve(m.Image.ID.String()); err != nil {
					t.Error(err)
				}
			}
			for _, m := range made {
				e.images.Remove(m.Image.ID.String(), true, nil)
			}
		}
		if left := e.files(t); len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	})
}
