package upkeep

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/provenance"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Layers implements api.Upkeep.
func (s *Service) Layers(_ context.Context, ref string) ([]api.ImageLayer, error) {
	img, err := s.Store.Images.Resolve(ref)
	if err != nil {
		return nil, err
	}
	blobs, err := image.LedgerOf(s.Store.Images).LayerBlobs(img)
	if err != nil {
		return nil, err
	}
	all, err := s.Store.Images.List()
	if err != nil {
		return nil, err
	}
	out, steps := []api.ImageLayer{}, made(img)
	for n, d := range img.DiffIDs {
		info, err := s.Store.Layers.Info(d)
		if err != nil {
			return nil, err
		}
		l := api.ImageLayer{Index: n, DiffID: d.String(), Digest: blobs[n].Digest.String(), MediaType: blobs[n].MediaType, Compressed: blobs[n].Size,
			Size: info.Size, Entries: info.Entries, DiskUse: du.Of(layer.Dir(s.Store.Layers, d)), SharedWith: []string{}}
		if n < len(steps) {
			l.CreatedBy = steps[n].CreatedBy
			if steps[n].Created != nil {
				l.Created = *steps[n].Created
			}
		}
		if l.Created.IsZero() {
			l.Created = img.Created.In(time.UTC)
		}
		for _, o := range all {
			if o.ID != img.ID && slices.Contains(o.DiffIDs, d) {
				l.SharedWith = append(l.SharedWith, title(o))
			}
		}
		slices.Sort(l.SharedWith)
		out = append(out, l)
	}
	return out, nil
}

// made are the steps of an image's history that made its layers, base first.
func made(img image.Image) []ocispec.History {
	return slices.DeleteFunc(slices.Clone(img.Config.History), func(h ocispec.History) bool { return h.EmptyLayer })
}

func title(i image.Image) string {
	if len(i.RepoTags) > 0 {
		return i.RepoTags[0]
	}
	return id.Short(i.ID.String())
}

// Files implements api.Upkeep.
func (s *Service) Files(ctx context.Context, ref string, number int, report func(api.LayerFile)) error {
	img, err := s.Store.Images.Resolve(ref)
	if err != nil {
		return err
	}
	if number < -1 || number >= len(img.DiffIDs) {
		return errdef.New(errdef.InvalidArgument, "layer %d: image %s has the layers 0 to %d", number, ref, len(img.DiffIDs)-1)
	}
	var trees []*tree.Inode
	for _, d := range img.DiffIDs {
		t, err := layer.Tree(s.Store.Layers, d)
		if err != nil {
			return err
		}
		trees = append(trees, t)
	}
	for _, n := range provenance.Names(trees) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if number < 0 || n.Layer == number {
			report(api.LayerFile(n))
		}
	}
	return nil
}
