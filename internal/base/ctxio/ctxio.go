// Package ctxio ends copies with a context. It owns nothing, promises that no read begins once the context is done, and must never read ahead,
// or interrupt a read that has begun.
package ctxio

import (
	"context"
	"io"
)

// Reader reads from r until ctx is done; then its error is the context's.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
