package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Section asks for the bytes from..to of a blob, and gives put what comes, in order, with the offset in the blob. It goes on where a
// connection broke. Nothing is verified: a section has no digest. NotImplemented: the registry gives no sections.
func (p *Repo) Section(ctx context.Context, blob digest.Digest, from, to int64, put func(b []byte, at int64) error) error {
	at := from
	for try, mark := 1, at; ; try++ {
		err := p.piece(ctx, blob, &at, to, put)
		if err == nil || !breaks(err) || ctx.Err() != nil {
			return err
		}
		if at-mark >= 1<<20 {
			try = 1
		}
		if mark = at; try >= p.k.c.Attempts {
			return err
		}
		if err := p.k.pause(ctx, try, 0); err != nil {
			return err
		}
	}
}

// piece asks for what is left of a section, in one request.
func (p *Repo) piece(ctx context.Context, blob digest.Digest, at *int64, to int64, put func(b []byte, at int64) error) error {
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", *at, to-1)}}
	resp, err := p.do(ctx, http.MethodGet, "/v2/"+p.ref.Path+"/blobs/"+blob.String(), p.scope(), h)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	want := fmt.Sprintf("bytes %d-%d/", *at, to-1)
	switch got := resp.Header.Get("Content-Range"); {
	case resp.StatusCode == http.StatusOK:
		return errdef.New(errdef.NotImplemented, "blob %s: the registry gives no sections of blobs", blob)
	case resp.StatusCode >= 400 && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable:
		return p.statusError(resp, "blob "+blob.String())
	case resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(got, want):
		return errdef.New(errdef.DataLoss, "blob %s: registry sent %s and range %q, asked for %q", blob, clean(resp.Status), clean(got), want)
	}
	body := p.k.watch(resp.Body, func() { resp.Body.Close() })
	defer body.stop()
	buf := make([]byte, 64<<10)
	for *at < to {
		n, err := body.Read(buf[:min(int64(len(buf)), to-*at)])
		if n > 0 {
			if err := put(buf[:n], *at); err != nil {
				return err
			}
			*at += int64(n)
		}
		if err == io.EOF && *at < to {
			return io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
