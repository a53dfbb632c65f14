package registry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Server is a running docker-registry.
type Server struct {
	Host           string // 127.0.0.1:PORT
	Dir            string // its storage
	User, Password string // set with WithAuth

	env []string // of the program
}

// Option changes how Start configures the registry.
type Option func(t testing.TB, dir string, s *Server) (yaml string)

// WithAuth protects the registry by htpasswd.
func WithAuth(t testing.TB, dir string, s *Server) string {
	t.Helper()
	s.User, s.Password = "sailor", "lateen-4711"

	line := s.User + ":" + passwordHash + "\n"
	p := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(p, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", p)
}

// Over has the registry serve what is in a folder.
func Over(storage string) Option {
	return func(_ testing.TB, _ string, s *Server) string { s.Dir = storage; return "" }
}

// WithTLS makes the registry speak https, to those only who show a certificate of the authority clients ("" for to all). Push does
// not know such a registry.
func WithTLS(cert, key, clients string) Option {
	return func(t testing.TB, dir string, s *Server) string {
		s.env = append(os.Environ(), "REGISTRY_HTTP_TLS_CERTIFICATE="+cert, "REGISTRY_HTTP_TLS_KEY="+key)
		if clients != "" {
			s.env = append(s.env, "REGISTRY_HTTP_TLS_CLIENTCAS=["+clients+"]")
		}
		return ""
	}
}

// Start runs Debian's docker-registry on a free port of 127.0.0.1 with an empty storage, and waits until it answers. It ends
// with the test. The test is skipped when the package is not installed.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skipf("docker-registry is not installed: %v", err)
	}
	dir := t.TempDir()
	s := &Server{Host: freePort(t), Dir: filepath.Join(dir, "storage")}
	yaml := ""
	for _, o := range options {
		yaml += o(t, dir, s)
	}
	conf := Config(t, dir, s.Dir, s.Host, yaml)
	var out bytes.Buffer
	cmd := exec.Command(program, "serve", conf)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() { // ends with the registry; the death signal is that of the thread, which must live as long
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		if started <- err; err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.Host); err == nil {
			c.Close()
			return s
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry ended: %s", out.String())
		default:
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("docker-registry does not answer")
		}
	}
}

// Config writes a docker-registry's configuration into dir and returns the file's name.
func Config(t testing.TB, dir, storage, addr string, more ...string) string {
	t.Helper()
	yaml := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n", storage, addr)
	conf := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(conf, []byte(yaml+strings.Join(more, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Ref is the full name of an image in this registry.
func (s *Server) Ref(name string) string { return s.Host + "/" + name }

// Push uploads an image under repository:tag and returns its full reference.
func (s *Server) Push(t testing.TB, name string, img *Image) string {
	t.Helper()
	repo, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	for d, b := range img.Blobs {
		s.pushBlob(t, repo, d, b)
	}
	for _, doc := range img.Docs {
		s.pushDoc(t, repo, doc.Desc().Digest.String(), doc)
	}
	s.pushDoc(t, repo, tag, img.Top)
	return s.Ref(repo + ":" + tag)
}

func (s *Server) pushBlob(t testing.TB, repo string, d digest.Digest, b []byte) {
	t.Helper()
	resp := s.send(t, http.MethodPost, "http://"+s.Host+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	u = resp.Request.URL.ResolveReference(u)
	q := u.Query()
	q.Set("digest", d.String())
	u.RawQuery = q.Encode()
	s.send(t, http.MethodPut, u.String(), "application/octet-stream", b, http.StatusCreated)
}

func (s *Server) pushDoc(t testing.TB, repo, at string, d Doc) {
	t.Helper()
	s.send(t, http.MethodPut, "http://"+s.Host+"/v2/"+repo+"/manifests/"+at, d.MediaType, d.Raw, http.StatusCreated)
}

func (s *Server) send(t testing.TB, method, url, contentType string, body []byte, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if s.User != "" {
		req.SetBasicAuth(s.User, s.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return resp
}

// passwordHash is bcrypt of WithAuth's password, made once; docker-registry accepts bcrypt only.
const passwordHash = "$2y$05$abcdefghijklmnopqrstuut42qqSLi8rU8rnyZm.c9W2DBxuS2UFW"
