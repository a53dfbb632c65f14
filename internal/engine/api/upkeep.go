package api

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/registry"
)

// Upkeep looks into what the engine has on disk, and looks after it.
type Upkeep interface {
	// Check compares the store with what it should be. It tells report every finding as it comes; with repair it mends them first, fetching
	// with the credentials auths, by registry.
	Check(ctx context.Context, repair bool, auths map[string]registry.AuthConfig, report func(Finding)) (CheckSummary, error)
	// Layout makes the new folder dir of this host an OCI image layout of the named images, without names of all, and returns their names. Layers are
	// the store's own tars by one more name where dir is on its file system.
	Layout(ctx context.Context, dir string, names []string) (tags []string, err error)
	// Layers tells what an image is made of, base first.
	Layers(ctx context.Context, ref string) ([]ImageLayer, error)
	// Files tells report every name that the layers of an image bring or hide, base first; layer chooses one by its number from 0, -1 all.
	Files(ctx context.Context, ref string, layer int, report func(LayerFile)) error
}

// Finding is one thing that is wrong on disk. Path is below the data root.
type Finding struct {
	Kind, Object string
	Path         string `json:",omitempty"`
	Problem      string
	Advice       string // what to do; after a repair what was done, or why not
	Repaired     bool
}

// CheckSummary counts what a check looked at.
type CheckSummary struct {
	Records, Images, Blobs, Layers, Merged, Snapshots int
	Bytes                                             int64 // read and hashed
	Found, Repaired                                   int
}

// ImageLayer is one layer of an image.
type ImageLayer struct {
	Index     int
	Digest    string `json:",omitempty"` // as the manifest has it, that is compressed
	DiffID    string
	MediaType string `json:",omitempty"`
	Created   time.Time
	CreatedBy string // from the image's history
	// Compressed is the blob's size in a registry, Size the tar's, DiskUse what it takes here with all that is beside it.
	Compressed, Size, DiskUse int64
	Entries                   int
	SharedWith                []string // other images that have it
}

// LayerFile is a name that a layer brings or hides.
type LayerFile struct {
	Layer int
	Path  string
	Kind  string // file, directory, symlink, hardlink, char, block, fifo, whiteout, opaque
	Mode  uint32 `json:",omitempty"`
	Size  int64  `json:",omitempty"`
	Link  string `json:",omitempty"`
	Hides []int  `json:",omitempty"` // lower layers that have the name and are seen there no more
	// By is the layer that hides it in turn, -1 when the image shows it.
	By int
}
