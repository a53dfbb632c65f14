package registry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	"github.com/dhow-containers/dhow/internal/store/registry"
	kit "github.com/dhow-containers/dhow/internal/testkit/registry"
)

// pair makes a certificate for 127.0.0.1 that is its own authority, as NAME.CERT and NAME.key in dir.
func pair(t *testing.T, dir, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cert}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, cert), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, filepath.Join(dir, key), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}

// TestCertificates: docker-registry with TLS and client certificates, and folders of certificates that are right, wrong and half.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir, "server.pem", "server.key")
	pair(t, dir, "client.pem", "client.key")
	pair(t, dir, "stranger.pem", "stranger.key")
	srv := kit.Start(t, kit.WithTLS(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), filepath.Join(dir, "client.pem")))
	// How a refused client hears of it (an alert, a broken pipe) is a matter of timing.
	for name, c := range map[string]struct {
		files map[string]string // in the registry's folder -> of dir
		want  string            // "" is success
	}{
		"authority and client": {map[string]string{"ca.crt": "server.pem", "me.cert": "client.pem", "me.key": "client.key"}, ""},
		"no client":            {map[string]string{"ca.crt": "server.pem"}, "registry "},
		"wrong authority":      {map[string]string{"ca.crt": "stranger.pem", "me.cert": "client.pem", "me.key": "client.key"}, "unknown authority"},
		"wrong client":         {map[string]string{"ca.crt": "server.pem", "me.cert": "stranger.pem", "me.key": "stranger.key"}, "registry "},
		"no key":               {map[string]string{"me.cert": "client.pem"}, "me.key is missing"},
		"no certificate":       {map[string]string{"me.key": "client.key"}, "me.cert is missing"},
		"key of another":       {map[string]string{"me.cert": "client.pem", "me.key": "stranger.key"}, "does not match"},
		"no PEM":               {map[string]string{"ca.crt": "../empty"}, "no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			certs := t.TempDir()
			write(t, filepath.Join(filepath.Dir(dir), "empty"), []byte("nothing\n"))
			for to, from := range c.files {
				move(t, filepath.Join(dir, from), filepath.Join(certs, srv.Host, to))
			}
			k := registry.New(registry.Config{CertDirs: []string{"/nonexistent", certs}, Attempts: 1, Stall: 2 * time.Second})
			_, err := repo(t, k, srv.Host+"/app:1", nil).Begin(context.Background(), "", "")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !slices.ContainsFunc(strings.Split(c.want, "|"), func(w string) bool { return strings.Contains(err.Error(), w) })) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestCertificatesLater: certificates that are put into a registry's folder, or changed there, count at once: nothing is restarted.
func TestCertificatesLater(t *testing.T) {
	dir, certs := t.TempDir(), t.TempDir()
	pair(t, dir, "server.pem", "server.key")
	pair(t, dir, "client.pem", "client.key")
	pair(t, dir, "stranger.pem", "stranger.key")
	srv := kit.Start(t, kit.WithTLS(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), filepath.Join(dir, "client.pem")))
	k := registry.New(registry.Config{CertDirs: []string{certs}, Attempts: 5, BackOff: time.Millisecond, Stall: 2 * time.Second})
	try := func() error {
		_, err := repo(t, k, srv.Host+"/app:1", nil).Begin(context.Background(), "", "")
		return err
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("without any: %v", err)
	}
	for _, f := range [][2]string{{"stranger.pem", "ca.crt"}, {"client.pem", "me.cert"}, {"client.key", "me.key"}} {
		move(t, filepath.Join(dir, f[0]), filepath.Join(certs, srv.Host, f[1]))
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with a wrong authority: %v", err)
	}
	move(t, filepath.Join(dir, "server.pem"), filepath.Join(certs, srv.Host, "ca.crt"))
	if err := try(); err != nil {
		t.Errorf("with the right ones: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(certs, srv.Host)); err != nil {
		t.Fatal(err)
	}
	if err := try(); err == nil {
		t.Error("a client certificate that was taken away is still shown")
	}
}

// TestInsecureStaysHome: what is forgiven one host is not forgiven the host that it redirects to.
func TestInsecureStaysHome(t *testing.T) {
	img := image(t)
	h, far := kit.StartHostile(t), httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(far.Close)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(far.URL, "https://"))
	elsewhere := "https://dhow-test.invalid:" + port + "/"
	h.Fault(img.Manifest.Layers[0].Digest.String(), kit.Status(302, "", "Location", elsewhere))
	proxied := make(chan string, 10)
	k := registry.New(registry.Config{Attempts: 1, Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Hostname() == "dhow-test.invalid" {
			proxied <- r.URL.Host
			return url.Parse("http://" + tunnel(t, strings.TrimPrefix(far.URL, "https://")))
		}
		return nil, nil
	}})
	err := readBlob(t, repo(t, k, h.Serve("app:1", img), nil), img.Manifest.Layers[0])
	if err == nil || !strings.Contains(err.Error(), "certificate") || len(proxied) == 0 {
		t.Error("a certificate that nobody trusts was taken, or nothing was proved:", err)
	}
}

// tunnel is a proxy whose CONNECT leads to one address.
func tunnel(t *testing.T, to string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 4096))
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer up.Close()
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { up.(*net.TCPConn).ReadFrom(c); up.Close() }()
				c.(*net.TCPConn).ReadFrom(up)
			}()
		}
	}()
	return l.Addr().String()
}

// TestProxy: a proxy sees plain requests without credentials only.
func TestProxy(t *testing.T) {
	img := image(t)
	h := kit.StartHostile(t)
	full := h.Serve("app:1", img)
	seen := []string{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization")+r.Header.Get("Proxy-Authorization"))
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	k := registry.New(registry.Config{Attempts: 1, Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme == "https" {
			return nil, nil
		}
		return url.Parse(proxy.URL)
	}})
	if _, _, err := repo(t, k, full, nil).Manifest(context.Background(), ""); err != nil || len(seen) == 0 {
		t.Fatal(err, seen)
	}
	h.Fault("*", needs(`Basic realm="r"`, basic))
	_, _, err := repo(t, k, full, auth()).Manifest(context.Background(), "")
	if err == nil || !strings.Contains(err.Error(), "in the clear") || strings.Contains(err.Error(), secret) {
		t.Error(err)
	}
	for _, s := range seen {
		if s != "" {
			t.Error("the proxy got", s)
		}
	}
}

// TestMirrors: asked first, without credentials, and left when they do not have it.
func TestMirrors(t *testing.T) {
	a, b := kit.StartHostile(t), kit.StartHostile(t)
	k := registry.New(registry.Config{Mirrors: []string{a.URL, b.URL}, BackOff: time.Millisecond})
	r, err := ref.Parse("busybox")
	if err != nil {
		t.Fatal(err)
	}
	a.Fault("*", needs(`Basic realm="r"`, basic))
	img := image(t)
	b.Serve("library/busybox:latest", img)
	from := k.Sources(r, auth())
	if len(from) != 3 || from[0].Mirror() != a.URL || from[2].Mirror() != "" {
		t.Fatal(from)
	}
	if _, _, err := from[0].Manifest(context.Background(), ""); err == nil {
		t.Error("the first mirror answered without credentials")
	}
	if _, d, err := from[1].Manifest(context.Background(), ""); err != nil || d.Digest != img.Top.Desc().Digest {
		t.Error(d, err)
	}
	clean(t, a)
	other, _ := ref.Parse("ghcr.io/x/y")
	if len(k.Sources(other, nil)) != 1 {
		t.Error("a mirror for another registry than docker.io")
	}
	for _, bad := range []string{"", "mirror.example", "ftp://m", "https://u:p@m", "https://m/v2/x", "https://m?x"} {
		if registry.CheckMirror(bad) == nil {
			t.Errorf("mirror %q was taken", bad)
		}
	}
}

// TestTags: pages are followed at the same host only, and end.
func TestTags(t *testing.T) {
	page := func(tags, link string) kit.Fault {
		return kit.Status(200, `{"tags":[`+tags+`]}`, "Link", link)
	}
	for name, c := range map[string]struct {
		f    func(h *kit.Hostile)
		want []string
		kind errdef.Kind
	}{
		"two pages": {func(h *kit.Hostile) {
			h.Fault("other", func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Query().Get("last") == "" {
					return page(`"a","b"`, `</v2/app/tags/list?last=b&n=2>; rel="next"`)(w, r)
				}
				return page(`"c"`, "")(w, r)
			})
		}, []string{"a", "b", "c"}, 0},
		"round and round": {func(h *kit.Hostile) { h.Fault("other", page(`"a"`, `</v2/app/tags/list?last=a>; rel=next`)) }, []string{"a", "a"}, 0},
		"none":            {func(h *kit.Hostile) { h.Fault("other", kit.Status(200, `{"tags":null}`)) }, nil, 0},
		"elsewhere":       {func(h *kit.Hostile) { h.Fault("other", page(`"a"`, `<http://192.0.2.1/v2/>; rel="next"`)) }, nil, errdef.Forbidden},
		"bad tag":         {func(h *kit.Hostile) { h.Fault("other", page(`"\u001b]0;x"`, "")) }, nil, errdef.DataLoss},
		"tag with digest": {func(h *kit.Hostile) { h.Fault("other", page(`"a@sha256:`+strings.Repeat("a", 64)+`"`, "")) }, nil, errdef.DataLoss},
		"endless":         {func(h *kit.Hostile) { h.Fault("other", h.Endless([]byte(`{"tags":["a",`+strings.Repeat(" ", 4096)))) }, nil, errdef.DataLoss},
		"no JSON":         {func(h *kit.Hostile) { h.Fault("other", kit.Status(200, `<html>`)) }, nil, errdef.DataLoss},
		"unknown":         {func(h *kit.Hostile) {}, nil, errdef.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			h := kit.StartHostile(t)
			c.f(h)
			got, err := repo(t, client(), h.Host+"/app", nil).Tags(context.Background())
			if c.kind == 0 && (err != nil || !slices.Equal(got, c.want)) || c.kind != 0 && !errdef.Is(err, c.kind) {
				t.Errorf("got %q %v, want %q", got, err, c.want)
			}
			if err != nil && strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%q", err)
			}
		})
	}
	h := kit.StartHostile(t)
	n := 0
	h.Fault("other", func(w http.ResponseWriter, r *http.Request) bool {
		n++
		return page(strings.TrimSuffix(strings.Repeat(`"a",`, 1000), ","), fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, n))(w, r)
	})
	if _, err := repo(t, client(), h.Host+"/app", nil).Tags(context.Background()); !errdef.Is(err, errdef.DataLoss) || n > 20 {
		t.Error("pages without end:", n, err)
	}
}

func TestSearch(t *testing.T) {
	h := kit.StartHostile(t)
	if _, err := client().Search(context.Background(), h.Host, "boat", 5, nil); !errdef.Is(err, errdef.NotImplemented) {
		t.Error(err)
	}
	h.Fault("other", kit.Status(200, `{"num_results":2,"results":[{"name":"sloop","description":"one mast","star_count":3,"is_official":true},{"name":"ketch"}]}`))
	got, err := client().Search(context.Background(), h.Host, "boat", 1, nil)
	if want := []registry.Hit{{Name: "sloop", Description: "one mast", Stars: 3, Official: true}}; err != nil || !slices.Equal(got, want) {
		t.Error(got, err)
	}
}
