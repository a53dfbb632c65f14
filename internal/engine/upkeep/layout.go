package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// Layout implements api.Upkeep.
func (s *Service) Layout(ctx context.Context, dir string, names []string) (out []string, err error) {
	if !filepath.IsAbs(dir) {
		return nil, errdef.New(errdef.InvalidArgument, "layout: %q is no absolute path", dir)
	}
	v := &view{ctx: ctx, s: s, b: s.Store.Images.Begin(), dir: filepath.Clean(dir), index: ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}}
	v.index.SchemaVersion = 2
	defer v.b.Close()
	if len(names) == 0 {
		all, err := s.Store.Images.List()
		if err != nil {
			return nil, err
		}
		for _, i := range all {
			names = append(names, i.ID.String())
			names = append(names, i.RepoTags...)
		}
	}
	var images []image.Image
	var tags [][]string
	for _, n := range names {
		i, t, err := v.b.Pick(n)
		if err != nil {
			return nil, err
		}
		images, tags = append(images, i...), append(tags, t...)
	}
	if err := v.begin(); err != nil {
		return nil, fmt.Errorf("layout %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			v.drop()
		}
	}()
	for n, i := range images {
		if err := v.add(i, tags[n]); err != nil {
			return nil, fmt.Errorf("layout %s: image %s: %w", dir, i.ID, err)
		}
		out = append(out, tags[n]...)
	}
	return out, v.end()
}

// view is an OCI layout whose layers are the store's tars under other names.
type view struct {
	ctx   context.Context
	s     *Service
	b     *image.Batch
	dir   string
	made  bool // dir did not exist
	index ocispec.Index
}

func (v *view) blob(d digest.Digest) string {
	return filepath.Join(v.dir, ocispec.ImageBlobsDir, "sha256", d.Encoded())
}

// begin makes the folder, which must be new or an empty one.
func (v *view) begin() error {
	err := os.Mkdir(v.dir, 0o700)
	if v.made = err == nil; err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if list, err := os.ReadDir(v.dir); err != nil {
		return err
	} else if len(list) > 0 {
		return errdef.New(errdef.Conflict, "the folder is not empty: give a new one")
	}
	if err := os.MkdirAll(filepath.Dir(v.blob(digest.FromString(""))), 0o700); err != nil {
		return err
	}
	return v.write(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
}

func (v *view) write(name string, doc any) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(v.dir, name), raw, 0o600)
}

func (v *view) end() error { return v.write(ocispec.ImageIndexFile, v.index) }

// drop leaves the folder as it was: empty, or not there.
func (v *view) drop() {
	for _, name := range []string{ocispec.ImageBlobsDir, ocispec.ImageLayoutFile, ocispec.ImageIndexFile} {
		os.RemoveAll(filepath.Join(v.dir, name))
	}
	if v.made {
		os.Remove(v.dir)
	}
}

// add describes an image by its uncompressed layers, each the tar that its digest names.
func (v *view) add(i image.Image, tags []string) error {
	config, err := v.b.Config(i.ID)
	if err != nil {
		return err
	}
	var layers []layer.Info
	for _, d := range i.DiffIDs {
		l, err := v.b.Known(d)
		if err == nil {
			err = v.layer(l)
		}
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	raw, desc, err := image.Describe(config, layers)
	if err != nil {
		return err
	}
	for d, doc := range map[digest.Digest][]byte{desc.Digest: raw, i.ID: config} {
		if err := atomicfile.Write(v.blob(d), doc, 0o600); err != nil {
			return err
		}
	}
	desc.Platform = &i.Platform
	if len(tags) == 0 {
		v.index.Manifests = append(v.index.Manifests, desc)
	}
	for _, t := range tags {
		named := desc
		named.Annotations = map[string]string{ocispec.AnnotationRefName: t}
		v.index.Manifests = append(v.index.Manifests, named)
	}
	return nil
}

// layer gives a tar one more name, or copies it: to another file system, and where the store has padded it.
func (v *view) layer(l layer.Info) error {
	to := v.blob(l.DiffID)
	from := filepath.Join(layer.Dir(v.s.Store.Layers, l.DiffID), "layer.tar")
	if l.Size%512 == 0 {
		err := os.Link(from, to)
		if err == nil || errors.Is(err, os.ErrExist) {
			return nil
		}
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := io.Copy(dst, io.LimitReader(src, l.Size)); err != nil {
		return err
	}
	return errors.Join(v.ctx.Err(), dst.Close())
}
