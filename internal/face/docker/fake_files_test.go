package docker

import (
	"context"
	"io"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

type fakeFiles struct{ f *fake }

func (s fakeFiles) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	if _, err := s.f.find(ref); err != nil {
		return nil, err
	}
	return []container.FilesystemChange{{Kind: container.ChangeModify, Path: "/etc"}, {Kind: container.ChangeAdd, Path: "/etc/new"}}, nil
}

func (s fakeFiles) Stat(ctx context.Context, ref, path string) (container.PathStat, error) {
	if _, err := s.f.find(ref); err != nil {
		return container.PathStat{}, err
	}
	if path != "/there" {
		return container.PathStat{}, errdef.New(errdef.NotFound, "Could not find the file %s in container %s", path, ref)
	}
	return container.PathStat{Name: "there", Size: 5, Mode: 0o644}, nil
}

func (s fakeFiles) Read(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error {
	st, err := s.Stat(ctx, ref, path)
	if err != nil {
		return err
	}
	_, err = io.Copy(begin(st), strings.NewReader("a tar"))
	return err
}

func (s fakeFiles) Write(ctx context.Context, ref, path string, tar io.Reader, o api.WriteOptions) error {
	if _, err := s.Stat(ctx, ref, path); err != nil {
		return err
	}
	b, err := io.ReadAll(tar)
	s.f.called("write %q %+v", b, o)
	return err
}
