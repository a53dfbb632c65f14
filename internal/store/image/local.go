package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AddLocal makes an image from uncompressed layer tars, base first, and names it (name "" leaves it nameless). The layers of
// cfg.RootFS are replaced by those of the tars.
func (s *Store) AddLocal(ctx context.Context, name string, cfg dockerspec.DockerOCIImage, layerTars ...io.Reader) (Image, error) {
	if len(layerTars) > manifest.MaxLayers {
		return Image{}, errdef.New(errdef.InvalidArgument, "%d layers, at most %d are allowed", len(layerTars), manifest.MaxLayers)
	}
	var tags []string
	if name != "" {
		if _, err := localTag(name); err != nil {
			return Image{}, err
		}
		tags = []string{name}
	}
	b := s.Begin()
	defer b.Close()
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for i, r := range layerTars {
		l, err := b.Layer(ctx, r)
		if err != nil {
			return Image{}, fmt.Errorf("layer %d: %w", i, err)
		}
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
	}
	config, err := json.Marshal(cfg)
	if err != nil {
		return Image{}, fmt.Errorf("image config: %w", err)
	}
	if _, err := b.Add(ctx, config, tags...); err != nil {
		return Image{}, err
	}
	made, err := b.Commit()
	if err != nil {
		return Image{}, err
	}
	return made[0].Image, nil
}
