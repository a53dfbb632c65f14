package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	store "github.com/dhow-containers/dhow/internal/store/image"
)

// Push implements api.Images.
func (s *Service) Push(ctx context.Context, name string, o api.PushOptions, auth *registry.AuthConfig, p api.Progress) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if p == nil {
		p = func(jsonstream.Message) {}
	}
	tags := []string{r.Familiar()}
	if o.All {
		if tags, err = s.Store.Tags(name); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return errdef.New(errdef.NotFound, "An image does not exist locally with the tag: %s", r.FamiliarName())
	}
	for _, t := range tags {
		if _, err := s.Store.Resolve(t); errdef.Is(err, errdef.Conflict) { // it is still arriving
			return err
		} else if err != nil {
			return errdef.New(errdef.NotFound, "An image does not exist locally with the tag: %s", r.FamiliarName())
		}
	}
	p(jsonstream.Message{Status: "The push refers to repository [" + r.Name() + "]"})
	for _, t := range tags {
		if err := s.pushTag(ctx, t, o, auth, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) pushTag(ctx context.Context, name string, o api.PushOptions, auth *registry.AuthConfig, p api.Progress) error {
	r, err := ref.Parse(name)
	if err != nil {
		return err
	}
	d, err := s.Store.Push(ctx, name, store.PushOptions{Platform: o.Platform, Compression: o.Compression, Auth: credentials(auth, name), Progress: forward(p)})
	if err != nil {
		return err
	}
	p(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", r.Tag, d.Digest, d.Size)})
	raw, err := json.Marshal(struct {
		Tag, Digest string
		Size        int64
	}{r.Tag, d.Digest.String(), d.Size})
	if err != nil {
		return err
	}
	aux := json.RawMessage(raw)
	p(jsonstream.Message{Aux: &aux})
	img, err := s.Store.Resolve(name)
	if err != nil {
		return nil // removed meanwhile
	}
	s.event(events.ActionPush, name, img.Config.Config.Labels, r.FamiliarName())
	return nil
}

// forward turns the store's progress into the API's.
func forward(p api.Progress) func(store.Event) {
	return func(e store.Event) {
		m := jsonstream.Message{ID: e.ID, Status: e.Status}
		if e.Total > 0 || e.Current > 0 {
			m.Progress = &jsonstream.Progress{Current: e.Current, Total: e.Total}
		}
		p(m)
	}
}
