package docker

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// support says how much of an operation dhow does.
type support string

// The words of docs/compatibility.md.
const (
	works   support = "works"
	partly  support = "partly"
	notYet  support = "501"
	noSwarm support = "503"
	stub    support = "stub"
)

// bodyKind says what happens to a request's body before the operation runs.
type bodyKind int

const (
	noBody   bodyKind = iota // not read
	jsonBody                 // read whole, bounded, checked
)

// op is one operation of the API: a row of the route table.
type op struct {
	method string
	path   string // {x} is one segment, {x...} one or more
	do     func(*call) error
	body   bodyKind
	stream bool // may last for ever: ends when the engine stops
	state  support
	note   string // for docs/compatibility.md: what is missing
}

// route is an op with its path split.
type route struct {
	op   op
	segs []string
}

// router finds operations by method and first segment.
type router map[string][]route

func newRouter(ops []op) router {
	rt := router{}
	for _, o := range ops {
		segs := strings.Split(strings.TrimPrefix(o.path, "/"), "/")
		key := o.method + " " + segs[0]
		rt[key] = append(rt[key], route{op: o, segs: segs})
	}
	return rt
}

// find returns the first operation that fits, with its parameters.
func (rt router) find(method string, segs []string) (op, map[string]string, error) {
	if len(segs) == 0 { // a version and nothing else
		return op{}, nil, errdef.New(errdef.NotFound, "page not found")
	}
	for _, r := range rt[method+" "+segs[0]] {
		if params, ok := match(r.segs, segs); ok {
			return r.op, params, nil
		}
	}
	if method == "OPTIONS" {
		return op{do: func(c *call) error { return c.empty(200, nil) }}, nil, nil
	}
	return op{}, nil, errdef.New(errdef.NotFound, "page not found")
}

// match compares a pattern with a path; at most one element of the pattern takes several segments.
func match(pattern, path []string) (map[string]string, bool) {
	if len(path) < len(pattern) {
		return nil, false
	}
	params := map[string]string{}
	extra := len(path) - len(pattern)
	j := 0
	for _, p := range pattern {
		name, isParam := strings.CutPrefix(p, "{")
		name = strings.TrimSuffix(name, "}")
		many, isMany := strings.CutSuffix(name, "...")
		switch {
		case isParam && isMany:
			params[many] = strings.Join(path[j:j+extra+1], "/")
			j += extra
			extra = 0
		case isParam:
			params[name] = path[j]
		case p != path[j]:
			return nil, false
		}
		j++
	}
	return params, j == len(path)
}

// splitPath decodes a request's path into segments, once. What could mean another path to another reader is refused: empty,
// "." and ".." segments, control characters, invalid UTF-8. An encoded slash separates like a plain one, because some
// clients send image names that way; operations that take one segment then do not match.
func splitPath(u *url.URL) ([]string, error) {
	p := strings.TrimPrefix(u.Path, "/")
	if p == "networks/" || strings.HasPrefix(p, "v") && strings.HasSuffix(p, "/networks/") && strings.Count(p, "/") == 2 {
		p = strings.TrimSuffix(p, "/") // the one alias that clients use
	}
	if len(p) > 2048 || !utf8.ValidString(p) {
		return nil, errdef.New(errdef.InvalidArgument, "invalid request path: too long or not UTF-8")
	}
	segs := strings.Split(p, "/")
	for _, s := range segs {
		if s == "" || s == "." || s == ".." {
			return nil, errdef.New(errdef.InvalidArgument, "invalid request path %q: empty, \".\" and \"..\" elements are refused", u.Path)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' }) {
			return nil, errdef.New(errdef.InvalidArgument, "invalid request path %q: control characters are refused", u.Path)
		}
	}
	return segs, nil
}
