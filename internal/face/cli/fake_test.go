package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test binary be the dhow command: the tests start it as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("DHOW_TEST_MAIN") == "1" {
		os.Exit(Main(context.Background(), IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv}, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// engine is a fake engine on a unix socket: it records requests and plays one container.
type engine struct {
	t    *testing.T
	host string // unix://...
	mux  *http.ServeMux

	mu      sync.Mutex
	calls   []string          // METHOD path?query, in order
	bodies  map[string][]byte // last body of each path
	images  map[string]bool
	started chan struct{}
	exit    chan int // the container's exit code, when it ends
	attach  chan *session
}

// session is the engine's end of a hijacked connection.
type session struct {
	net.Conn
	r io.Reader
}

func (s *session) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *session) frame(stream byte, text string) {
	n := len(text)
	s.Write(append([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, text...))
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "dhowcli")
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, host: "unix://" + sock, mux: http.NewServeMux(), bodies: map[string][]byte{}, images: map[string]bool{"img": true},
		started: make(chan struct{}, 8), exit: make(chan int, 8), attach: make(chan *session, 8)}
	srv := &http.Server{Handler: http.HandlerFunc(e.serve)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close(); os.RemoveAll(dir) })
	e.container()
	return e
}

func (e *engine) serve(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if strings.HasPrefix(p, "/v1.") { // docker negotiates; we do not care
		p = p[strings.IndexByte(p[1:], '/')+1:]
	}
	r.URL.Path = p
	e.mu.Lock()
	call := r.Method + " " + p
	if r.URL.RawQuery != "" {
		call += "?" + r.URL.RawQuery
	}
	e.calls = append(e.calls, call)
	e.mu.Unlock()
	if r.Method == http.MethodPost && r.Header.Get("Upgrade") == "" {
		b, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.bodies[p] = b
		e.mu.Unlock()
	}
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	e.mux.ServeHTTP(w, r)
}

func (e *engine) json(pattern string, v any) {
	e.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(v) })
}

func (e *engine) fail(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{"message": text})
}

const fakeID = "a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1"

// container answers what run, exec and attach need.
func (e *engine) container() {
	e.mux.HandleFunc("/_ping", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "OK") })
	e.mux.HandleFunc("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Image string }
		json.Unmarshal(e.body("/containers/create"), &req)
		if name := strings.TrimSuffix(req.Image, ":latest"); !e.images[name] {
			e.fail(w, 404, "No such image: "+name+":latest")
			return
		}
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"Id":%q,"Warnings":[]}`, fakeID)
	})
	hijack := func(w http.ResponseWriter, r *http.Request) {
		kind := "application/vnd.docker.multiplexed-stream"
		if strings.Contains(r.URL.RawQuery, "tty") {
			kind = "application/vnd.docker.raw-stream"
		}
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"Tty":true`)) || bytes.Contains(e.body("/containers/create"), []byte(`"Tty":true`)) {
			kind = "application/vnd.docker.raw-stream"
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			e.t.Error(err)
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", kind)
		e.attach <- &session{Conn: c, r: rw}
	}
	e.mux.HandleFunc("POST /containers/{id}/attach", hijack)
	e.mux.HandleFunc("POST /exec/{id}/start", hijack)
	e.mux.HandleFunc("POST /containers/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case c := <-e.exit:
			fmt.Fprintf(w, `{"StatusCode":%d}`, c)
		case <-r.Context().Done():
		}
	})
	e.mux.HandleFunc("POST /containers/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(204)
		e.started <- struct{}{}
	})
	nothing := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }
	e.mux.HandleFunc("POST /containers/{id}/resize", nothing)
	e.mux.HandleFunc("POST /containers/{id}/kill", nothing)
	e.mux.HandleFunc("POST /exec/{id}/resize", nothing)
}

func (e *engine) body(path string) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bodies[path]
}

// called tells whether a call with this prefix arrived.
func (e *engine) called(prefix string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if strings.HasPrefix(c, prefix) {
			return true
		}
	}
	return false
}

// await waits until a call with this prefix arrived.
func (e *engine) await(prefix string) {
	e.t.Helper()
	for end := time.Now().Add(5 * time.Second); !e.called(prefix); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatalf("no call %s; got %q", prefix, e.calls)
		}
	}
}

// command is dhow (this test binary) pointed at the engine.
func (e *engine) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	e.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(os.Environ(), "DHOW_TEST_MAIN=1", "DHOW_HOST="+e.host, "DOCKER_CONFIG="+e.t.TempDir())
	return c
}

// result of a command that ended.
type result struct {
	stdout, stderr string
	code           int
}

func (e *engine) run(args ...string) result {
	e.t.Helper()
	c := e.command(args...)
	var out, errb bytes.Buffer
	c.Stdout, c.Stderr = &out, &errb
	err := c.Run()
	if err != nil && c.ProcessState == nil {
		e.t.Fatal(err)
	}
	return result{out.String(), errb.String(), c.ProcessState.ExitCode()}
}
