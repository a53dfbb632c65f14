package archive

import (
	"fmt"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// images adds the images that the archive describes. manifest.json counts where there is one; the index of a layout is looked at when
// there is none, or when it may have another platform.
func (l *loader) images() error {
	switch {
	case l.has(manifestFile):
		some, err := l.docker()
		if err == nil && l.has(indexFile) && l.has(layoutFile) {
			if some {
				return index{l}.widen()
			}
			some, err = index{l}.images()
		}
		if err == nil && !some {
			err = l.nothing()
		}
		return err
	case l.has(indexFile) && l.has(layoutFile):
		some, err := index{l}.images()
		if err == nil && !some {
			err = l.nothing()
		}
		return err
	case l.has("repositories"):
		return errdef.New(errdef.NotImplemented, "image archive: of a Docker before 1.10 (repositories, but no %s): save the image again with a current one", manifestFile)
	}
	return refuse("neither %s nor %s and %s are in it: this is no image archive (to make an image of a file system, use import)", manifestFile, indexFile, layoutFile)
}

func (l *loader) nothing() error {
	var asked []string
	for _, p := range l.o.Platforms {
		asked = append(asked, manifest.PlatformString(p))
	}
	return errdef.New(errdef.NotFound, "image archive: no image for %s is in it", strings.Join(asked, ", "))
}

// docker adds the images of manifest.json.
func (l *loader) docker() (some bool, err error) {
	raw, err := l.document(manifestFile)
	if err != nil {
		return false, err
	}
	items, err := manifest.DecodeArchive(raw)
	if err != nil {
		return false, fmt.Errorf("image archive: %w", err)
	}
	for _, it := range items {
		config, err := l.document(it.Config)
		if err != nil {
			return false, err
		}
		hex := strings.TrimSuffix(it.Config, ".json")
		if d, err := ref.ParseDigest("sha256:" + hex); err == nil && d != digest.FromBytes(config) {
			return false, damaged("config %s has digest %s", it.Config, digest.FromBytes(config))
		}
		cfg, err := l.config(config)
		if err != nil {
			return false, fmt.Errorf("image archive: %.200s: %w", it.Config, err)
		}
		if !wanted(cfg.Platform, l.o.Platforms) {
			continue
		}
		some = true
		if err := l.add(config, cfg, it.Layers, it.RepoTags); err != nil {
			return false, err
		}
	}
	return some, nil
}

func (l *loader) config(raw []byte) (dockerspec.DockerOCIImage, error) {
	cfg, err := manifest.DecodeConfig(raw)
	if err == nil && cfg.OS != "" && cfg.OS != "linux" {
		err = errdef.New(errdef.NotImplemented, "it is for %q, not for linux", cfg.OS)
	}
	return cfg, err
}

// add adds one image whose layers are the named entries.
func (l *loader) add(config []byte, cfg dockerspec.DockerOCIImage, layers, tags []string) error {
	id := digest.FromBytes(config)
	if n, m := len(cfg.RootFS.DiffIDs), len(layers); n != m {
		return damaged("image %s: %d layers in the archive, %d in its config", id, m, n)
	}
	for i, name := range layers {
		if err := l.layer(name, cfg.RootFS.DiffIDs[i]); err != nil {
			return err
		}
	}
	if _, err := l.b.Add(l.ctx, config, tags...); err != nil {
		return fmt.Errorf("image archive: image %s: %w", id, err)
	}
	l.added = append(l.added, id)
	return nil
}
