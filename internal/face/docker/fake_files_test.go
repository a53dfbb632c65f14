package docker

import (
	"context"

	"github.com/moby/moby/api/types/container"
)

type fakeFiles struct{ f *fake }

func (s fakeFiles) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	if _, err := s.f.find(ref); err != nil {
		return nil, err
	}
	return []container.FilesystemChange{{Kind: container.ChangeModify, Path: "/etc"}, {Kind: container.ChangeAdd, Path: "/etc/new"}}, nil
}
