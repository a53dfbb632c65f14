package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/archive/change"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/store/image"
)

// Commit implements api.Archives: the container's changes become a layer over those of its image.
func (s *Service) Commit(ctx context.Context, o api.CommitOptions) (string, error) {
	rec, err := s.Containers.Record(o.Container)
	if err != nil {
		return "", err
	}
	config, err := committed(rec.Config, o)
	if err != nil {
		return "", err
	}
	base, err := s.Store.Resolve(rec.ImageID)
	if err != nil {
		return "", fmt.Errorf("commit container %s: its image: %w", rec.ID, err)
	}
	b := s.Store.Begin()
	defer b.Close()
	var layer digest.Digest
	err = s.Containers.Still(ctx, rec.ID, o.Pause, func(*api.Container) (err error) {
		layer, err = s.layer(ctx, b, rec.ID)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", rec.ID, err)
	}
	now := time.Now().UTC()
	img := base.Config
	img.Created, img.Author, img.Config = &now, o.Author, config
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: append([]digest.Digest{}, base.DiffIDs...)}
	if layer != "" {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, layer)
	}
	img.History = append(append([]ocispec.History{}, img.History...), ocispec.History{Created: &now, CreatedBy: strings.Join(rec.Config.Cmd, " "),
		Author: o.Author, Comment: o.Comment, EmptyLayer: layer == ""})
	made, err := s.add(ctx, b, img, o.Ref)
	if err != nil {
		return "", err
	}
	s.containerEvent(events.ActionCommit, rec, map[string]string{"comment": o.Comment, "imageID": made.ID.String(), "imageRef": o.Ref})
	return made.ID.String(), nil
}

// add records one image under a name, "" for none.
func (s *Service) add(ctx context.Context, b *image.Batch, img dockerspec.DockerOCIImage, ref string) (image.Image, error) {
	raw, err := json.Marshal(img)
	if err != nil {
		return image.Image{}, fmt.Errorf("image config: %w", err)
	}
	var tags []string
	if ref != "" {
		tags = []string{ref}
	}
	if _, err := b.Add(ctx, raw, tags...); err != nil {
		return image.Image{}, err
	}
	made, err := b.Commit()
	if err != nil {
		return image.Image{}, err
	}
	return made[0].Image, nil
}

// layer makes a layer of a container's changes, in one pass; "" when there are none.
func (s *Service) layer(ctx context.Context, b *image.Batch, id string) (digest.Digest, error) {
	r, w := io.Pipe()
	entries, done := 0, make(chan error, 1)
	go func() { // ends when the layer is written, or nobody reads it any more
		n, err := s.Snapshots.Layer(ctx, id, w)
		entries = n
		w.CloseWithError(err)
		done <- err
	}()
	info, err := b.Layer(ctx, r)
	r.CloseWithError(errStop)
	if werr := <-done; werr != nil && !errors.Is(werr, errStop) {
		return "", werr // the cause, not what the reader made of it
	}
	if err != nil || entries == 0 {
		return "", err
	}
	return info.DiffID, nil
}

var errStop = errors.New("the layer's reader has stopped")

// committed is the configuration of an image that is made of a container: the changes over the request over the container's own.
func committed(own *container.Config, o api.CommitOptions) (dockerspec.DockerOCIImageConfig, error) {
	asked := container.Config{}
	if o.Config != nil {
		asked = *o.Config
	}
	if asked.WorkingDir == "" {
		asked.WorkingDir = own.WorkingDir // a relative WORKDIR goes on from there
	}
	env := append(append([]string{}, own.Env...), asked.Env...)
	if err := change.Apply(&asked, env, o.Changes); err != nil {
		return dockerspec.DockerOCIImageConfig{}, err
	}
	none := asked.Healthcheck
	merged, _, err := spec.Merge(&asked, imageConfig(own))
	if err != nil {
		return dockerspec.DockerOCIImageConfig{}, err
	}
	out := imageConfig(merged)
	if out.Healthcheck == nil {
		out.Healthcheck = none
	}
	for _, e := range out.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return out, errdef.New(errdef.InvalidArgument, "commit: environment %.60q has no name", e)
		}
	}
	return out, nil
}

// imageConfig is what an image keeps of a container's configuration.
func imageConfig(c *container.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	out.Volumes, out.WorkingDir, out.Labels, out.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	for p := range c.ExposedPorts {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[p.String()] = struct{}{}
	}
	return out
}
