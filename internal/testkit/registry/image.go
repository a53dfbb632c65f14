// Package registry owns the registries and images that tests pull from: Debian's docker-registry on loopback, a hostile server
// of our own, and images made byte by byte.
//
// It promises that what it starts ends with the test and that an image's bytes are the same in every run.
// It must never be linked into a program.
package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Epoch is the time every entry and config of a test image carries.
var Epoch = time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)

// Doc is a manifest or index as a registry stores it.
type Doc struct {
	MediaType string
	Raw       []byte
}

// Desc describes the document.
func (d Doc) Desc() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.FromBytes(d.Raw), Size: int64(len(d.Raw))}
}

// Image is everything a registry must hold to serve one reference.
type Image struct {
	Top   Doc
	Docs  []Doc // what an index points to
	Blobs map[digest.Digest][]byte

	ID       digest.Digest // the config's; for an index, of the first entry
	DiffIDs  []digest.Digest
	Manifest ocispec.Manifest
	About    digest.Digest // of an attestation: the manifest that it is about
}

// File is an entry of a layer: a regular file unless Header.Typeflag says otherwise.
type File struct {
	tar.Header
	Body []byte
}

// Text is a regular file of mode 0644.
func Text(name, body string) File {
	return File{Header: tar.Header{Name: name, Mode: 0o644}, Body: []byte(body)}
}

// Dir is a folder of mode 0755.
func Dir(name string) File {
	return File{Header: tar.Header{Name: strings.TrimSuffix(name, "/") + "/", Typeflag: tar.TypeDir, Mode: 0o755}}
}

// Link is a symbolic link.
func Link(name, to string) File {
	return File{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}}
}

// Whiteout removes name of the layers below.
func Whiteout(name string) File {
	i := strings.LastIndexByte(name, '/') + 1
	return Text(name[:i]+".wh."+name[i:], "")
}

// Tar makes a layer.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.Body))
		if h.ModTime.IsZero() {
			h.ModTime = Epoch
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Gzip compresses.
func Gzip(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

// Zstd compresses.
func Zstd(raw []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // options are constant
	}
	defer w.Close()
	return w.EncodeAll(raw, nil)
}

// Spec says what image to build.
type Spec struct {
	Tars     [][]byte // layers, base first
	Compress string   // "gzip" (default), "zstd", "estargz", "stargz-zstd" or "none"
	Docker   bool     // Docker's media types in place of the OCI's
	Platform ocispec.Platform
	Config   dockerspec.DockerOCIImageConfig
	History  []ocispec.History
	// Edit may spoil what was built before it is digested: config and manifest.
	Edit func(*dockerspec.DockerOCIImage, *ocispec.Manifest)
}

// Build makes an image.
func Build(t testing.TB, s Spec) *Image {
	t.Helper()
	img := &Image{Blobs: map[digest.Digest][]byte{}}
	types := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer}
	if s.Docker {
		types = []string{manifest.DockerManifest, manifest.DockerConfig, manifest.DockerLayerGzip, manifest.DockerLayerZstd, manifest.DockerLayer}
	}
	if s.Platform.OS == "" {
		s.Platform = manifest.HostPlatform()
	}
	m := ocispec.Manifest{MediaType: types[0], Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for _, raw := range s.Tars {
		diff, mt, blob := digest.FromBytes(raw), types[2], raw
		var notes map[string]string
		switch s.Compress {
		case "estargz":
			blob, diff, notes = Stargz(t, raw)
		case "stargz-zstd":
			mt = types[3]
			blob, diff, notes = StargzZstd(t, raw)
		case "none":
			mt = types[4]
		case "zstd":
			mt, blob = types[3], Zstd(raw)
		default:
			blob = Gzip(raw)
		}
		d := img.Add(mt, blob)
		d.Annotations = notes
		img.DiffIDs, m.Layers = append(img.DiffIDs, diff), append(m.Layers, d)
	}
	created := Epoch
	cfg := dockerspec.DockerOCIImage{Config: s.Config}
	cfg.Platform, cfg.Created, cfg.History = s.Platform, &created, s.History
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: append([]digest.Digest{}, img.DiffIDs...)}
	if s.Edit != nil {
		s.Edit(&cfg, &m)
	}
	m.Config = img.Add(types[1], encode(t, cfg))
	img.ID, img.Manifest = m.Config.Digest, m
	img.Top = Doc{types[0], encode(t, m)}
	return img
}

// Add puts a blob into the image.
func (i *Image) Add(mediaType string, blob []byte) ocispec.Descriptor {
	d := digest.FromBytes(blob)
	i.Blobs[d] = blob
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob))}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Attest makes what a builder puts beside an image into an index: a statement about it, of body, for no platform.
func Attest(t testing.TB, of *Image, body string) *Image {
	t.Helper()
	a := &Image{Blobs: map[digest.Digest][]byte{}, About: of.Top.Desc().Digest}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	l := a.Add("application/vnd.in-toto+json", []byte(body))
	l.Annotations = map[string]string{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
	m.Layers = []ocispec.Descriptor{l}
	cfg := ocispec.Image{Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}}}
	m.Config = a.Add(ocispec.MediaTypeImageConfig, encode(t, cfg))
	a.ID, a.Manifest, a.Top = m.Config.Digest, m, Doc{m.MediaType, encode(t, m)}
	return a
}

// Index bundles images under one reference.
func Index(t testing.TB, images ...*Image) *Image {
	t.Helper()
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	ix.SchemaVersion = 2
	all := &Image{Blobs: map[digest.Digest][]byte{}, ID: images[0].ID, DiffIDs: images[0].DiffIDs, Manifest: images[0].Manifest}
	for _, img := range images {
		d := img.Top.Desc()
		if raw, ok := img.Blobs[img.ID]; ok && img.Manifest.Config.Digest == img.ID {
			var c ocispec.Image
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			d.Platform = &c.Platform
		}
		if img.About != "" {
			d.Annotations = map[string]string{"vnd.docker.reference.digest": img.About.String(), "vnd.docker.reference.type": "attestation-manifest"}
		}
		ix.Manifests = append(ix.Manifests, d)
		all.Docs = append(append(all.Docs, img.Docs...), img.Top)
		for d, b := range img.Blobs {
			all.Blobs[d] = b
		}
	}
	all.Top = Doc{ocispec.MediaTypeImageIndex, encode(t, ix)}
	return all
}

// busybox is where Debian's busybox-static puts its program.
const busybox = "/bin/busybox"

// applets are the commands that test images offer.
const applets = "sh ash cat echo ls true false sleep id env hostname ps mount umount touch rm mkdir rmdir cp mv ln chmod chown " +
	"grep sed awk head tail wc sort uniq tr seq dd df du stat find xargs test [ expr printf date uname whoami kill killall " +
	"nc wget httpd ip ifconfig ping nslookup vi top free tty stty yes od md5sum sha256sum tar gzip gunzip readlink dirname basename nproc"

// BusyboxTar is a small root filesystem of busybox-static with links for its commands. The test is skipped when
// busybox-static is not installed.
func BusyboxTar(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	files := []File{Dir("bin"), Dir("dev"), Dir("etc"), Dir("proc"), Dir("root"), Dir("sys"), Dir("usr"), Dir("var"),
		{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
		Text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		Text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
		{Header: tar.Header{Name: "bin/busybox", Mode: 0o755}, Body: raw}}
	for _, a := range strings.Fields(applets) {
		files = append(files, Link("bin/"+a, "busybox"))
	}
	return Tar(t, files...)
}

// Busybox is an image of one layer that runs sh.
func Busybox(t testing.TB) *Image {
	t.Helper()
	return Build(t, Spec{Tars: [][]byte{BusyboxTar(t)}, Config: shell()})
}

func shell() dockerspec.DockerOCIImageConfig {
	var c dockerspec.DockerOCIImageConfig
	c.Cmd = []string{"sh"}
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return c
}
