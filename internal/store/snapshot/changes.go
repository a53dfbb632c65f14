package snapshot

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// Changes tells what a snapshot has that its layers have not; see upper.Walk. A container may run on it meanwhile.
func (s *Store) Changes(ctx context.Context, id string, f func(upper.Change) error) error {
	rec, err := s.record(id)
	if err != nil {
		return err
	}
	m, err := s.layers.Merge(ctx, rec.Chain)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	up, err := openDir(s.path(id, rec.written()))
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	defer up.Close()
	if len(rec.Chain) == 0 {
		return upper.Walk(ctx, up, nil, f)
	}
	low, err := s.below(m)
	if err != nil {
		return fmt.Errorf("mount the layers of snapshot %s: %w", id, err)
	}
	defer low.Close()
	if !rec.Flat {
		err = upper.Walk(ctx, up, low, f)
	} else {
		var st unix.Stat_t // the record was the last thing written when the copy was made
		if err = unix.Lstat(s.path(id, recordFile), &st); err == nil {
			err = upper.Compare(ctx, up, low, st.Ctim, f)
		}
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	return nil
}

// Layer writes a snapshot's changes as a layer's tar and returns how many entries it has. What starts have made to mount on is left out:
// upper.Shown. What comes between its two readings is in.
func (s *Store) Layer(ctx context.Context, id string, w io.Writer) (entries int, err error) {
	var l upper.Shown
	if err := s.Changes(ctx, id, l.Add); err != nil {
		return 0, err
	}
	hidden := map[string]bool{}
	l.Each(func(path string, _ upper.Kind, counts bool) {
		if !counts {
			hidden[path] = true
		}
	})
	return upper.Layer(ctx, func(f func(upper.Change) error) error {
		return s.Changes(ctx, id, func(c upper.Change) error {
			if hidden[c.Path] {
				return nil
			}
			return f(c)
		})
	}, w)
}

// below opens merged layers.
func (s *Store) below(m layer.Merged) (*os.File, error) {
	if m.Folder != "" {
		return openDir(m.Folder)
	}
	shared, err := m.Share()
	if err != nil {
		return nil, err
	}
	defer shared.Close() // of a nil file it is an error without effect
	// An overlay wants two folders; the second is empty.
	return Detached(bundle.Rootfs{Lower: append(m.Lower, bundle.Layer{Type: layer.FormDir, Source: s.layers.Empty()}), Scratch: s.path(scratchDir)})
}
