package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/image"
	"github.com/dhow-containers/dhow/internal/store/layer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Saving is images about to be written; the caller must Close it.
type Saving struct {
	b      *image.Batch
	images []*saved
}

// saved is one image and the documents that describe it in the archive.
type saved struct {
	image.Image
	tags             []savedTag
	config, manifest []byte
	desc             ocispec.Descriptor
	layers           []layer.Info
	other            bool // it is there as another platform of one, too
}

// savedTag is a name that an image has in the archive, and the images of other platforms that it stands for as well.
type savedTag struct {
	name   string // canonical
	others []*saved
}

// NewSaving finds the images that names pick (image.Batch.Pick) and everything they need. Of images of several platforms those asked for
// are taken, or else all that are here, as an index; a name that leaves none is errdef.NotFound.
func NewSaving(s *image.Store, names []string, platforms []ocispec.Platform) (_ *Saving, err error) {
	if len(names) == 0 {
		return nil, errdef.New(errdef.InvalidArgument, "save: name at least one image")
	}
	v := &Saving{b: s.Begin()}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	for _, n := range names {
		images, tags, err := v.b.Pick(n)
		if err != nil {
			return nil, err
		}
		some := false
		for i, img := range images {
			if len(tags[i]) == 0 {
				tags[i] = []string{""}
			}
			for _, t := range tags[i] {
				mine, err := v.take(img, n, t, platforms)
				if err != nil {
					return nil, err
				}
				some = some || mine
			}
		}
		if !some {
			return nil, errdef.New(errdef.NotFound, "image %s is for %s, not for the platform asked for", n, manifest.PlatformString(images[0].Platform))
		}
	}
	return v, nil
}

// take adds the image that a tag ("" for none) names, and what else the tag stands for; with platforms, for each the best of these. It tells
// whether there was any.
func (v *Saving) take(img image.Image, name, tag string, platforms []ocispec.Platform) (some bool, err error) {
	if tag != "" {
		name = tag
	}
	others, err := v.b.Platforms(name)
	if err != nil {
		return false, err
	}
	if len(platforms) > 0 {
		for _, p := range platforms {
			best, rate := image.Image{}, 0
			for _, i := range append([]image.Image{img}, others...) {
				if r := manifest.Match(i.Platform, p); r > rate {
					best, rate = i, r
				}
			}
			if rate == 0 {
				continue
			}
			o, err := v.add(best)
			if err != nil {
				return false, err
			}
			if tag != "" {
				o.call(tag, nil)
			}
			some, tag = true, "" // a name means one image
		}
		return some, nil
	}
	o, err := v.add(img)
	if err != nil || tag == "" {
		return true, err
	}
	var more []*saved
	for _, img := range others {
		p, err := v.add(img)
		if err != nil {
			return false, err
		}
		p.other = true
		more = append(more, p)
	}
	o.call(tag, more)
	return true, nil
}

func (o *saved) call(tag string, others []*saved) {
	if !slices.ContainsFunc(o.tags, func(t savedTag) bool { return t.name == tag }) {
		o.tags = append(o.tags, savedTag{tag, others})
	}
}

func (v *Saving) add(img image.Image) (*saved, error) {
	for _, o := range v.images {
		if o.ID == img.ID {
			return o, nil
		}
	}
	o := &saved{Image: img}
	var err error
	if o.config, err = v.b.Config(img.ID); err != nil {
		return nil, fmt.Errorf("image %s: %w", img.ID, err)
	}
	for _, d := range img.DiffIDs {
		l, err := v.b.Known(d)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.ID, err)
		}
		o.layers = append(o.layers, l)
	}
	if o.manifest, o.desc, err = image.Describe(o.config, o.layers); err != nil {
		return nil, err
	}
	o.desc.Platform = &o.Platform
	v.images = append(v.images, o)
	return o, nil
}

// top is what a name of an image means: its manifest, or the index of all its platforms, which raw is then.
func (o *saved) top(t savedTag) (raw []byte, d ocispec.Descriptor, err error) {
	if len(t.others) == 0 {
		return nil, o.desc, nil
	}
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{o.desc}}
	ix.SchemaVersion = 2
	for _, p := range t.others {
		ix.Manifests = append(ix.Manifests, p.desc)
	}
	raw, err = json.Marshal(ix)
	return raw, ocispec.Descriptor{MediaType: ix.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, err
}

// Images are the IDs of what will be written, and their labels.
func (v *Saving) Images() []image.Image {
	var all []image.Image
	for _, o := range v.images {
		all = append(all, o.Image)
	}
	return all
}

// Close lets the images go.
func (v *Saving) Close() error { return v.b.Close() }

// Write writes the archive: documents first, so that who reads it as a stream knows what comes, then every layer once.
func (v *Saving) Write(ctx context.Context, w io.Writer) error {
	out := &writer{ctx: ctx, tw: tar.NewWriter(w), done: map[string]bool{}}
	if err := v.documents(out); err != nil {
		return err
	}
	for _, o := range v.images {
		for _, l := range o.layers {
			if err := v.layer(out, o, l); err != nil {
				return err
			}
		}
	}
	return out.tw.Close()
}

func (v *Saving) documents(out *writer) error {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	items := []manifest.ArchiveItem{}
	for _, o := range v.images {
		if o.other && len(o.tags) == 0 { // manifest.json cannot say it
			continue
		}
		item := manifest.ArchiveItem{Config: blobName(o.ID), RepoTags: []string{}, Layers: []string{}}
		for _, l := range o.layers {
			item.Layers = append(item.Layers, blobName(l.DiffID))
		}
		if len(o.tags) == 0 {
			index.Manifests = append(index.Manifests, o.desc)
		}
		for _, t := range o.tags {
			r, err := ref.Parse(t.name)
			if err != nil {
				return err
			}
			_, d, err := o.top(t)
			if err != nil {
				return err
			}
			item.RepoTags = append(item.RepoTags, r.Familiar())
			d.Annotations = map[string]string{annotationName: t.name, ocispec.AnnotationRefName: r.Tag}
			index.Manifests = append(index.Manifests, d)
		}
		items = append(items, item)
	}
	for _, d := range []struct {
		name string
		doc  any
	}{{layoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}, {indexFile, index}, {manifestFile, items}} {
		raw, err := json.Marshal(d.doc)
		if err != nil {
			return fmt.Errorf("encode %s: %w", d.name, err)
		}
		out.doc(d.name, raw)
	}
	if out.err != nil {
		return out.err
	}
	return v.blobs(out)
}

func (v *Saving) blobs(out *writer) error {
	for _, dir := range []string{"blobs/", blobsDir} {
		out.head(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
	}
	for _, o := range v.images {
		for _, t := range o.tags {
			raw, d, err := o.top(t)
			if err != nil {
				return err
			}
			if raw != nil {
				out.doc(blobName(d.Digest), raw)
			}
		}
		out.doc(blobName(o.desc.Digest), o.manifest)
		out.doc(blobName(o.ID), o.config)
	}
	return out.err
}

// layer copies a layer's tar and verifies it on the way.
func (v *Saving) layer(out *writer, o *saved, l layer.Info) error {
	name := blobName(l.DiffID)
	if out.done[name] {
		return nil
	}
	f, err := v.b.Open(l.DiffID)
	if err != nil {
		return err
	}
	defer f.Close()
	out.head(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: l.Size, ModTime: stamp(o.Created)})
	if out.err != nil {
		return out.err
	}
	h := digest.SHA256.Digester()
	if _, err := io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{out}, h.Hash()), struct{ io.Reader }{io.LimitReader(f, l.Size)}, make([]byte, 512<<10)); err != nil {
		return fmt.Errorf("save layer %s: %w", l.DiffID, err)
	}
	if got := h.Digest(); got != l.DiffID {
		return errdef.New(errdef.DataLoss, "save layer %s: the file on disk now has digest %s: dhow system check --repair mends it", l.DiffID, got)
	}
	return nil
}

// stamp is a time that a plain tar header can hold.
func stamp(t time.Time) time.Time {
	if t.Unix() < 0 || t.Unix() >= 1<<33 {
		return time.Unix(0, 0)
	}
	return t.Truncate(time.Second)
}

// writer writes entries, each name once; the first error sticks.
type writer struct {
	ctx  context.Context
	tw   *tar.Writer
	done map[string]bool
	err  error
}

func (w *writer) head(h *tar.Header) {
	if w.err == nil {
		w.done[h.Name] = true
		w.err = w.tw.WriteHeader(h)
	}
}

func (w *writer) doc(name string, raw []byte) {
	if w.done[name] {
		return
	}
	w.head(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(raw)), ModTime: time.Unix(0, 0)})
	if w.err == nil {
		_, w.err = w.tw.Write(raw)
	}
}

// Write writes contents; the end of ctx ends it.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.tw.Write(p)
}
