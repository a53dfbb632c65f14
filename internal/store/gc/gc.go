// Package gc owns the removal of what nobody refers to: blobs, layers, merged indexes and temporary files.
//
// It promises that nothing an image, a running pull or the caller's keep list needs is removed, and that a crash at any point
// leaves only more to sweep. It must never change a record: what is referred to is decided elsewhere.
package gc

import (
	"errors"
	"fmt"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/content"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/opencontainers/go-digest"
)

// Config names what is swept and what else must stay.
type Config struct {
	Images  *image.Store
	Content *content.Store
	Layers  *layer.Store

	// Keep are diff IDs, and Chains chain IDs, that something besides images needs: containers, a build.
	Keep   []digest.Digest
	Chains []digest.Digest
	// Start also removes temporary files of the blob store. It must be set only before the first pull of this process.
	Start bool
}

// Report counts what went.
type Report struct {
	Blobs, Layers, Merged, Temporary int
	Bytes                            int64 // of blobs and layer tars
}

// Sweep marks and sweeps. It holds up pulls only while it decides and unlinks. Whatever cannot be removed is reported in the
// error; the rest is removed all the same.
func Sweep(c Config) (Report, error) {
	var r Report
	var errs []error
	if c.Start {
		n, err := c.Content.Sweep()
		r.Temporary, errs = n, append(errs, err)
	}
	errs = append(errs, c.Layers.Sweep())
	err := c.Images.Freeze(func(live image.Live) error {
		for _, d := range c.Keep {
			live.Digests[d] = true
		}
		for _, d := range c.Chains {
			live.Chains[d] = true
		}
		return errors.Join(c.merged(live, &r), c.layers(live, &r), c.blobs(live, &r))
	})
	<-c.Layers.Free()
	if err := errors.Join(append(errs, err)...); err != nil {
		return r, fmt.Errorf("sweep: %w", err)
	}
	return r, nil
}

// merged goes first: an index must not outlive its layers.
func (c Config) merged(live image.Live, r *Report) error {
	ids, err := c.Layers.ListMerged()
	errs := []error{err}
	for _, id := range ids {
		if live.Chains[id] {
			continue
		}
		if err := c.Layers.RemoveMerged(id); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Merged++
	}
	return errors.Join(errs...)
}

func (c Config) layers(live image.Live, r *Report) error {
	ids, err := c.Layers.List()
	errs := []error{err}
	for _, id := range ids {
		if live.Digests[id] {
			continue
		}
		info, _ := c.Layers.Info(id) // a damaged one is removed as well
		if err := c.Layers.Remove(id); err != nil && !errdef.Is(err, errdef.NotFound) {
			errs = append(errs, err)
			continue
		}
		r.Layers++
		r.Bytes += info.Size
	}
	return errors.Join(errs...)
}

func (c Config) blobs(live image.Live, r *Report) error {
	all, err := c.Content.List()
	errs := []error{err}
	for _, b := range all {
		if live.Digests[b.Digest] {
			continue
		}
		if err := c.Content.Remove(b.Digest); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Blobs++
		r.Bytes += b.Size
	}
	return errors.Join(errs...)
}
