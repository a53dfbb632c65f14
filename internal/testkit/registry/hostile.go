package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Seen is a request as the hostile server saw it.
type Seen struct {
	Method, Path, Range, Authorization, Cookie string
	At                                         time.Time
}

// Fault answers a request in the server's place; it returns false to let the ordinary answer follow.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// Hostile is a registry that serves images correctly except where a fault is set. Faults may be changed at any time.
type Hostile struct {
	Host string // 127.0.0.1:PORT
	URL  string

	mu      sync.Mutex
	docs    map[string]Doc // repo@digest and repo:tag
	blobs   map[digest.Digest][]byte
	faults  map[string]Fault  // "manifest", "blob", "ping", "*" or a digest
	uploads map[string][]byte // by session
	seen    []Seen
	quit    chan struct{}
}

// StartHostile runs the server on loopback until the test ends.
func StartHostile(t testing.TB) *Hostile { return startHostile(t, httptest.NewServer) }

// StartHostileTLS is StartHostile with https and a certificate nobody trusts.
func StartHostileTLS(t testing.TB) *Hostile { return startHostile(t, httptest.NewTLSServer) }

func startHostile(t testing.TB, start func(http.Handler) *httptest.Server) *Hostile {
	h := &Hostile{docs: map[string]Doc{}, blobs: map[digest.Digest][]byte{}, faults: map[string]Fault{}, uploads: map[string][]byte{}, quit: make(chan struct{})}
	srv := start(h)
	srv.Config.ErrorLog = nil
	h.URL, h.Host = srv.URL, srv.URL[strings.Index(srv.URL, "//")+2:]
	t.Cleanup(func() { close(h.quit); srv.CloseClientConnections(); srv.Close() })
	return h
}

// Serve offers an image as repo:tag and returns its full reference.
func (h *Hostile) Serve(name string, img *Image) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	repo, _, _ := strings.Cut(name, ":")
	h.docs[name] = img.Top
	for _, d := range append(img.Docs, img.Top) {
		h.docs[repo+"@"+d.Desc().Digest.String()] = d
	}
	for d, b := range img.Blobs {
		h.blobs[d] = b
	}
	return h.Host + "/" + name
}

// Fault sets what goes wrong at: "manifest", "blob", "upload", "ping", one of these behind a method ("PUT upload"), "*" (every
// request) or one digest. nil makes it right again.
func (h *Hostile) Fault(at string, f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f == nil {
		delete(h.faults, at)
		return
	}
	h.faults[at] = f
}

// Seen returns the requests so far.
func (h *Hostile) Seen() []Seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Seen(nil), h.seen...)
}

// ServeHTTP answers the distribution API's requests of a pull and a push.
func (h *Hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, repo, at := split(r.URL.Path)
	h.mu.Lock()
	h.seen = append(h.seen, Seen{r.Method, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization"), r.Header.Get("Cookie"), time.Now()})
	var faults []Fault
	for _, key := range []string{"*", at, r.Method + " " + kind, kind} {
		if f := h.faults[key]; f != nil && key != "" {
			faults = append(faults, f)
		}
	}
	doc, isDoc := h.docs[repo+":"+at]
	if strings.HasPrefix(at, "sha256:") {
		doc, isDoc = h.docs[repo+"@"+at]
	}
	blob, isBlob := h.blobs[digest.Digest(at)]
	h.mu.Unlock()
	for _, f := range faults {
		if f(w, r) {
			return
		}
	}
	if h.upload(w, r, kind, repo, at) {
		return
	}
	switch {
	case kind == "ping":
		w.WriteHeader(http.StatusOK)
	case kind == "manifest" && isDoc:
		w.Header().Set("Content-Type", doc.MediaType)
		w.Header().Set("Docker-Content-Digest", doc.Desc().Digest.String())
		w.Write(doc.Raw)
	case kind == "blob" && isBlob:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":[{"code":"%s_UNKNOWN","message":"%s unknown"}]}`, strings.ToUpper(kind), kind)
	}
}

func split(path string) (kind, repo, at string) {
	path = strings.TrimPrefix(path, "/v2/")
	if i := strings.LastIndex(path, "/manifests/"); i >= 0 {
		return "manifest", path[:i], path[i+len("/manifests/"):]
	}
	if i := strings.LastIndex(path, "/blobs/uploads/"); i >= 0 {
		return "upload", path[:i], path[i+len("/blobs/uploads/"):]
	}
	if i := strings.LastIndex(path, "/blobs/"); i >= 0 {
		return "blob", path[:i], path[i+len("/blobs/"):]
	}
	if path == "" {
		return "ping", "", ""
	}
	return "other", "", path
}

// Status answers with a status, headers (pairs) and a body.
func Status(code int, body string, headers ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
		return true
	}
}

// Times applies f to the first n requests only.
func Times(n int, f Fault) Fault {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		n--
		hit := n >= 0
		mu.Unlock()
		return hit && f(w, r)
	}
}

// Body sends these bytes with a true Content-Length, or with none (chunked) when length is false.
func Body(b []byte, length bool) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if length {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		} else {
			w.(http.Flusher).Flush()
		}
		w.Write(b)
		return true
	}
}

// BreakAfter promises all of b (from the asked offset on) and cuts the connection after n bytes of it.
func BreakAfter(b []byte, n int) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		off := 0
		code := http.StatusOK
		if s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			off, _ = strconv.Atoi(strings.TrimSuffix(s, "-"))
			code = http.StatusPartialContent
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(b)-1, len(b)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)-off))
		w.WriteHeader(code)
		w.Write(b[off:min(off+n, len(b))])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// Drip sends b one byte per interval until the client or the test gives up; b repeats for ever.
func (h *Hostile) Drip(b []byte, every time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.(http.Flusher).Flush()
		for i := 0; ; i++ {
			select {
			case <-r.Context().Done():
				return true
			case <-h.quit:
				return true
			case <-time.After(every):
			}
			if _, err := w.Write(b[i%len(b) : i%len(b)+1]); err != nil {
				return true
			}
			w.(http.Flusher).Flush()
		}
	}
}

// Endless sends the bytes of b again and again as fast as it goes.
func (h *Hostile) Endless(b []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for {
			select {
			case <-h.quit:
				return true
			default:
			}
			if _, err := w.Write(b); err != nil {
				return true
			}
		}
	}
}

// Silent sends no headers at all until the client or the test gives up.
func (h *Hostile) Silent() Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-r.Context().Done():
		case <-h.quit:
		}
		return true
	}
}
