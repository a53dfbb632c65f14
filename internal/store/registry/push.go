package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushScope is what a push needs; from is a repository to mount blobs of, or "".
func (p *Repo) pushScope(from string) string {
	s := "repository:" + p.ref.Path + ":pull,push"
	if from != "" {
		s += " repository:" + from + ":pull"
	}
	return s
}

// Has tells whether the repository holds a blob of this digest and, unless negative, size.
func (p *Repo) Has(ctx context.Context, d digest.Digest, size int64) (bool, error) {
	if _, err := ref.ParseDigest(d.String()); err != nil {
		return false, err
	}
	resp, err := p.do(ctx, http.MethodHead, "/v2/"+p.ref.Path+"/blobs/"+d.String(), p.pushScope(""), nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return size < 0 || resp.ContentLength < 0 || resp.ContentLength == size, nil
	case resp.StatusCode == http.StatusNotFound, origin(resp.Request.URL) != p.home(ctx):
		return false, nil
	}
	return false, p.statusError(resp, "push")
}

// home is the origin that our credentials belong to.
func (p *Repo) home(ctx context.Context) string {
	base, err := p.base(ctx)
	if err != nil {
		return ""
	}
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return origin(u)
}

// Session is an upload that a registry agreed to; it is used for one blob.
type Session struct {
	at    *url.URL
	chunk int64
}

// Begin opens an upload. With a digest and a repository of the same registry that may hold it, the registry is asked to mount
// the blob in place of an upload: a nil Session says that it did.
func (p *Repo) Begin(ctx context.Context, mount digest.Digest, from string) (*Session, error) {
	path := "/v2/" + p.ref.Path + "/blobs/uploads/"
	if from != "" {
		path += "?" + url.Values{"mount": {mount.String()}, "from": {from}}.Encode()
	}
	resp, err := p.do(ctx, http.MethodPost, path, p.pushScope(from), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusCreated && from != "":
		return nil, nil
	case from != "" && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden):
		return p.Begin(ctx, "", "") // it may be the source that we are not let at
	case resp.StatusCode != http.StatusAccepted:
		return nil, p.statusError(resp, "push")
	}
	s := &Session{chunk: resumeChunk}
	if n, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > s.chunk {
		if n > maxChunk {
			return nil, errdef.New(errdef.NotImplemented, "registry %s: push: it wants chunks of at least %d bytes, at most %d are made", p.ref.Domain, n, int64(maxChunk))
		}
		s.chunk = n
	}
	return s, s.move(p, resp, true)
}

// move takes over where the registry wants the next bytes: https anywhere, http only where we may speak it and never from https.
func (s *Session) move(p *Repo, resp *http.Response, must bool) error {
	raw := resp.Header.Get("Location")
	if raw == "" {
		if must {
			return errdef.New(errdef.DataLoss, "registry %s: push: it gave no location for the upload", resp.Request.URL.Host)
		}
		return nil
	}
	u, err := resp.Request.URL.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil {
		return errdef.New(errdef.Forbidden, "registry %s: push: bad upload location", resp.Request.URL.Host)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && origin(u) == origin(resp.Request.URL):
	case u.Scheme == "http" && resp.Request.URL.Scheme == "http" && p.k.insecure(u.Host):
	default:
		return errdef.New(errdef.Forbidden, "registry %s: push: refusing its upload location on %s://%s: it must be https or the same host",
			resp.Request.URL.Host, clean(u.Scheme), clean(u.Host))
	}
	u.Fragment = ""
	s.at = u
	return nil
}

// PutManifest stores a manifest or index under a tag, or under its digest when tag is "".
func (p *Repo) PutManifest(ctx context.Context, tag string, d ocispec.Descriptor, raw []byte) error {
	at := tag
	if at == "" {
		at = d.Digest.String()
	}
	h := http.Header{"Content-Type": {d.MediaType}}
	resp, err := p.send(ctx, http.MethodPut, "/v2/"+p.ref.Path+"/manifests/"+at, p.pushScope(""), h, raw)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !slices.Contains([]int{http.StatusCreated, http.StatusOK, http.StatusNoContent, http.StatusAccepted}, resp.StatusCode) {
		return p.statusError(resp, "push manifest "+at)
	}
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != d.Digest.String() {
		return errdef.New(errdef.DataLoss, "registry %s: push: it stored the manifest as %s, sent was %s", resp.Request.URL.Host, clean(got), d.Digest)
	}
	io.CopyN(io.Discard, resp.Body, p.k.c.MaxErrBody)
	return nil
}
