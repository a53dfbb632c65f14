package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TOCDigest is the annotation by which an eStargz layer's table of contents is verified.
const TOCDigest = estargz.TOCJSONDigestAnnotation

// Stargz makes an eStargz of a tar, with stargz-snapshotter's own code: its tar is another one, with the table of contents in it. Chunks are
// small, and several files are in one gzip member.
func Stargz(t testing.TB, raw []byte) (blob []byte, diff digest.Digest, notes map[string]string) {
	t.Helper()
	blob, diff, toc := stargz(t, raw, estargz.WithChunkSize(300_000), estargz.WithMinChunkSize(20_000))
	return blob, diff, map[string]string{TOCDigest: toc.String()}
}

// StargzZstd is Stargz in zstd, which that calls zstd:chunked, too.
func StargzZstd(t testing.TB, raw []byte) (blob []byte, diff digest.Digest, notes map[string]string) {
	t.Helper()
	notes = map[string]string{}
	blob, diff, toc := stargz(t, raw, estargz.WithChunkSize(300_000), estargz.WithCompression(&chunkedZstd{&zstdchunked.Compressor{CompressionLevel: zstd.SpeedDefault, Metadata: notes}, &zstdchunked.Decompressor{}}))
	notes[TOCDigest] = toc.String()
	return blob, diff, notes
}

type chunkedZstd struct {
	*zstdchunked.Compressor
	*zstdchunked.Decompressor
}

func stargz(t testing.TB, raw []byte, options ...estargz.Option) (blob []byte, diff, toc digest.Digest) {
	t.Helper()
	b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))), options...)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if blob, err = io.ReadAll(b); err != nil {
		t.Fatal(err)
	}
	return blob, b.DiffID(), b.TOCDigest()
}

// PushChunked has skopeo push an image as zstd:chunked, and returns its full reference. The test is skipped when skopeo is not installed.
func (s *Server) PushChunked(t testing.TB, name string, img *Image) string {
	t.Helper()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skipf("skopeo is not installed: %v", err)
	}
	dir := t.TempDir()
	top := img.Top.Desc()
	top.Annotations = map[string]string{ocispec.AnnotationRefName: "x"}
	ix := ocispec.Index{Manifests: []ocispec.Descriptor{top}}
	ix.SchemaVersion = 2
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": encode(t, ix), "blobs/sha256/" + top.Digest.Encoded(): img.Top.Raw}
	for d, b := range img.Blobs {
		files["blobs/sha256/"+d.Encoded()] = b
	}
	for name, b := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(skopeo, "--insecure-policy", "copy", "--retry-times", "5", "--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked", "--format", "oci",
		"oci:"+dir+":x", "docker://"+s.Ref(name)).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	return s.Ref(name)
}

// Manifest fetches a manifest by tag.
func (s *Server) Manifest(t testing.TB, repo, tag string) (m ocispec.Manifest) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Host+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Gate is a proxy before a registry that holds whole blobs back until they may pass; sections pass at once.
type Gate struct {
	Host string // 127.0.0.1:PORT

	mu       sync.Mutex
	open     chan struct{} // closed when blobs may pass
	sections int
	spoil    Fault
}

// Gate starts a proxy that lets no blob of size bytes or more pass whole before Open. It listens on loopback, or on l, and ends with the test.
func (s *Server) Gate(t testing.TB, size int64, l net.Listener) *Gate {
	t.Helper()
	to, err := url.Parse("http://" + s.Host)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{open: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // clients that have gone
	proxy.ModifyResponse = func(resp *http.Response) error {
		r := resp.Request
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet || resp.StatusCode != http.StatusOK || resp.ContentLength < size {
			return nil
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		resp.Body = &held{resp.Body, g.open, r}
		return nil
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		spoil := g.spoil
		if r.Header.Get("Range") != "" && strings.Contains(r.URL.Path, "/blobs/") {
			g.sections++
		}
		g.mu.Unlock()
		if spoil != nil && spoil(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	if l != nil {
		srv.Listener.Close()
		srv.Listener = l
	}
	srv.Start()
	g.Host = strings.TrimPrefix(srv.URL, "http://")
	t.Cleanup(func() {
		g.Open()
		srv.CloseClientConnections()
		srv.Close()
	})
	return g
}

// Open lets everything pass from now on.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// Shut holds what comes from now on back again.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

// Sections counts the requests for sections of blobs.
func (g *Gate) Sections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sections
}

// Fault answers requests in the registry's place from now on; nil: none.
func (g *Gate) Fault(f Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spoil = f
}

// held is a body that waits for its gate.
type held struct {
	io.ReadCloser
	open <-chan struct{}
	r    *http.Request
}

func (h *held) Read(p []byte) (int, error) {
	select {
	case <-h.open:
		return h.ReadCloser.Read(p)
	case <-h.r.Context().Done():
		return 0, h.r.Context().Err()
	}
}
