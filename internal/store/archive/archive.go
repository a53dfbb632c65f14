// Package archive owns images as tar archives: Docker's own form and OCI layouts, written as both in one, read as either.
//
// It promises that reading takes one pass and bounded memory, that nothing in an archive acts outside of it, that an image is
// recorded only when every part of it was there with the digest that its config and manifest name, and that a failed load leaves
// nothing. What it writes is the layers as they are kept, verified while they are copied. It must never unpack a layer.
package archive

import (
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names of an archive's own entries. manifestFile is Docker's, the others are of the OCI image layout.
const (
	manifestFile = "manifest.json"
	layoutFile   = ocispec.ImageLayoutFile
	indexFile    = ocispec.ImageIndexFile
	blobsDir     = "blobs/sha256/"
)

// annotationName holds an image's whole name, annotation ref.name in Docker's archives only the tag.
const annotationName = "io.containerd.image.name"

// Limits on what is read. Entries up to aside bytes, documents among them, are put aside in one file of at most asideAll bytes until it
// is known what they are; larger ones can only be layers.
const (
	maxEntries  = 100_000
	maxNames    = 8 << 20 // bytes
	aside       = manifest.MaxSize
	asideAll    = 1 << 30
	maxTrailing = 64 << 20
	maxAlias    = 8
	ratio       = 200 // of all layers to what came in
	ratioFree   = 64 << 20
)

// blobDigest is the digest that an entry's name promises, "" when it promises none.
func blobDigest(name string) digest.Digest {
	hex, ok := strings.CutPrefix(name, blobsDir)
	if !ok {
		return ""
	}
	d, err := ref.ParseDigest("sha256:" + hex)
	if err != nil {
		return ""
	}
	return d
}

func blobName(d digest.Digest) string { return blobsDir + d.Encoded() }

// wanted tells whether an image is of one of the platforms asked for; none asked for means any.
func wanted(have ocispec.Platform, asked []ocispec.Platform) bool {
	for _, p := range asked {
		if manifest.Match(have, p) > 0 {
			return true
		}
	}
	return len(asked) == 0
}

func refuse(format string, args ...any) error {
	return errdef.New(errdef.InvalidArgument, "image archive: "+format, args...)
}

func damaged(format string, args ...any) error {
	return errdef.New(errdef.DataLoss, "image archive: "+format, args...)
}
