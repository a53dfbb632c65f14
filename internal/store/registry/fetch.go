package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (p *Repo) scope() string { return "repository:" + p.ref.Path + ":pull" }

// Manifest fetches a manifest or index. With want set it is fetched by that digest and verified against it, else by the
// reference's own digest or tag. The descriptor's media type is what the registry said, or "".
func (p *Repo) Manifest(ctx context.Context, want digest.Digest) ([]byte, ocispec.Descriptor, error) {
	if want == "" {
		want = p.ref.Digest
	}
	at := want.String()
	if at == "" {
		at = p.ref.Tag
	}
	h := http.Header{"Accept": manifest.Accepted()}
	for try := 1; ; try++ {
		resp, err := p.do(ctx, http.MethodGet, "/v2/"+p.ref.Path+"/manifests/"+at, p.scope(), h)
		if err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		raw, d, err := p.readManifest(resp, want)
		if err == nil || !breaks(err) || try >= p.k.c.Attempts || ctx.Err() != nil {
			return raw, d, err
		}
		if err := p.k.pause(ctx, try, 0); err != nil {
			return nil, d, err
		}
	}
}

func (p *Repo) readManifest(resp *http.Response, want digest.Digest) ([]byte, ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, none, p.statusError(resp, "manifest")
	}
	if resp.ContentLength > manifest.MaxSize {
		return nil, none, errdef.New(errdef.DataLoss, "manifest for %s: %d bytes, at most %d are allowed", p.ref.Familiar(), resp.ContentLength, manifest.MaxSize)
	}
	body := p.k.watch(resp.Body, func() { resp.Body.Close() })
	defer body.stop()
	raw, err := io.ReadAll(io.LimitReader(body, manifest.MaxSize+1))
	if err != nil {
		return nil, none, errdef.New(errdef.Unavailable, "manifest for %s: %w", p.ref.Familiar(), err)
	}
	if len(raw) > manifest.MaxSize {
		return nil, none, errdef.New(errdef.DataLoss, "manifest for %s: more than %d bytes", p.ref.Familiar(), manifest.MaxSize)
	}
	if want == "" {
		// By tag the body is all we have; a header that contradicts it is a broken or lying registry.
		if s := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(s, "sha256:") {
			if want, err = ref.ParseDigest(s); err != nil {
				return nil, none, errdef.New(errdef.DataLoss, "manifest for %s: header Docker-Content-Digest: %w", p.ref.Familiar(), err)
			}
		}
	}
	got := digest.FromBytes(raw)
	if want != "" && got != want {
		return nil, none, errdef.New(errdef.DataLoss, "manifest for %s: wrong digest: got %s, promised %s", p.ref.Familiar(), got, want)
	}
	return raw, ocispec.Descriptor{MediaType: resp.Header.Get("Content-Type"), Digest: got, Size: int64(len(raw))}, nil
}

// Blob opens a blob for one pass. The reader resumes a broken connection by Range, and ends in io.EOF only when exactly
// d.Size bytes with digest d.Digest came; any other bytes end in errdef.DataLoss. A caller that trusts what it read before
// it saw io.EOF is wrong. The descriptor's urls are ignored.
func (p *Repo) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return p.Resume(ctx, d, nothing{})
}

// Kept is the beginning of a blob that an earlier try had, and is given what follows for a later one.
type Kept interface {
	io.ReaderAt
	Len() int64      // bytes that are there, at most the blob's
	Append(p []byte) // a failure is its own affair
}

type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (nothing) Len() int64                        { return 0 }
func (nothing) Append([]byte)                     {}

// Resume is Blob for one whose beginning is kept: that is read first, and the registry asked for the rest, if any, when it has been. The
// beginning is trusted no more than the registry is: DataLoss may be either's.
func (p *Repo) Resume(ctx context.Context, d ocispec.Descriptor, kept Kept) (io.ReadCloser, error) {
	if _, err := ref.ParseDigest(d.Digest.String()); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, errdef.New(errdef.DataLoss, "blob %s: negative size %d", d.Digest, d.Size)
	}
	b := &blob{p: p, ctx: ctx, d: d, kept: kept, had: kept.Len(), sum: digest.SHA256.Hash()}
	if b.had > 0 {
		return b, nil
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

// blob is a verified, resuming body.
type blob struct {
	p     *Repo
	ctx   context.Context
	d     ocispec.Descriptor
	kept  Kept
	had   int64 // where kept ends
	sum   hash.Hash
	off   int64 // bytes handed out
	tries int   // breaks without progress worth the name
	mark  int64 // off at the last break
	body  *watched
	resp  *http.Response
	pace  pace
	parts *parts // beside body until they take over from it, then in its place
	whole bool   // the registry gives no parts
	err   error
}

func (b *blob) path() string { return "/v2/" + b.p.ref.Path + "/blobs/" + b.d.Digest.String() }

// connect asks for the rest of the blob.
func (b *blob) connect() error {
	h := http.Header{}
	if b.off > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.p.do(b.ctx, http.MethodGet, b.path(), b.p.scope(), h)
	if err != nil {
		return err
	}
	skip, err := b.place(resp)
	if err != nil {
		resp.Body.Close()
		return err
	}
	b.resp = resp
	b.body = b.p.k.watch(resp.Body, func() { resp.Body.Close() })
	if _, err := io.CopyN(io.Discard, b.body, skip); err != nil {
		b.close()
		return errdef.New(errdef.Unavailable, "blob %s: %w", b.d.Digest, err)
	}
	return nil
}

// place tells how many bytes of the answer were had before, and refuses an answer that is not the part asked for.
func (b *blob) place(resp *http.Response) (skip int64, err error) {
	left := b.d.Size - b.off
	switch resp.StatusCode {
	case http.StatusOK: // no ranges here: the whole blob comes again
		skip, left = b.off, b.d.Size
	case http.StatusPartialContent:
		want := fmt.Sprintf("bytes %d-%d/", b.off, b.d.Size-1)
		if got := resp.Header.Get("Content-Range"); b.off == 0 || !strings.HasPrefix(got, want) {
			return 0, errdef.New(errdef.DataLoss, "blob %s: registry sent range %q, asked for %q", b.d.Digest, clean(got), want)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, errdef.New(errdef.DataLoss, "blob %s: wrong size: registry has nothing from byte %d on, promised %d", b.d.Digest, b.off, b.d.Size)
	default:
		return 0, b.p.statusError(resp, "blob "+b.d.Digest.String())
	}
	if n := resp.ContentLength; n >= 0 && n != left {
		return 0, errdef.New(errdef.DataLoss, "blob %s: wrong size: registry sends %d bytes, promised %d", b.d.Digest, n, left)
	}
	return skip, nil
}

func (b *blob) Read(q []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(q) == 0 {
		return 0, nil
	}
	// One byte beyond the promise is enough to know that there is more.
	if room := b.d.Size - b.off + 1; int64(len(q)) > room {
		q = q[:room]
	}
	if b.off < b.had {
		return b.replay(q)
	}
	n, err := b.next(q)
	if over := b.off + int64(n) - b.d.Size; over > 0 {
		b.err = errdef.New(errdef.DataLoss, "blob %s: wrong size: more than the promised %d bytes", b.d.Digest, b.d.Size)
		return 0, b.err
	}
	b.sum.Write(q[:n])
	b.kept.Append(q[:n])
	b.off += int64(n)
	if err != nil {
		b.err = b.end(err)
	}
	return n, b.err
}

// replay reads on in what was kept. The registry is asked behind its end, or where it cannot be read: a connection that waits for us would
// be cut.
func (b *blob) replay(q []byte) (int, error) {
	if b.err = b.ctx.Err(); b.err != nil {
		b.err = context.Cause(b.ctx)
		return 0, b.err
	}
	n, err := b.kept.ReadAt(q[:min(int64(len(q)), b.had-b.off)], b.off)
	b.sum.Write(q[:n])
	b.off += int64(n)
	if err != nil {
		b.had = b.off
	}
	if b.mark = b.off; b.off == b.had && b.off < b.d.Size {
		b.err = b.connect()
	}
	return n, b.err
}

// next reads from the one connection or, once these are there, from the parts. When parts fail the rest comes over one connection.
func (b *blob) next(q []byte) (int, error) {
	if s := b.p.k.c.Split; b.parts == nil && !b.whole && s.Dir != "" && b.d.Size >= s.From && b.d.Size-b.off > 2*s.Part && b.pace.slow(s) {
		b.parts = b.split()
		b.whole = b.parts == nil
	}
	if b.parts != nil && b.body != nil && b.off >= b.parts.from {
		switch ready, err := b.parts.ready(b.off); {
		case err != nil:
			b.unsplit()
		case ready:
			b.shut()
		}
	}
	if b.body != nil {
		if b.parts != nil && b.off < b.parts.from {
			q = q[:min(int64(len(q)), b.parts.from-b.off)]
		}
		return b.pace.read(b.body, q)
	}
	if b.off == b.d.Size {
		return 0, io.EOF
	}
	n, err := b.parts.read(q, b.off)
	if err != nil && b.ctx.Err() == nil {
		b.unsplit()
		err = b.connect()
	}
	return n, err
}

// unsplit gives up on parts for good.
func (b *blob) unsplit() {
	b.parts.close()
	b.parts, b.whole = nil, true
}

// end judges why the body ended: whole and right, to be resumed (nil), or wrong.
func (b *blob) end(err error) error {
	if b.off == b.d.Size { // whole, however the connection ended
		if got := digest.NewDigest(digest.SHA256, b.sum); got != b.d.Digest {
			return errdef.New(errdef.DataLoss, "blob: wrong digest: got %s, promised %s", got, b.d.Digest)
		}
		return io.EOF
	}
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if err == io.EOF { // a clean end, too early: the server believes that this was all
		return errdef.New(errdef.DataLoss, "blob %s: wrong size: got %d bytes, promised %d", b.d.Digest, b.off, b.d.Size)
	}
	if b.off-b.mark >= 1<<20 {
		b.tries = 0
	}
	b.mark = b.off
	if b.tries++; b.tries >= b.p.k.c.Attempts {
		return errdef.New(errdef.Unavailable, "blob %s from %s: broke off at %d of %d bytes, %d times: %w",
			b.d.Digest, b.resp.Request.URL.Host, b.off, b.d.Size, b.tries, err)
	}
	b.close()
	if err := b.p.k.pause(b.ctx, b.tries, 0); err != nil {
		return err
	}
	return b.connect()
}

// shut ends the one connection.
func (b *blob) shut() {
	if b.body != nil {
		b.body.stop()
		b.resp.Body.Close()
		b.body = nil
	}
}

func (b *blob) close() {
	b.shut()
	if b.parts != nil {
		b.parts.close()
		b.parts = nil
	}
}

// Close ends the transfer.
func (b *blob) Close() error {
	b.close()
	if b.err == nil {
		b.err = errors.New("blob is closed")
	}
	return nil
}
