package bench

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
)

// fatAddr is where every engine finds Debian's docker-registry with the fat image, on the loopback of its own network namespace.
const (
	fatAddr = "127.0.0.1:5001"
	fatName = "fat"
)

// fatImage is the image as the registry has it.
type fatImage struct {
	Ref      string
	Manifest ocispec.Manifest
	Sizes    []int64 // of the layers, uncompressed
	dir      string  // the registry's storage
}

func (f *fatImage) uncompressed() (sum int64) {
	for _, n := range f.Sizes {
		sum += n
	}
	return sum
}

// blob is where the registry keeps a blob.
func (f *fatImage) blob(d digest.Digest) string {
	return filepath.Join(f.dir, "docker/registry/v2/blobs/sha256", d.Encoded()[:2], d.Encoded(), "data")
}

// make finds the image in the cache, or makes it and pushes it to a registry whose storage is there.
func (b images) make(f fat) (*fatImage, error) {
	dir := filepath.Join(b.Cache, "images", fmt.Sprintf("%d-%d-1", f.mib, f.entries)) // the last number: of the rule
	img := &fatImage{Ref: fatAddr + "/" + fatName + ":latest", dir: dir}
	if raw, err := os.ReadFile(dir + ".json"); err == nil {
		return img, json.Unmarshal(raw, img)
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fmt.Fprintf(b.Log, "images: making an image of %d MiB, once\n", f.mib)
	netns, err := netlink.NewNetns(nil)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	h := &host{name: "fill", dir: filepath.Join(b.dir, "fill"), netns: netns}
	if err := errors.Join(os.Mkdir(h.dir, 0o700), h.loopback()); err != nil {
		return nil, err
	}
	if err := b.serve(h, img); err != nil {
		return nil, err
	}
	if err := img.fill(f, &http.Client{Transport: &http.Transport{Dial: func(network, addr string) (c net.Conn, err error) {
		return c, errors.Join(err, netlink.Inside(netns, func() error { c, err = net.Dial(network, addr); return err }))
	}}}); err != nil {
		return nil, fmt.Errorf("fill %s: %w", dir, err)
	}
	raw, err := json.Marshal(img)
	if err != nil {
		return nil, err
	}
	return img, os.WriteFile(dir+".json", raw, 0o600)
}

// serve runs docker-registry over the image's storage in the network namespace of h.
func (b images) serve(h *host, img *fatImage) error {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return errors.New("docker-registry is not installed")
	}
	conf := filepath.Join(h.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", img.dir, fatAddr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.Command(program, "serve", conf)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, &syscall.SysProcAttr{Setpgid: true}
	if err := netlink.Inside(h.netns, cmd.Start); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }() // ends with the registry
	b.onEnd(func() { stop(cmd.Process, ended) })
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		err := netlink.Inside(h.netns, func() error {
			c, err := net.Dial("tcp", fatAddr)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("docker-registry does not answer: %s", out.String())
}

// fill makes the layers, two at a time, and pushes them and what names them.
func (f *fatImage) fill(what fat, k *http.Client) error {
	layers := newFatLayers(what)
	count := len(fatShares)
	f.Sizes, f.Manifest.Layers = make([]int64, count), make([]ocispec.Descriptor, count)
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.Config.Env, config.Config.Cmd = []string{"PATH=/bin"}, []string{"sh"}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: make([]digest.Digest, count)}
	var g errgroup.Group
	g.SetLimit(2)
	for n := range count {
		g.Go(func() (err error) {
			f.Manifest.Layers[n], config.RootFS.DiffIDs[n], f.Sizes[n], err = pushLayer(k, func(w io.Writer) error { return layers.write(n, w) })
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	put := func(w io.Writer) error { _, err := w.Write(raw); return err }
	if f.Manifest.Config, err = pushBlob(k, ocispec.MediaTypeImageConfig, put); err != nil {
		return err
	}
	f.Manifest.Versioned, f.Manifest.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	if raw, err = json.Marshal(f.Manifest); err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+fatAddr+"/v2/"+fatName+"/manifests/latest", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", f.Manifest.MediaType)
	_, err = expect(k, req, http.StatusCreated)
	return err
}

// pushLayer compresses what write makes as a build would, and pushes it.
func pushLayer(k *http.Client, write func(io.Writer) error) (d ocispec.Descriptor, diff digest.Digest, size int64, err error) {
	plain := sha256.New()
	d, err = pushBlob(k, ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		n := &counter{w: io.MultiWriter(z, plain)}
		err := write(n)
		size = n.n
		return errors.Join(err, z.Close())
	})
	return d, digest.NewDigest(digest.SHA256, plain), size, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// pushBlob uploads what write makes, in one stream.
func pushBlob(k *http.Client, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	req, err := http.NewRequest(http.MethodPost, "http://"+fatAddr+"/v2/"+fatName+"/blobs/uploads/", nil)
	if err != nil {
		return none, err
	}
	at, err := expect(k, req, http.StatusAccepted)
	if err != nil {
		return none, err
	}
	r, w := io.Pipe()
	sum := sha256.New()
	n := &counter{w: io.MultiWriter(w, sum)}
	var done sync.WaitGroup
	done.Go(func() { w.CloseWithError(write(n)) })
	if req, err = http.NewRequest(http.MethodPatch, at, r); err != nil {
		return none, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	at, err = expect(k, req, http.StatusAccepted)
	r.CloseWithError(errors.New("the registry reads no further"))
	done.Wait()
	if err != nil {
		return none, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum.Sum(nil))), Size: n.n}
	sep := "?"
	if strings.Contains(at, "?") {
		sep = "&"
	}
	if req, err = http.NewRequest(http.MethodPut, at+sep+"digest="+d.Digest.String(), nil); err != nil {
		return none, err
	}
	_, err = expect(k, req, http.StatusCreated)
	return d, err
}

// expect sends a request and returns where the answer, which must have this status, points.
func expect(k *http.Client, req *http.Request, status int) (location string, err error) {
	resp, err := k.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 600))
		return "", fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, text)
	}
	return resp.Header.Get("Location"), nil
}
