package docker

import (
	"errors"
	"net/http"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/common"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// statusGone is what is logged and answered when the client gave up.
const statusGone = 499

// statusOf translates an error's kind.
func statusOf(err error) int {
	switch errdef.KindOf(err) {
	case errdef.NotFound:
		return http.StatusNotFound
	case errdef.InvalidArgument:
		return http.StatusBadRequest
	case errdef.Conflict:
		return http.StatusConflict
	case errdef.Unauthorized:
		return http.StatusUnauthorized
	case errdef.Forbidden:
		return http.StatusForbidden
	case errdef.NotModified:
		return http.StatusNotModified
	case errdef.NotImplemented:
		return http.StatusNotImplemented
	case errdef.Unavailable:
		return http.StatusServiceUnavailable
	case errdef.Cancelled:
		return statusGone
	}
	return http.StatusInternalServerError // System, DataLoss
}

// fail answers an error, or, when the answer had begun, cuts the connection so that it cannot be taken for complete.
func (c *call) fail(err error) {
	status := statusOf(err)
	if tooLarge(err) {
		status = http.StatusRequestEntityTooLarge
		c.w.Header().Set("Connection", "close")
	}
	gone := c.r.Context().Err() != nil || errors.Is(err, syscall.EPIPE) // who asked; that is no failure
	if status >= 500 && status != http.StatusNotImplemented && status != http.StatusServiceUnavailable && !gone {
		c.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	}
	if c.w.hijacked {
		return
	}
	if c.w.wrote {
		panic(http.ErrAbortHandler)
	}
	h := c.w.Header()
	h.Del("Content-Length")
	if status == http.StatusNotModified {
		c.w.WriteHeader(status)
		return
	}
	if old, ok := plainError(err); ok {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		c.w.WriteHeader(status)
		c.w.Write([]byte(old + "\n"))
		return
	}
	if e := c.json(status, common.ErrorResponse{Message: strings.ToValidUTF8(err.Error(), "\uFFFD")}); e != nil {
		c.w.WriteHeader(status)
	}
}
