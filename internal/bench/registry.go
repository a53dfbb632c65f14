package bench

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registryAddr is where every engine finds the image, on the loopback of its own network namespace.
const registryAddr = "127.0.0.1:5000"

// image is what the engines pull.
const image = registryAddr + "/busybox:latest"

// shelf is a registry of one image: manifest and blobs by digest, the manifest by any tag.
type shelf struct {
	manifest []byte
	blobs    map[digest.Digest][]byte
}

// newShelf makes an image of busybox.
func newShelf() (*shelf, error) {
	s := &shelf{blobs: map[digest.Digest][]byte{}}
	plain, err := layer()
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain)
	z.Close()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	config.Config.Cmd = []string{"sh"}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: s.add(ocispec.MediaTypeImageConfig, raw), Layers: []ocispec.Descriptor{s.add(ocispec.MediaTypeImageLayerGzip, packed.Bytes())},
	}
	s.manifest, err = json.Marshal(m)
	return s, err
}

func (s *shelf) add(mediaType string, b []byte) ocispec.Descriptor {
	d := digest.FromBytes(b)
	s.blobs[d] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func layer() ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("read %s (Debian package busybox-static): %w", busybox, err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755})
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	w.Write(program)
	for _, n := range applets() {
		w.WriteHeader(&tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	err = w.Close() // tells of any error before
	return b.Bytes(), err
}

// ServeHTTP answers GET and HEAD of the distribution API.
func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, mediaType := []byte("{}"), "application/json"
	switch path := r.URL.Path; {
	case path == "/v2/":
	case strings.Contains(path, "/manifests/"):
		body, mediaType = s.manifest, ocispec.MediaTypeImageManifest
	case strings.Contains(path, "/blobs/"):
		blob, ok := s.blobs[digest.Digest(path[strings.LastIndexByte(path, '/')+1:])]
		if !ok {
			http.NotFound(w, r)
			return
		}
		body, mediaType = blob, "application/octet-stream"
	default:
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Docker-Content-Digest", digest.FromBytes(body).String())
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
