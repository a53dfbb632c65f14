package manifest

import (
	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// MaxImages bounds the images of one archive, and the names of one of them.
const MaxImages = 1000

// ArchiveItem is one image of a docker-archive's manifest.json. The paths are those of entries in the archive.
type ArchiveItem struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// DecodeArchive reads the manifest.json of a docker-archive as strictly as the other documents.
func DecodeArchive(raw []byte) ([]ArchiveItem, error) {
	fail := func(format string, args ...any) ([]ArchiveItem, error) {
		return nil, errdef.New(errdef.DataLoss, "manifest.json: "+format, args...)
	}
	if len(raw) > MaxSize {
		return fail("larger than %d bytes", MaxSize)
	}
	var doc struct {
		Items []ArchiveItem `json:"items"`
	}
	whole := append(append([]byte(`{"items":`), raw...), '}')
	if keys, err := decodeStrict(whole, &doc); err != nil {
		return fail("%w", err)
	} else if len(keys) != 1 { // it closed the list and went on
		return fail("not one JSON list")
	}
	if len(doc.Items) == 0 || len(doc.Items) > MaxImages {
		return fail("it lists %d images, want 1 to %d", len(doc.Items), MaxImages)
	}
	for i, it := range doc.Items {
		switch {
		case it.Config == "":
			return fail("image %d has no Config", i)
		case len(it.Layers) > MaxLayers:
			return fail("image %d has %d layers, at most %d are allowed", i, len(it.Layers), MaxLayers)
		case len(it.RepoTags) > MaxImages:
			return fail("image %d has %d names, at most %d are allowed", i, len(it.RepoTags), MaxImages)
		}
	}
	return doc.Items, nil
}
