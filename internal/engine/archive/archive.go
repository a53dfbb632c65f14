// Package archive owns what moves images and containers in and out as tars, and what makes images here: save, load, import, export,
// commit.
//
// It promises that an image is recorded only when it is whole, that a container's files hold still while they become a layer where
// that was asked for, and that a cancelled operation leaves nothing. It must never unpack anything on the host.
package archive

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	store "github.com/dhow-containers/dhow/internal/store/archive"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
)

// Service implements api.Archives.
type Service struct {
	Store      *image.Store
	Events     *event.Bus
	Images     container.Images
	Containers Containers
	Snapshots  Snapshots
}

// Containers looks at containers from outside.
type Containers interface {
	Record(ref string) (*api.Container, error)
	Still(ctx context.Context, ref string, freeze bool, f func(*api.Container) error) error
	Root(ctx context.Context, ref string) (root *os.File, there func() error, err error)
}

// Snapshots writes a container's changes as a layer and tells how many entries there are.
type Snapshots interface {
	Layer(ctx context.Context, id string, w io.Writer) (entries int, err error)
}

// Save implements api.Archives.
func (s *Service) Save(ctx context.Context, names []string, platforms []ocispec.Platform) (func(io.Writer) error, error) {
	for _, n := range names { // the embedded image is made when it is asked for
		if _, err := s.Images.Local(ctx, n, ""); err != nil && !errdef.Is(err, errdef.NotFound) {
			return nil, err
		}
	}
	v, err := store.NewSaving(s.Store, names, platforms)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		defer v.Close()
		if err := v.Write(ctx, w); err != nil {
			return err
		}
		for _, img := range v.Images() {
			s.event(events.ActionSave, img, img.ID.String())
		}
		return nil
	}, nil
}

func (s *Service) event(a events.Action, img image.Image, name string) {
	attr := map[string]string{}
	for k, v := range img.Config.Config.Labels {
		attr[k] = v
	}
	attr["name"] = name
	s.Events.Publish(events.ImageEventType, a, img.ID.String(), attr)
}

// Load implements api.Archives.
func (s *Service) Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, quiet bool, p api.Progress) error {
	o := store.LoadOptions{Platforms: platforms, Host: manifest.HostPlatform()}
	if !quiet {
		o.Progress = func(layer string, current, total int64) {
			p(jsonstream.Message{ID: layer, Status: "Loading layer", Progress: &jsonstream.Progress{Current: current, Total: total}})
		}
	}
	made, err := store.Load(ctx, s.Store, r, o)
	if err != nil {
		return err
	}
	for _, m := range made {
		for _, n := range m.Names {
			if old := m.Moved[n]; old != "" {
				p(jsonstream.Message{Stream: fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n", n, old)})
			}
			p(jsonstream.Message{Stream: "Loaded image: " + n + "\n"})
		}
		if len(m.Names) == 0 {
			p(jsonstream.Message{Stream: "Loaded image ID: " + m.Image.ID.String() + "\n"})
		}
		s.event(events.ActionLoad, m.Image, m.Image.ID.String())
	}
	return nil
}

// Export implements api.Archives.
func (s *Service) Export(ctx context.Context, ref string) (func(io.Writer) error, error) {
	rec, err := s.Containers.Record(ref)
	if err != nil {
		return nil, err
	}
	root, there, err := s.Containers.Root(ctx, rec.ID)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		defer root.Close()
		if err := pack.Tree(ctx, root, w); err != nil {
			return fmt.Errorf("export container %s: %w", rec.ID, err)
		}
		if err := there(); err != nil {
			return err
		}
		s.containerEvent(events.ActionExport, rec, nil)
		return nil
	}, nil
}

func (s *Service) containerEvent(a events.Action, rec *api.Container, more map[string]string) {
	attr := map[string]string{}
	for k, v := range rec.Config.Labels {
		attr[k] = v
	}
	attr["name"], attr["image"] = strings.TrimPrefix(rec.Name, "/"), rec.Config.Image
	for k, v := range more {
		attr[k] = v
	}
	s.Events.Publish(events.ContainerEventType, a, rec.ID, attr)
}
