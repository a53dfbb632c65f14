// Package manifest owns the documents that describe an image: OCI and Docker schema 2 manifests, indexes (manifest lists)
// and image configs, read strictly.
//
// It promises that what Decode returns has one meaning only: bounded in size and number, no key twice or in disguise, never a
// manifest and an index at once, every digest in the strict grammar, every size in range. Errors are errdef.DataLoss (the
// document is not what it should be) or errdef.NotImplemented (a known kind that is not a container image).
// It must never fetch anything, nor act on labels, annotations or the urls of a descriptor.
package manifest

import (
	"fmt"
	"mime"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits on documents. MaxDepth counts indexes within indexes.
const (
	MaxSize      = 4 << 20
	MaxLayers    = 500
	MaxManifests = 1000
	MaxDepth     = 4
	MaxLayerSize = 1 << 40
)

// Docker's names for what the OCI later named its own way.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// Accepted lists the media types that Decode reads, for an Accept header.
func Accepted() []string {
	return []string{ocispec.MediaTypeImageIndex, DockerManifestList, ocispec.MediaTypeImageManifest, DockerManifest}
}

// Document is a decoded manifest or index: exactly one of the two is set.
type Document struct {
	MediaType string
	Manifest  *ocispec.Manifest
	Index     *ocispec.Index
}

// both is every field either kind of document may have, so that a document which is both can be seen.
type both struct {
	ocispec.Manifest
	Manifests []ocispec.Descriptor `json:"manifests"`
	FSLayers  any                  `json:"fsLayers"`
	History   any                  `json:"history"`
	Signed    any                  `json:"signatures"`
}

// Decode reads a manifest or index. mediaType is what the server or the parent descriptor said; "" or a type that names
// neither kind leaves the word to the document.
func Decode(raw []byte, mediaType string) (Document, error) {
	if len(raw) > MaxSize {
		return Document{}, bad("larger than %d bytes", MaxSize)
	}
	var b both
	keys, err := decodeStrict(raw, &b)
	if err != nil {
		return Document{}, bad("%w", err)
	}
	if keys["fsLayers"] || keys["signatures"] || keys["history"] {
		return Document{}, errdef.New(errdef.NotImplemented, "manifest of schema version 1 (deprecated since 2019): push the image again with a current tool")
	}
	if b.SchemaVersion != 2 {
		return Document{}, bad("schemaVersion is %d, want 2", b.SchemaVersion)
	}
	isIndex, isManifest := keys["manifests"], keys["layers"] || keys["config"]
	if isIndex == isManifest {
		return Document{}, bad("it must have either layers and config or manifests")
	}
	mt, err := oneType(b.MediaType, mediaType, isIndex)
	if err != nil {
		return Document{}, err
	}
	if isIndex {
		ix := &ocispec.Index{Versioned: b.Versioned, MediaType: mt, ArtifactType: b.ArtifactType,
			Manifests: b.Manifests, Subject: b.Subject, Annotations: b.Annotations}
		return Document{MediaType: mt, Index: ix}, checkIndex(ix)
	}
	b.Manifest.MediaType = mt
	return Document{MediaType: mt, Manifest: &b.Manifest}, checkManifest(&b.Manifest)
}

// Files reads a manifest that stands in an index beside images without being one, as an attestation does, and returns what it names, config
// first. A file may have limit bytes.
func Files(raw []byte, mediaType string, limit int64) ([]ocispec.Descriptor, error) {
	if len(raw) > MaxSize {
		return nil, bad("larger than %d bytes", MaxSize)
	}
	var b both
	keys, err := decodeStrict(raw, &b)
	if err != nil {
		return nil, bad("%w", err)
	}
	if b.SchemaVersion != 2 || keys["manifests"] || !keys["layers"] || !keys["config"] {
		return nil, bad("it must have schemaVersion 2, layers and config")
	}
	if _, err := oneType(b.MediaType, mediaType, false); err != nil {
		return nil, err
	}
	if n := len(b.Layers); n > MaxLayers {
		return nil, bad("%d layers, at most %d are allowed", n, MaxLayers)
	}
	all := append([]ocispec.Descriptor{b.Config}, b.Layers...)
	for i, d := range all {
		if err := checkDescriptor(d, limit); err != nil {
			return nil, bad("file %d: %w", i, err)
		}
	}
	return all, nil
}

// oneType settles the media type: document, transport and shape must agree as far as they speak.
func oneType(inside, outside string, isIndex bool) (string, error) {
	if outside != "" {
		base, _, err := mime.ParseMediaType(outside)
		if err != nil {
			return "", bad("media type %q: %w", clip(outside), err)
		}
		outside = base
		if _, known := kind(outside); !known {
			outside = "" // text/plain, application/json, ...: says nothing
		}
	}
	if inside != "" && outside != "" && inside != outside {
		return "", bad("it says mediaType %q, the registry says %q", clip(inside), outside)
	}
	mt := inside
	if mt == "" {
		mt = outside
	}
	if mt == "" {
		if mt = ocispec.MediaTypeImageManifest; isIndex {
			mt = ocispec.MediaTypeImageIndex
		}
	}
	index, known := kind(mt)
	if !known {
		return "", bad("unknown mediaType %q", clip(mt))
	}
	if index != isIndex {
		return "", bad("mediaType %q does not fit its content", mt)
	}
	return mt, nil
}

func kind(mt string) (index, known bool) {
	switch mt {
	case ocispec.MediaTypeImageIndex, DockerManifestList:
		return true, true
	case ocispec.MediaTypeImageManifest, DockerManifest:
		return false, true
	}
	return false, false
}

func checkIndex(ix *ocispec.Index) error {
	if n := len(ix.Manifests); n > MaxManifests {
		return bad("%d manifests, at most %d are allowed", n, MaxManifests)
	}
	for i, d := range ix.Manifests {
		if err := checkDescriptor(d, MaxSize); err != nil {
			return bad("manifests[%d]: %w", i, err)
		}
	}
	return nil
}

func checkManifest(m *ocispec.Manifest) error {
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, DockerConfig:
	default:
		return errdef.New(errdef.NotImplemented, "not a container image: its config is of type %q", clip(m.Config.MediaType))
	}
	if err := checkDescriptor(m.Config, MaxSize); err != nil {
		return bad("config: %w", err)
	}
	if n := len(m.Layers); n > MaxLayers {
		return bad("%d layers, at most %d are allowed", n, MaxLayers)
	}
	for i, d := range m.Layers {
		if err := checkDescriptor(d, MaxLayerSize); err != nil {
			return bad("layers[%d]: %w", i, err)
		}
		if !layerType(d.MediaType) {
			return errdef.New(errdef.NotImplemented, "layers[%d]: media type %q is not a file system layer", i, clip(d.MediaType))
		}
	}
	return nil
}

func layerType(mt string) bool {
	switch mt {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		//lint:ignore SA1019 the non-distributable types are still met in old images
		ocispec.MediaTypeImageLayerNonDistributable, ocispec.MediaTypeImageLayerNonDistributableGzip, ocispec.MediaTypeImageLayerNonDistributableZstd,
		DockerLayer, DockerLayerGzip, DockerLayerZstd, DockerForeignLayer:
		return true
	}
	return false
}

func checkDescriptor(d ocispec.Descriptor, maxSize int64) error {
	if _, err := ref.ParseDigest(d.Digest.String()); err != nil {
		return err
	}
	if d.Size < 0 || d.Size > maxSize {
		return fmt.Errorf("size %d is not in 0..%d", d.Size, maxSize)
	}
	return nil
}

func bad(format string, args ...any) error {
	return errdef.New(errdef.DataLoss, "bad manifest: "+format, args...)
}
