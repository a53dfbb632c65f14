package archive

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// images adds the images that the archive describes. manifest.json counts where there is one; the index of a layout is looked at when
// there is none, or when it may have another platform.
func (l *loader) images() error {
	switch {
	case l.has(manifestFile):
		some, err := l.docker()
		if err != nil || some {
			return err
		}
		if l.has(indexFile) && l.has(layoutFile) {
			if some, err = l.oci(); err != nil || some {
				return err
			}
		}
		return l.nothing()
	case l.has(indexFile) && l.has(layoutFile):
		some, err := l.oci()
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
	return nil
}

// found is an image of an OCI layout and its names.
type found struct {
	man  *ocispec.Manifest
	tags []string
}

// oci adds the images of index.json.
func (l *loader) oci() (some bool, err error) {
	raw, err := l.document(layoutFile)
	if err != nil {
		return false, err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(raw, &layout); err != nil || layout.Version != ocispec.ImageLayoutVersion {
		return false, errdef.New(errdef.NotImplemented, "image archive: %s: version %.20q, want %s", layoutFile, layout.Version, ocispec.ImageLayoutVersion)
	}
	if raw, err = l.document(indexFile); err != nil {
		return false, err
	}
	doc, err := manifest.Decode(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return false, fmt.Errorf("image archive: %s: %w", indexFile, err)
	}
	if doc.Index == nil {
		return false, damaged("%s is no index", indexFile)
	}
	all := map[digest.Digest]*found{}
	var order []digest.Digest
	for _, d := range doc.Index.Manifests {
		man, at, err := l.follow(d, 0)
		if err != nil {
			return false, err
		}
		if man == nil {
			continue
		}
		if all[at] == nil {
			all[at] = &found{man: man}
			order = append(order, at)
		}
		if tag := nameOf(d.Annotations); tag != "" && !slices.Contains(all[at].tags, tag) {
			all[at].tags = append(all[at].tags, tag)
		}
	}
	for _, d := range order {
		added, err := l.addFound(all[d])
		if err != nil {
			return false, err
		}
		some = some || added
	}
	return some, nil
}

// nameOf is the name that annotations give: the whole one, or ref.name where it is more than a tag.
func nameOf(a map[string]string) string {
	for _, n := range []string{a[annotationName], a[ocispec.AnnotationRefName]} {
		if r, err := ref.Parse(n); err == nil && strings.ContainsAny(n, ":/") && r.Digest == "" {
			return r.String()
		}
	}
	return ""
}

// follow goes from a descriptor to the manifest of the platform asked for; nil when there is none for us.
func (l *loader) follow(d ocispec.Descriptor, depth int) (*ocispec.Manifest, digest.Digest, error) {
	if depth >= manifest.MaxDepth {
		return nil, "", damaged("indexes nested deeper than %d", manifest.MaxDepth)
	}
	if d.Platform != nil && (d.Platform.OS == "unknown" || !wanted(*d.Platform, l.o.Platforms)) { // unknown: an attestation
		return nil, "", nil
	}
	raw, err := l.document(blobName(d.Digest))
	if err != nil {
		return nil, "", err
	}
	if int64(len(raw)) != d.Size {
		return nil, "", damaged("manifest %s has %d bytes, promised are %d", d.Digest, len(raw), d.Size)
	}
	doc, err := manifest.Decode(raw, d.MediaType)
	if errdef.Is(err, errdef.NotImplemented) && depth == 0 { // an artifact beside the images
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("image archive: %s: %w", d.Digest, err)
	}
	if doc.Manifest != nil {
		return doc.Manifest, d.Digest, nil
	}
	next, ok, err := l.choose(doc.Index)
	if err != nil || !ok {
		return nil, "", err
	}
	return l.follow(next, depth+1)
}

// choose picks the entry of an index: of the platforms asked for, else the host's, else the first that is an image and here.
func (l *loader) choose(ix *ocispec.Index) (d ocispec.Descriptor, ok bool, err error) {
	asked := l.o.Platforms
	if len(asked) == 0 {
		asked = []ocispec.Platform{l.o.Host}
	}
	for _, p := range asked {
		if d, err := manifest.Select(ix, p); err == nil && l.has(blobName(d.Digest)) {
			return d, true, nil
		}
	}
	if len(l.o.Platforms) > 0 {
		return d, false, nil
	}
	for _, d := range ix.Manifests {
		if (d.Platform == nil || d.Platform.OS == "linux") && l.has(blobName(d.Digest)) {
			return d, true, nil
		}
	}
	return d, false, damaged("an index names no image that is in the archive")
}

func (l *loader) addFound(f *found) (bool, error) {
	config, err := l.document(blobName(f.man.Config.Digest))
	if err != nil {
		return false, err
	}
	if int64(len(config)) != f.man.Config.Size {
		return false, damaged("config %s has %d bytes, promised are %d", f.man.Config.Digest, len(config), f.man.Config.Size)
	}
	cfg, err := l.config(config)
	if err != nil {
		return false, fmt.Errorf("image archive: %s: %w", f.man.Config.Digest, err)
	}
	if !wanted(cfg.Platform, l.o.Platforms) {
		return false, nil
	}
	var layers []string
	for _, d := range f.man.Layers {
		name := blobName(d.Digest)
		if e := l.entries[name]; e != nil && e.size != d.Size {
			return false, damaged("layer %s has %d bytes, promised are %d", d.Digest, e.size, d.Size)
		}
		layers = append(layers, name)
	}
	return true, l.add(config, cfg, layers, f.tags)
}
