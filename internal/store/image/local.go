package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AddLocal makes an image from uncompressed layer tars, base first, and names it (name "" leaves it nameless). The layers of
// cfg.RootFS are replaced by those of the tars. A tar that can seek is read twice, any other is spooled once.
func (s *Store) AddLocal(ctx context.Context, name string, cfg dockerspec.DockerOCIImage, layerTars ...io.Reader) (Image, error) {
	tag, err := localTag(name)
	if err != nil {
		return Image{}, err
	}
	if len(layerTars) > manifest.MaxLayers {
		return Image{}, errdef.New(errdef.InvalidArgument, "%d layers, at most %d are allowed", len(layerTars), manifest.MaxLayers)
	}
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	man := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	man.SchemaVersion = 2
	for i, r := range layerTars {
		d, size, err := s.addLayer(ctx, r)
		if err != nil {
			return Image{}, fmt.Errorf("layer %d: %w", i, err)
		}
		defer s.unpin(d)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, d)
		man.Layers = append(man.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size})
	}
	if err := manifest.CheckConfig(cfg); err != nil {
		return Image{}, err
	}
	return s.addRecord(ctx, tag, cfg, man)
}

func localTag(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	r, err := ref.Parse(name)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", errdef.New(errdef.InvalidArgument, "%s: a new image cannot be given a digest", r.Familiar())
	}
	return r.String(), nil
}

// addLayer stores a tar under its own digest and leaves it pinned.
func (s *Store) addLayer(ctx context.Context, r io.Reader) (d digest.Digest, size int64, err error) {
	seek, ok := r.(io.ReadSeeker)
	h := digest.SHA256.Digester()
	to := io.Writer(h.Hash())
	if !ok {
		f, err := s.c.Content.Temp()
		if err != nil {
			return "", 0, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		seek, to = f, io.MultiWriter(f, to)
	} else if _, err := seek.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	if size, err = io.Copy(to, io.LimitReader(r, s.c.MaxLayerSize+1)); err != nil {
		return "", 0, err
	}
	if size > s.c.MaxLayerSize {
		return "", 0, errdef.New(errdef.InvalidArgument, "larger than %d bytes", s.c.MaxLayerSize)
	}
	if _, err := seek.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	d = h.Digest()
	s.pin(d)
	if _, err = s.c.Layers.Ingest(ctx, d, seek); err != nil {
		s.unpin(d)
	}
	return d, size, err
}

func (s *Store) addRecord(ctx context.Context, tag string, cfg dockerspec.DockerOCIImage, man ocispec.Manifest) (Image, error) {
	config, err := json.Marshal(cfg)
	if err != nil {
		return Image{}, fmt.Errorf("image config: %w", err)
	}
	man.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	raw, err := json.Marshal(man)
	if err != nil {
		return Image{}, fmt.Errorf("image manifest: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: man.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if len(raw) > manifest.MaxSize || len(config) > manifest.MaxSize {
		return Image{}, errdef.New(errdef.InvalidArgument, "image config and manifest may have %d bytes", manifest.MaxSize)
	}
	s.pin(desc.Digest, man.Config.Digest)
	defer s.unpin(desc.Digest, man.Config.Digest)
	rec := record{Manifest: desc, Blobs: []digest.Digest{desc.Digest, man.Config.Digest}, Layers: cfg.RootFS.DiffIDs,
		Platform: cfg.Platform, Added: time.Now().UTC(), Local: true}
	if cfg.Created != nil {
		rec.Created = *cfg.Created
	}
	for d, b := range map[digest.Digest][]byte{desc.Digest: raw, man.Config.Digest: config} {
		if err := s.c.Content.Put(ctx, d, int64(len(b)), bytes.NewReader(b)); err != nil {
			return Image{}, err
		}
	}
	if _, err := s.commit(man.Config.Digest, rec, tag, nil); err != nil {
		return Image{}, err
	}
	return s.Resolve(man.Config.Digest.String())
}
