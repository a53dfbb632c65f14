package image

import (
	"slices"
	"time"
)

// Step is one line of an image's history.
type Step struct {
	ID        string // the image's on its youngest step, else <missing>: steps have no images of their own
	Created   time.Time
	CreatedBy string
	Comment   string
	Tags      []string
	Size      int64 // of the layer it made; 0 when it made none
}

// History tells how an image was made, the youngest step first.
func (s *Store) History(name string) ([]Step, error) {
	img, err := s.Resolve(name)
	if err != nil {
		return nil, err
	}
	var steps []Step
	layers := img.DiffIDs
	next := func() (int64, error) {
		if len(layers) == 0 {
			return 0, nil
		}
		l, err := s.c.Layers.Info(layers[0])
		layers = layers[1:]
		return l.Size, err
	}
	for _, h := range img.Config.History {
		st := Step{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			st.Created = *h.Created
		}
		if !h.EmptyLayer {
			if st.Size, err = next(); err != nil {
				return nil, err
			}
		}
		steps = append(steps, st)
	}
	for len(layers) > 0 { // layers that the history does not mention
		n, err := next()
		if err != nil {
			return nil, err
		}
		steps = append(steps, Step{ID: "<missing>", Created: img.Created, Size: n})
	}
	slices.Reverse(steps)
	if len(steps) > 0 {
		steps[0].ID, steps[0].Tags = img.ID.String(), img.RepoTags
	}
	return steps, nil
}
