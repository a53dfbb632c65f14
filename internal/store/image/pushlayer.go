package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/store/registry"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// sent is a layer as it was compressed for a push: the same layer gets the same blob again.
type sent struct {
	Layer  digest.Digest // diff ID
	Format string        // "gzip" or "zstd"
	Digest digest.Digest
	Size   int64
}

// maxMounts is how many repositories a registry is asked to mount a blob from.
const maxMounts = 3

// maxForms is how many blobs of one layer a registry is asked for.
const maxForms = 4

// gzipBlock is the unit of parallel compression. It decides the bytes that come out; how many are in work does not.
const gzipBlock = 256 << 10

// gzipAtOnce is how many blocks of one layer are in work: with five layers at a time the heap grows by less than 64 MiB.
const gzipAtOnce = 2

// layers makes the registry have every layer. made tells which it has in another form than the manifest says.
func (u *push) layers(ctx context.Context, rec record, want []ocispec.Descriptor) (got []ocispec.Descriptor, made []sent, err error) {
	got = slices.Clone(want)
	first := map[string]int{} // of layers that occur twice
	var todo []int
	for i, d := range want {
		key := rec.Layers[i].String() + string(d.Digest)
		if _, twice := first[key]; twice {
			continue
		}
		first[key] = i
		todo = append(todo, i)
		u.p.say(id.Short(rec.Layers[i].String()), "Preparing")
	}
	for n, i := range todo {
		if n >= u.s.c.Uploads {
			u.p.say(id.Short(rec.Layers[i].String()), "Waiting")
		}
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.s.c.Uploads)
	for _, i := range todo {
		g.Go(func() error {
			d, m, err := u.layer(ctx, rec, rec.Layers[i], want[i])
			if err != nil {
				return fmt.Errorf("layer %s: %w", id.Short(rec.Layers[i].String()), err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[i] = d
			if m != nil {
				made = append(made, *m)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i, d := range want {
		got[i] = got[first[rec.Layers[i].String()+string(d.Digest)]]
	}
	return got, made, nil
}

// layer makes the registry have one layer: as the manifest says, as it is known here in another form, or compressed now.
func (u *push) layer(ctx context.Context, rec record, diff digest.Digest, d ocispec.Descriptor) (ocispec.Descriptor, *sent, error) {
	short := id.Short(diff.String())
	if foreign(d.MediaType) {
		u.p.say(short, "Skipped foreign layer")
		return d, nil, nil
	}
	var session *registry.Session
	for _, f := range u.forms(rec, diff, d) {
		s, there, err := u.offer(ctx, diff, f.Digest, f.Size)
		if err != nil {
			return d, nil, err
		}
		if there {
			f.Annotations = d.Annotations
			return f, nil, nil
		}
		if s != nil {
			session = s
		}
	}
	if d.Digest == diff && !rec.Local {
		_, err := u.repo.Upload(ctx, session, registry.Source{Open: u.tar(diff, ""), Digest: diff, Size: d.Size})
		if err == nil {
			u.p.say(short, "Pushed")
		}
		return d, nil, err
	}
	format := u.format(d.MediaType)
	blob, err := u.repo.Upload(ctx, session, registry.Source{Open: u.tar(diff, format), Size: -1})
	if err != nil {
		return d, nil, err
	}
	u.p.say(short, "Pushed")
	d.MediaType, d.Digest, d.Size = layerType(d.MediaType, format), blob.Digest, blob.Size
	return d, &sent{diff, format, blob.Digest, blob.Size}, nil
}

// forms are the blobs that are known to hold this layer, the best first: the image's own, what earlier pushes made, and how other
// images here have it, so that what was built on a pulled image finds the layers of that in the registry.
func (u *push) forms(rec record, diff digest.Digest, own ocispec.Descriptor) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	add := func(d digest.Digest, size int64, format string) {
		known := slices.ContainsFunc(out, func(o ocispec.Descriptor) bool { return o.Digest == d })
		if !known && d != diff && len(out) < maxForms {
			out = append(out, ocispec.Descriptor{MediaType: layerType(own.MediaType, format), Digest: d, Size: size})
		}
	}
	if !rec.Local {
		if out = append(out, own); own.Digest == diff { // it can be had again as it was
			return out
		}
	}
	for _, r := range u.c.images {
		for _, m := range r.Sent {
			if m.Layer == diff && m.Format == u.format(own.MediaType) {
				add(m.Digest, m.Size, m.Format)
			}
		}
	}
	for _, r := range u.c.images {
		i := slices.Index(r.Layers, diff)
		if i < 0 || r.Local || r.Manifest.Digest == rec.Manifest.Digest {
			continue
		}
		raw, err := u.s.c.Content.Read(r.Manifest.Digest, manifest.MaxSize)
		if err != nil {
			continue
		}
		if doc, err := manifest.Decode(raw, r.Manifest.MediaType); err == nil && doc.Manifest != nil && len(doc.Manifest.Layers) == len(r.Layers) {
			d := doc.Manifest.Layers[i]
			format := "gzip"
			if strings.HasSuffix(d.MediaType, "zstd") {
				format = "zstd"
			}
			if !foreign(d.MediaType) {
				add(d.Digest, d.Size, format)
			}
		}
	}
	return out
}

// offer finds out whether the registry has a blob, in this repository or in another that it can be mounted from. The Session is
// what the registry opened when it did not.
func (u *push) offer(ctx context.Context, diff, blob digest.Digest, size int64) (s *registry.Session, there bool, err error) {
	short := id.Short(diff.String())
	if there, err = u.repo.Has(ctx, blob, size); err != nil || there {
		if there {
			u.p.say(short, "Layer already exists")
		}
		return nil, there, err
	}
	for _, from := range u.holders(diff, blob) {
		if s, err = u.repo.Begin(ctx, blob, from); err != nil {
			return nil, false, err
		}
		if s == nil {
			u.p.say(short, "Mounted from "+from)
			return nil, true, nil
		}
	}
	return s, false, nil
}

// holders names other repositories of the same registry that an image with this layer was pulled from or pushed to, those first where it was
// this very blob.
func (u *push) holders(diff, blob digest.Digest) []string {
	var exact, other []string
	for n, id := range u.c.digests {
		repo, d, _ := strings.Cut(n, "@")
		path, ok := strings.CutPrefix(repo, u.r.Domain+"/")
		switch {
		case !ok || path == u.r.Path || !slices.Contains(u.c.images[id].Layers, diff):
		case u.says(u.c.images[id], digest.Digest(d), blob):
			exact = append(exact, path)
		default:
			other = append(other, path)
		}
	}
	slices.Sort(exact)
	slices.Sort(other)
	var out []string
	for _, path := range append(exact, other...) {
		if !slices.Contains(out, path) && len(out) < maxMounts {
			out = append(out, path)
		}
	}
	return out
}

// says tells whether the manifest of an image that is d, or in the index d, has this blob.
func (u *push) says(rec record, d, blob digest.Digest) bool {
	raw, err := u.s.c.Content.Read(u.manifest(rec, d).Digest, manifest.MaxSize)
	return err == nil && bytes.Contains(raw, []byte(blob))
}

func foreign(mt string) bool {
	return mt == manifest.DockerForeignLayer || strings.Contains(mt, ".nondistributable.")
}

// format is how a layer is compressed anew: as it was before, gzip when it was not.
func (u *push) format(mt string) string {
	switch {
	case u.o.Compression != "":
		return u.o.Compression
	case strings.HasSuffix(mt, "zstd"):
		return "zstd"
	}
	return "gzip"
}

// layerType is the media type of a compressed layer in the words of the image that it belongs to.
func layerType(was, format string) string {
	docker := strings.HasPrefix(was, manifest.DockerLayer)
	switch {
	case docker && format == "zstd":
		return manifest.DockerLayerZstd
	case docker:
		return manifest.DockerLayerGzip
	case format == "zstd":
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// tar opens a layer, compressed by format ("" for not at all). A layer that is damaged ends in an error in place of io.EOF.
func (u *push) tar(diff digest.Digest, format string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		info, err := u.s.c.Layers.Info(diff)
		if err != nil {
			return nil, err
		}
		f, err := u.s.c.Layers.OpenTar(diff)
		if err != nil {
			return nil, err
		}
		v := &verified{r: io.LimitReader(f, info.Size), want: diff, sum: digest.SHA256.Digester()}
		m := &meter{r: v, p: u.p, every: 100 * time.Millisecond, e: Event{ID: id.Short(diff.String()), Status: "Pushing", Total: info.Size}}
		if format == "" {
			return struct {
				io.Reader
				io.Closer
			}{m, f}, nil
		}
		r, w := io.Pipe()
		go func() { // ends when all is compressed, or when r is closed
			defer f.Close()
			w.CloseWithError(squeeze(w, m, format))
		}()
		return r, nil
	}
}

// verified reads a layer and compares it with its name.
type verified struct {
	r    io.Reader
	want digest.Digest
	sum  digest.Digester
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.sum.Hash().Write(p[:n])
	if err == io.EOF {
		if got := v.sum.Digest(); got != v.want {
			return n, errdef.New(errdef.DataLoss, "it is damaged on this host's disk: its digest is %s; dhow system check --repair fetches it again", got)
		}
	}
	return n, err
}

// squeeze compresses. The same input gives the same output, whatever the number of processors.
func squeeze(w io.Writer, r io.Reader, format string) error {
	if format == "zstd" {
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return err
		}
		defer z.Close()
		if _, err := io.Copy(z, r); err != nil {
			return err
		}
		return z.Close()
	}
	z := pgzip.NewWriter(w)
	if err := z.SetConcurrency(gzipBlock, gzipAtOnce); err != nil {
		return err
	}
	defer z.Close()
	if _, err := io.Copy(z, r); err != nil {
		return err
	}
	return z.Close()
}
