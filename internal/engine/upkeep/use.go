package upkeep

import (
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// ImageUse is what images take on disk, as du counts their two folders, and how much of that would go with the images that no container uses
// and with what broken pulls left.
func (s *Service) ImageUse() (total, reclaimable int64, err error) {
	if total, err = s.imageSize(); err != nil {
		return 0, 0, err
	}
	all, err := image.LedgerOf(s.Store.Images).Records()
	if err != nil {
		return 0, 0, err
	}
	used, free, merged := map[string]bool{}, map[string]bool{}, map[digest.Digest]bool{}
	for _, r := range all {
		into := free
		if len(s.Users(r.ID.String())) > 0 {
			into = used
		}
		for _, d := range slices.Concat([]digest.Digest{r.ID, r.Manifest.Digest}, r.Blobs, r.Beside) {
			into[filepath.Join(s.Store.Content.Dir(), "blobs", "sha256", d.Encoded())] = true
		}
		for _, d := range r.Layers {
			into[layer.Dir(s.Store.Layers, d)] = true
		}
		if chain := layer.ChainID(r.Layers); chain != "" && !merged[chain] {
			into[layer.MergedDir(s.Store.Layers, chain)] = true
		}
	}
	var c du.Counter
	for p := range free {
		if !used[p] {
			_ = c.Add(p) // what is not there, a merged index that nobody wanted yet, takes nothing
		}
	}
	return total, c.Bytes + s.Store.Content.Partial().Idle(), nil
}

// imageSize is what the two folders of images take, without what is on its way out.
func (s *Service) imageSize() (int64, error) {
	<-s.Store.Layers.Free()
	var c du.Counter
	for _, p := range []string{s.Store.Content.Dir(), filepath.Join(s.Store.Root, "layers")} {
		if err := c.Add(p); err != nil {
			return 0, err
		}
	}
	return c.Bytes, nil
}
