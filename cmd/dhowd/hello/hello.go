// Package hello owns the image that comes with the engine: a small web server, embedded as files.
//
// It promises that the image is the same, byte for byte, wherever the same server was built. It must never need a registry.
package hello

import (
	"archive/tar"
	"bytes"
	"embed"
	"io"
	"io/fs"
	"path"
	"runtime"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/image"
)

// files holds rootfs/README, and rootfs/hello once `make build` has put the static server there.
//
//go:embed rootfs
var files embed.FS

// Image is the embedded image. Asking for it without a built server is errdef.NotFound.
func Image() *image.Embedded {
	at := time.Date(2026, time.November, 20, 0, 0, 0, 0, time.UTC) // of its present form; the time of a build would change its digest
	var c dockerspec.DockerOCIImage
	c.Architecture, c.OS, c.Created = runtime.GOARCH, "linux", &at
	c.Config.Cmd = []string{"/hello"}
	c.Config.WorkingDir = "/"
	c.Config.Env = []string{"PATH=/"}
	c.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
	c.Config.Labels = map[string]string{"org.opencontainers.image.title": "hello", "org.opencontainers.image.description": "says what it sees of its container"}
	return &image.Embedded{Name: "hello", Config: c, Tar: layer}
}

// layer is the image's one layer: the server, and the user files that name root.
func layer() (io.Reader, error) {
	server, err := fs.ReadFile(files, "rootfs/hello")
	if err != nil {
		return nil, errdef.New(errdef.NotFound, "No such image: hello (this engine was built without it: run `make build`, or CGO_ENABLED=0 go build -o cmd/dhowd/hello/rootfs/hello ./cmd/hello before building dhowd)")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"etc/", 0o755, nil}, {"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/hello\nnobody:x:65534:65534:nobody:/:/hello\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n")}, {"hello", 0o755, server}, {"root/", 0o700, nil}, {"tmp/", 0o1777, nil},
	} {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if path.Clean(e.name)+"/" == e.name {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.NewReader(b.Bytes()), nil
}
