package docker

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Limits on JSON bodies.
const (
	maxBody  = 4 << 20
	maxDepth = 64
	bodyTime = 30 * time.Second
)

func tooLarge(err error) bool {
	var e *http.MaxBytesError
	return errors.As(err, &e)
}

// readBody reads a JSON body whole. Only application/json is taken: what a web page can send without asking is not.
func (c *call) readBody() error {
	if c.r.ContentLength == 0 {
		return nil
	}
	rc := http.NewResponseController(c.w.ResponseWriter)
	rc.SetReadDeadline(time.Now().Add(bodyTime)) // not supported by test recorders; then there is nothing to bound
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	rc.SetReadDeadline(time.Time{})
	if tooLarge(err) {
		return errdef.New(errdef.InvalidArgument, "request body is larger than %d bytes: %w", maxBody, err)
	}
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "read request body: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	if err := checkType(c.r.Header.Values("Content-Type")); err != nil {
		return err
	}
	if err := checkDepth(b, maxDepth); err != nil {
		return err
	}
	c.body = b
	return nil
}

func checkType(values []string) error {
	if len(values) != 1 {
		return errdef.New(errdef.InvalidArgument, "unsupported Content-Type header: want exactly one, application/json")
	}
	t, _, err := mime.ParseMediaType(values[0])
	switch {
	case err != nil:
		return errdef.New(errdef.InvalidArgument, "malformed Content-Type header (%s): %w", values[0], err)
	case t == "application/json":
		return nil
	case t == "text/plain", t == "application/x-www-form-urlencoded", t == "multipart/form-data":
		return errdef.New(errdef.Forbidden, "unsupported Content-Type header (%s): must be 'application/json'", t)
	}
	return errdef.New(errdef.InvalidArgument, "unsupported Content-Type header (%s): must be 'application/json'", t)
}

// checkDepth counts brackets outside strings, before anything recursive sees the text.
func checkDepth(b []byte, limit int) error {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch ch := b[i]; {
		case inString && ch == '\\':
			i++
		case ch == '"':
			inString = !inString
		case inString:
		case ch == '{' || ch == '[':
			if depth++; depth > limit {
				return errdef.New(errdef.InvalidArgument, "invalid JSON: nested deeper than %d levels", limit)
			}
		case ch == '}' || ch == ']':
			depth--
		}
	}
	return nil
}

// decode reads the body into v; the whole body must be one JSON value. An absent body is an error unless optional.
func (c *call) decode(v any, optional bool) error {
	if len(c.body) == 0 {
		if optional {
			return nil
		}
		return errdef.New(errdef.InvalidArgument, "invalid JSON: the request body is empty")
	}
	if err := json.Unmarshal(c.body, v); err != nil {
		return errdef.New(errdef.InvalidArgument, "invalid JSON: %w", err)
	}
	return nil
}
