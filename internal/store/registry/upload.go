package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// After a connection broke, the rest of a blob goes in chunks of this size, each held in memory.
const (
	resumeChunk = 4 << 20
	maxChunk    = 32 << 20
)

// Source is a blob to upload. Open begins its bytes anew, each time the same. Digest and Size may be unknown ("" and negative):
// they are what the bytes turn out to be.
type Source struct {
	Open   func() (io.ReadCloser, error)
	Digest digest.Digest
	Size   int64
}

// errAgain says that the next attempt of the same may do better, without an attempt being used up.
var errAgain = errors.New("again")

// upload is one blob on its way.
type upload struct {
	p     *Repo
	src   Source
	s     *Session
	off   int64 // what the registry has
	tries int
	mark  int64 // the furthest off at which tries began anew
	moves int   // redirects and 401s followed
}

// Upload sends a blob and returns what it was. s may be nil. A connection that breaks is resumed where the registry says it was,
// by chunks, or from the start when it does not know; at most Attempts times without progress.
func (p *Repo) Upload(ctx context.Context, s *Session, src Source) (ocispec.Descriptor, error) {
	u := &upload{p: p, src: src, s: s}
	for {
		d, err := u.attempt(ctx)
		if err == nil || ctx.Err() != nil {
			if err != nil {
				err = context.Cause(ctx)
			}
			return d, err
		}
		var wait retryError
		switch {
		case errors.Is(err, errAgain):
			if u.moves++; u.moves > 5 {
				return d, errdef.New(errdef.Unavailable, "registry %s: push: it sends the upload from one place to another, %d times", p.ref.Domain, u.moves)
			}
			continue
		case errors.As(err, &wait), breaks(err):
			if u.tries++; u.tries >= p.k.c.Attempts {
				return d, err
			}
			if err := p.k.pause(ctx, u.tries, wait.after); err != nil {
				return d, err
			}
		default:
			return d, err
		}
		if err := u.where(ctx); err != nil {
			return d, err
		}
	}
}

// retryError is an answer after which one may try again.
type retryError struct {
	error
	after time.Duration
}

func (e retryError) Unwrap() error { return e.error }

// attempt sends what is missing and closes the upload.
func (u *upload) attempt(ctx context.Context) (d ocispec.Descriptor, err error) {
	if u.s == nil {
		u.off = 0
		if u.s, err = u.p.Begin(ctx, "", ""); err != nil {
			return d, err
		}
	}
	r, err := u.src.Open()
	if err != nil {
		return d, err
	}
	b := newSending(r, u.p.k.c.Stall, u.p.k.c.Finish)
	defer b.Close()
	switch {
	case u.tries == 0 && u.off == 0 && u.src.Digest != "" && u.src.Size >= 0:
		return u.whole(ctx, b)
	case u.tries == 0 && u.off == 0:
		if err = u.request(ctx, http.MethodPatch, "", nil, b); err == nil { // one request of a length that nobody knows yet
			u.off = b.count()
		}
	default:
		err = u.chunks(ctx, b)
	}
	if err != nil {
		return d, err
	}
	if d, err = b.descriptor(u.src); err != nil {
		return d, err
	}
	return d, u.request(ctx, http.MethodPut, d.Digest, nil, nil)
}

// whole is one PUT.
func (u *upload) whole(ctx context.Context, b *sending) (ocispec.Descriptor, error) {
	h := http.Header{"Content-Length": {strconv.FormatInt(u.src.Size, 10)}}
	if err := u.request(ctx, http.MethodPut, u.src.Digest, h, b); err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.descriptor(u.src)
}

// chunks sends the bytes from off on in pieces that can be counted.
func (u *upload) chunks(ctx context.Context, b *sending) error {
	if _, err := io.CopyN(io.Discard, b, u.off); err != nil {
		return fmt.Errorf("push: the blob is shorter than what was sent of it before: %w", err)
	}
	buf := make([]byte, u.s.chunk)
	for {
		n, err := io.ReadFull(b, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n > 0 {
			h := http.Header{"Content-Range": {fmt.Sprintf("%d-%d", u.off, u.off+int64(n)-1)}, "Content-Length": {strconv.Itoa(n)}}
			piece := newSending(io.NopCloser(bytes.NewReader(buf[:n])), u.p.k.c.Stall, u.p.k.c.Finish)
			perr := u.request(ctx, http.MethodPatch, "", h, piece)
			piece.Close()
			if perr != nil {
				return perr
			}
			if u.off += int64(n); u.off >= u.mark+1<<20 {
				u.mark, u.tries = u.off, min(u.tries, 1)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// where asks the registry how much of the upload it has. A registry that does not know begins anew.
func (u *upload) where(ctx context.Context) error {
	s := u.s
	if s == nil {
		return nil
	}
	u.s = nil
	req, err := u.to(ctx, http.MethodGet, s.at, nil, nil)
	if err != nil {
		return err
	}
	resp, err := u.p.k.pick(http.MethodGet).Do(req)
	if err != nil {
		return nil // tells itself again when the next upload begins
	}
	defer resp.Body.Close()
	end, ok := strings.CutPrefix(resp.Header.Get("Range"), "0-")
	n, err := strconv.ParseInt(end, 10, 64)
	if resp.StatusCode != http.StatusNoContent || !ok || err != nil || n <= 0 || u.src.Size >= 0 && n >= u.src.Size {
		return nil // "0-0" is nothing or one byte: not worth the doubt
	}
	if err := s.move(u.p, resp, false); err != nil {
		return err
	}
	u.s, u.off = s, n+1
	return nil
}

// to makes a request to wherever the upload lives; our credentials go to the registry's own origin only.
func (u *upload) to(ctx context.Context, method string, at *url.URL, h http.Header, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "registry %s: push: bad upload location", u.p.ref.Domain)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if n := req.Header.Get("Content-Length"); n != "" {
		req.Header.Del("Content-Length")
		if req.ContentLength, err = strconv.ParseInt(n, 10, 64); err != nil {
			return nil, err
		}
		if req.ContentLength == 0 {
			req.Body = http.NoBody
		}
	}
	req.Header.Set("User-Agent", u.p.k.c.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if origin(at) == u.p.home(ctx) {
		u.p.authorize(req, u.p.pushScope(""))
	}
	return req, nil
}

// request is one PATCH, or the PUT that closes the upload under a digest. It follows what the answer says about the next place.
func (u *upload) request(ctx context.Context, method string, close digest.Digest, h http.Header, b *sending) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	at := *u.s.at
	if close != "" {
		if at.RawQuery != "" {
			at.RawQuery += "&"
		}
		at.RawQuery += "digest=" + url.QueryEscape(close.String())
	}
	var body io.Reader
	if b != nil {
		b.guard(cancel)
		defer b.stop()
		body = b
	}
	req, err := u.to(ctx, method, &at, h, body)
	if err != nil {
		return err
	}
	resp, err := u.p.k.pick(method).Do(req)
	if err != nil {
		return u.broke(ctx, at.Host, b, err)
	}
	defer resp.Body.Close()
	if b != nil && b.failure() != nil {
		return b.failure()
	}
	return u.judge(ctx, resp, method, b)
}

// broke tells apart our own source, the clock and the connection.
func (u *upload) broke(ctx context.Context, host string, b *sending, err error) error {
	if b != nil && b.failure() != nil {
		return b.failure()
	}
	if errors.Is(context.Cause(ctx), errSlow) {
		return errdef.New(errdef.Unavailable, "registry %s: push: %w", host, errSlow)
	}
	return unreachable(ctx, host, err)
}

// judge reads the answer to a PATCH or PUT.
func (u *upload) judge(ctx context.Context, resp *http.Response, method string, b *sending) error {
	switch code := resp.StatusCode; {
	case method == http.MethodPut && (code == http.StatusCreated || code == http.StatusNoContent):
		return nil
	case method == http.MethodPatch && (code == http.StatusAccepted || code == http.StatusNoContent):
		if b != nil && !b.ended() {
			return errdef.New(errdef.DataLoss, "registry %s: push: it answered before it had the blob", resp.Request.URL.Host)
		}
		return u.s.move(u.p, resp, false)
	case code == http.StatusTemporaryRedirect, code == http.StatusPermanentRedirect:
		if err := u.s.move(u.p, resp, true); err != nil {
			return err
		}
		return errAgain
	case code == http.StatusUnauthorized && origin(resp.Request.URL) == u.p.home(ctx) && u.moves < 2:
		again, err := u.p.learn(ctx, resp, u.p.pushScope(""))
		if err != nil {
			return err
		}
		if again {
			return errAgain
		}
	case code == http.StatusRequestedRangeNotSatisfiable, code == http.StatusNotFound && u.off > 0:
		return retryError{u.p.statusError(resp, "push"), 0}
	case transient(code):
		wait, err := u.p.k.retryAfter(resp)
		if err != nil {
			return err
		}
		return retryError{u.p.statusError(resp, "push"), wait}
	}
	return u.p.statusError(resp, "push")
}
