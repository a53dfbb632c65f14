// Package docker is the Docker Engine API over HTTP/1.1.
//
// It owns the wire: routes, API versions and their shapes, status codes, hijacked connections, the framing of streams, and
// the socket itself. It promises that every error of the engine becomes Docker's JSON error with the status of its errdef
// kind, that no request makes it hold more than a few MiB, and that a panic in one request ends that request only. It must
// never decide anything about a container, image, network or volume: it translates for engine/api.
package docker

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// Config makes a handler.
type Config struct {
	Engine  api.Engine
	Version string       // of dhow; shown in the Server header and in /version
	Commit  string       // of the source; shown in /version
	Log     *slog.Logger // nil means slog.Default()
	// Hosts are the names a Host header may carry on TCP, besides localhost and IP addresses.
	Hosts []string
}

// server answers requests; it is immutable once made.
type server struct {
	engine  api.Engine
	log     *slog.Logger
	router  router
	hosts   []string
	version string
	commit  string
}

// New returns the handler of the whole API.
func New(c Config) http.Handler { return newServer(c) }

func newServer(c Config) *server {
	s := &server{engine: c.Engine, log: c.Log, hosts: c.Hosts, version: c.Version, commit: c.Commit, router: newRouter(routes())}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.version == "" {
		s.version = "devel"
	}
	return s
}

// ServeHTTP finds the operation, runs it, and answers its error.
func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &reply{ResponseWriter: rw}
	c := &call{server: s, w: w, r: r, ctx: r.Context(), minor: maxMinor}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.log.Error("panic in request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		if !w.wrote {
			c.fail(errdef.New(errdef.System, "internal error: the request could not be handled; see the engine's log"))
			return
		}
		if !w.hijacked {
			panic(http.ErrAbortHandler) // a broken answer must not look like a complete one
		}
	}()
	h := w.Header()
	h.Set("Server", "Docker/"+s.version+" (linux)")
	h.Set("Api-Version", apiVersion(maxMinor))
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
	if len(r.TransferEncoding) > 0 {
		// net/http accepts a chunked request that also has a Content-Length and hides the latter: whatever a peer thought the
		// length was, nothing behind this request is read as another one.
		h.Set("Connection", "close")
	}
	if err := s.serve(c); err != nil {
		c.fail(err)
	}
}

func (s *server) serve(c *call) error {
	if err := s.checkOrigin(c.r); err != nil {
		return err
	}
	segs, err := splitPath(c.r.URL)
	if err != nil {
		return err
	}
	if segs, err = c.negotiate(segs); err != nil {
		return err
	}
	o, params, err := s.router.find(c.r.Method, segs)
	if err != nil {
		return err
	}
	c.params = params
	if o.body == jsonBody {
		if err := c.readBody(); err != nil {
			return err
		}
	}
	if o.stream {
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		if stop, ok := c.ctx.Value(stopKey{}).(context.Context); ok {
			defer context.AfterFunc(stop, cancel)()
		}
		c.ctx = ctx
	}
	return o.do(c)
}

// reply remembers whether an answer was begun.
type reply struct {
	http.ResponseWriter
	wrote, hijacked bool
}

func (w *reply) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *reply) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap serves http.ResponseController.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flush sends what was written so far, headers included.
func (w *reply) flush() error {
	w.wrote = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}
