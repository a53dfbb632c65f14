package archive

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// found is an image of an OCI layout, its names, and its other platforms.
type found struct {
	man    *ocispec.Manifest
	tags   []string
	others []*ocispec.Manifest
}

// index is the part of a loader that reads an OCI layout.
type index struct{ *loader }

// images adds those of index.json.
func (l index) images() (some bool, err error) {
	all, err := l.read()
	for _, f := range all {
		added, err := l.addFound(f)
		if err == nil && added {
			err = l.addOthers(f)
		}
		if err != nil {
			return false, err
		}
		some = some || added
	}
	return some, err
}

// widen adds the other platforms of images that manifest.json names, which cannot say them.
func (l index) widen() error {
	all, err := l.read()
	if err != nil {
		return err
	}
	for _, f := range all {
		if !slices.Contains(l.added, f.man.Config.Digest) {
			continue
		}
		if err := l.addOthers(f); err != nil {
			return err
		}
	}
	return nil
}

// read reads index.json.
func (l index) read() (order []*found, err error) {
	raw, err := l.document(layoutFile)
	if err != nil {
		return nil, err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(raw, &layout); err != nil || layout.Version != ocispec.ImageLayoutVersion {
		return nil, errdef.New(errdef.NotImplemented, "image archive: %s: version %.20q, want %s", layoutFile, layout.Version, ocispec.ImageLayoutVersion)
	}
	if raw, err = l.document(indexFile); err != nil {
		return nil, err
	}
	doc, err := manifest.Decode(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("image archive: %s: %w", indexFile, err)
	}
	if doc.Index == nil {
		return nil, damaged("%s is no index", indexFile)
	}
	all := map[digest.Digest]*found{}
	for _, d := range doc.Index.Manifests {
		man, at, ix, err := l.follow(d, 0)
		if err != nil {
			return nil, err
		}
		if man == nil {
			continue
		}
		if all[at] == nil {
			all[at] = &found{man: man}
			order = append(order, all[at])
		}
		if ix != nil && len(all[at].others) == 0 {
			if all[at].others, err = l.others(ix, at); err != nil {
				return nil, err
			}
		}
		if tag := nameOf(d.Annotations); tag != "" && !slices.Contains(all[at].tags, tag) {
			all[at].tags = append(all[at].tags, tag)
		}
	}
	return order, nil
}

// others are the manifests of an index besides the one at a digest, of those platforms that are asked for and whole in the archive. Of one
// platform asked for there is one image.
func (l index) others(ix *ocispec.Index, at digest.Digest) (out []*ocispec.Manifest, err error) {
	for _, d := range ix.Manifests {
		if len(l.o.Platforms) == 1 || d.Digest == at || d.Platform == nil || d.Platform.OS != "linux" || !l.has(blobName(d.Digest)) {
			continue
		}
		if l.parts++; l.parts > manifest.MaxImages {
			return nil, refuse("more than %d images for other platforms", manifest.MaxImages)
		}
		man, _, _, err := l.follow(d, 1)
		if err != nil {
			return nil, err
		}
		if man != nil && l.has(blobName(man.Config.Digest)) && !slices.ContainsFunc(man.Layers, func(b ocispec.Descriptor) bool { return !l.has(blobName(b.Digest)) }) {
			out = append(out, man)
		}
	}
	return out, nil
}

// nameOf is the name that annotations give: the whole one, or ref.name where it is more than a tag.
func nameOf(a map[string]string) string {
	for _, n := range []string{a[annotationName], a[ocispec.AnnotationRefName]} {
		if r, err := ref.Parse(n); err == nil && strings.ContainsAny(n, ":/") && r.Digest == "" {
			return r.String()
		}
	}
	return ""
}

// follow goes from a descriptor to the manifest of the platform asked for, through the index it is in, if any; nil when there is none for us.
func (l index) follow(d ocispec.Descriptor, depth int) (man *ocispec.Manifest, at digest.Digest, in *ocispec.Index, err error) {
	if depth >= manifest.MaxDepth {
		return nil, "", nil, damaged("indexes nested deeper than %d", manifest.MaxDepth)
	}
	if d.Platform != nil && (d.Platform.OS == "unknown" || !wanted(*d.Platform, l.o.Platforms)) { // unknown: an attestation
		return nil, "", nil, nil
	}
	raw, err := l.document(blobName(d.Digest))
	if err != nil {
		return nil, "", nil, err
	}
	if int64(len(raw)) != d.Size {
		return nil, "", nil, damaged("manifest %s has %d bytes, promised are %d", d.Digest, len(raw), d.Size)
	}
	doc, err := manifest.Decode(raw, d.MediaType)
	if errdef.Is(err, errdef.NotImplemented) && depth == 0 { // an artifact beside the images
		return nil, "", nil, nil
	}
	if err != nil {
		return nil, "", nil, fmt.Errorf("image archive: %s: %w", d.Digest, err)
	}
	if doc.Manifest != nil {
		return doc.Manifest, d.Digest, nil, nil
	}
	next, ok, err := l.choose(doc.Index)
	if err != nil || !ok {
		return nil, "", nil, err
	}
	man, at, in, err = l.follow(next, depth+1)
	if in == nil {
		in = doc.Index
	}
	return man, at, in, err
}

// choose picks the entry of an index: of the platforms asked for, else the host's, else the first that is an image and here.
func (l index) choose(ix *ocispec.Index) (d ocispec.Descriptor, ok bool, err error) {
	asked := l.o.Platforms
	if len(asked) == 0 {
		asked = []ocispec.Platform{l.o.Host}
	}
	for _, p := range asked {
		if d, err := manifest.Select(ix, p); err == nil && l.has(blobName(d.Digest)) {
			return d, true, nil
		}
	}
	if len(l.o.Platforms) > 0 {
		return d, false, nil
	}
	for _, d := range ix.Manifests {
		if (d.Platform == nil || d.Platform.OS == "linux") && l.has(blobName(d.Digest)) {
			return d, true, nil
		}
	}
	return d, false, damaged("an index names no image that is in the archive")
}

func (l index) addFound(f *found) (bool, error) {
	config, err := l.document(blobName(f.man.Config.Digest))
	if err != nil {
		return false, err
	}
	if int64(len(config)) != f.man.Config.Size {
		return false, damaged("config %s has %d bytes, promised are %d", f.man.Config.Digest, len(config), f.man.Config.Size)
	}
	cfg, err := l.config(config)
	if err != nil {
		return false, fmt.Errorf("image archive: %s: %w", f.man.Config.Digest, err)
	}
	if !wanted(cfg.Platform, l.o.Platforms) {
		return false, nil
	}
	var layers []string
	for _, d := range f.man.Layers {
		name := blobName(d.Digest)
		if e := l.entries[name]; e != nil && e.size != d.Size {
			return false, damaged("layer %s has %d bytes, promised are %d", d.Digest, e.size, d.Size)
		}
		layers = append(layers, name)
	}
	return true, l.add(config, cfg, layers, f.tags)
}

// addOthers adds the other platforms of an image that was added.
func (l index) addOthers(f *found) error {
	family := []digest.Digest{f.man.Config.Digest}
	for _, man := range f.others {
		if slices.Contains(l.added, man.Config.Digest) { // under a name of its own
			continue
		}
		added, err := l.addFound(&found{man: man})
		if err != nil {
			return err
		}
		if added {
			family = append(family, man.Config.Digest)
		}
	}
	return l.b.Together(l.ctx, family)
}
