package files

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Changes implements api.Files: as in Docker, those that upper.Shown picks, and not the root.
func (s *Service) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	rec, err := s.Containers.Record(ref)
	if err != nil {
		return nil, err
	}
	var l upper.Shown
	if err := s.Snapshots.Changes(ctx, rec.ID, l.Add); err != nil {
		return nil, err
	}
	out := []container.FilesystemChange{}
	l.Each(func(path string, kind upper.Kind, counts bool) {
		if counts && path != "" {
			out = append(out, container.FilesystemChange{Kind: kinds[kind], Path: "/" + path})
		}
	})
	slices.SortFunc(out, func(a, b container.FilesystemChange) int {
		return cmp.Compare(strings.ReplaceAll(a.Path, "/", "\x00"), strings.ReplaceAll(b.Path, "/", "\x00"))
	})
	return out, nil
}

var kinds = map[upper.Kind]container.ChangeType{upper.Modified: container.ChangeModify, upper.Added: container.ChangeAdd, upper.Deleted: container.ChangeDelete}
