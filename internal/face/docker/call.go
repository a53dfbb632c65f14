package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// call is one request on its way through an operation.
type call struct {
	*server
	w      *reply
	r      *http.Request
	ctx    context.Context
	params map[string]string
	minor  int // of the API version: 1.minor
	body   []byte
	query  url.Values
}

func (c *call) param(name string) string { return c.params[name] }

// arg returns a query parameter, "" when absent.
func (c *call) arg(name string) string {
	if c.query == nil {
		c.query = c.r.URL.Query()
	}
	return c.query.Get(name)
}

// has reports whether a query parameter is present at all.
func (c *call) has(name string) bool {
	c.arg(name)
	return c.query.Has(name)
}

// flag reads a boolean as Docker does: absent, 0, no, false and none are false, anything else is true.
func (c *call) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(c.arg(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// integer reads a number, def when absent.
func (c *call) integer(name string, def int) (int, error) {
	s := c.arg(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errdef.New(errdef.InvalidArgument, "invalid value for %s: %q is not a number", name, s)
	}
	return n, nil
}

// size reads the h and w of a terminal.
func (c *call) size() (h, w uint, err error) {
	var v [2]uint
	for i, name := range []string{"h", "w"} {
		n, err := strconv.ParseUint(c.arg(name), 10, 16)
		if err != nil {
			return 0, 0, errdef.New(errdef.InvalidArgument, "invalid resize %s: %q is not a number from 0 to 65535", name, c.arg(name))
		}
		v[i] = uint(n)
	}
	return v[0], v[1], nil
}

// refuse answers NotImplemented for the first of the named parameters that asks for something.
func (c *call) refuse(names ...string) error {
	for _, n := range names {
		if c.flag(n) {
			return errdef.New(errdef.NotImplemented, "parameter %s of %s %s is not implemented by this version of dhow", n, c.r.Method, c.r.URL.Path)
		}
	}
	return nil
}

// json answers v with a status.
func (c *call) json(status int, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return errdef.New(errdef.System, "encode answer: %w", err)
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	c.w.WriteHeader(status)
	c.w.Write(b.Bytes()) // an error here means that the client is gone
	return nil
}

// done answers v with 200 unless err is set.
func (c *call) done(v any, err error) error {
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}

// empty answers a bare status unless err is set.
func (c *call) empty(status int, err error) error {
	if err != nil {
		return err
	}
	c.w.WriteHeader(status)
	return nil
}

// list turns a nil list into an empty one, so that it is [] in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
