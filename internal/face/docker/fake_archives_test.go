package docker

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

type fakeArchives struct{ f *fake }

func (s fakeArchives) Save(_ context.Context, names []string, p []ocispec.Platform) (func(io.Writer) error, error) {
	s.f.called("save %v %v", names, p)
	for _, n := range names {
		if n == "nosuch" {
			return nil, errdef.New(errdef.NotFound, "No such image: %s", n)
		}
	}
	return func(w io.Writer) error {
		fmt.Fprintf(w, "a tar of %v", names)
		if names[0] == "damaged" {
			return errdef.New(errdef.DataLoss, "a layer is not what it was")
		}
		return nil
	}, nil
}

func (s fakeArchives) Load(_ context.Context, r io.Reader, p []ocispec.Platform, quiet bool, progress api.Progress) error {
	head := make([]byte, 6)
	n, _ := io.ReadFull(r, head)
	if string(head) == "refuse" {
		return errdef.New(errdef.InvalidArgument, "refused at once")
	}
	b, err := io.ReadAll(io.MultiReader(bytes.NewReader(head[:n]), r))
	s.f.called("load %d bytes %v quiet=%t", len(b), p, quiet)
	if string(b) == "bad" {
		return errdef.New(errdef.InvalidArgument, "not a tar")
	}
	progress(jsonstream.Message{Stream: "Loaded image: x:latest\n"})
	return err
}

func (s fakeArchives) Import(_ context.Context, o api.ImportOptions, r io.Reader, progress api.Progress) error {
	b, err := io.ReadAll(r)
	s.f.called("import %+v %d bytes", o, len(b))
	progress(jsonstream.Message{Status: "sha256:0"})
	return err
}

func (s fakeArchives) Export(_ context.Context, ref string) (func(io.Writer) error, error) {
	c, err := s.f.find(ref)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error { _, err := io.WriteString(w, "a tar of "+c.name); return err }, nil
}

func (s fakeArchives) Commit(_ context.Context, o api.CommitOptions) (string, error) {
	if o.Config != nil {
		s.f.called("commit config %v", o.Config.Cmd)
		o.Config = nil
	}
	s.f.called("commit %+v", o)
	return "sha256:1", nil
}
