package snapshot

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Changes tells what a snapshot has that its layers have not; see upper.Walk. A container may run on it meanwhile.
func (s *Store) Changes(ctx context.Context, id string, f func(upper.Change) error) error {
	return s.compare(ctx, id, func(up, low *os.File) error { return upper.Walk(ctx, up, low, f) })
}

// Layer writes a snapshot's changes as a layer's tar and returns how many entries it has.
func (s *Store) Layer(ctx context.Context, id string, w io.Writer) (entries int, err error) {
	err = s.compare(ctx, id, func(up, low *os.File) error {
		entries, err = upper.Layer(ctx, up, low, w)
		return err
	})
	return entries, err
}

// compare opens a snapshot's upper folder and its merged layers.
func (s *Store) compare(ctx context.Context, id string, f func(up, low *os.File) error) error {
	r, err := s.Rootfs(ctx, id)
	if err != nil {
		return err
	}
	up, err := openDir(r.Upper)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	defer up.Close()
	if chain, err := s.Chain(id); err != nil || len(chain) == 0 {
		if err == nil {
			err = f(up, nil)
		}
		return err
	}
	// An overlay wants two folders; the second is empty.
	low, err := Detached(bundle.Rootfs{Lower: append(r.Lower, bundle.Layer{Type: layer.FormDir, Source: s.layers.Empty()}), Scratch: r.Scratch})
	if err != nil {
		return fmt.Errorf("mount the layers of snapshot %s: %w", id, err)
	}
	defer low.Close()
	if err := f(up, low); err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	return nil
}
