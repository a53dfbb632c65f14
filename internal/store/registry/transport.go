package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// transports gives every host its own connections, so that what is configured for one (a certificate of ours, authorities, no
// verification) is never used for another that it redirects to.
type transports struct {
	k      *Client
	answer time.Duration // longest wait for an answer's headers

	mu     sync.Mutex
	byHost map[string]hostTransport
}

// hostTransport is what one host is spoken to with. certs is how its folders of certificates looked, which count from the next request on
// when somebody changes them.
type hostTransport struct {
	*http.Transport
	certs string
}

// maxHosts bounds how many are kept: beyond it the idle ones begin anew.
const maxHosts = 64

func (t *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	tr, err := t.to(strings.ToLower(req.URL.Host))
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	return tr.RoundTrip(req)
}

// CloseIdleConnections is called by http.Client's method of that name.
func (t *transports) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.byHost {
		tr.CloseIdleConnections()
	}
}

func (t *transports) to(host string) (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	certs := t.k.certsOf(host)
	if tr, ok := t.byHost[host]; ok && tr.certs == certs {
		return tr.Transport, nil
	} else if ok {
		tr.CloseIdleConnections()
		delete(t.byHost, host)
	}
	c, err := t.k.tlsFor(host)
	if err != nil {
		return nil, err
	}
	if len(t.byHost) >= maxHosts {
		for h, tr := range t.byHost {
			tr.CloseIdleConnections()
			delete(t.byHost, h)
		}
	}
	d := &net.Dialer{Timeout: 10 * time.Second}
	tr := &http.Transport{
		Proxy: t.k.proxy, DialContext: d.DialContext, TLSClientConfig: c, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: t.answer, MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: 60 * time.Second, DisableCompression: true,
	}
	t.byHost[host] = hostTransport{tr, certs}
	return tr, nil
}

// certsOf tells how a host's folders of certificates look: names, sizes and times of their files.
func (k *Client) certsOf(host string) string {
	var look strings.Builder
	for _, dir := range k.certDirs(host) {
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if st, err := os.Stat(filepath.Join(dir, f.Name())); err == nil {
				fmt.Fprintf(&look, "%s/%s %d %d\n", dir, f.Name(), st.Size(), st.ModTime().UnixNano())
			}
		}
	}
	return look.String()
}

// certDirs are where certificates of a host may lie.
func (k *Client) certDirs(host string) (dirs []string) {
	if strings.ContainsAny(host, "/\x00") || strings.HasPrefix(host, ".") {
		return nil
	}
	for _, dir := range k.c.CertDirs {
		dirs = append(dirs, filepath.Join(dir, host))
	}
	return dirs
}

// proxy asks the configuration. What a proxy would read it never gets: credentials go to an https registry through its tunnel only.
func (k *Client) proxy(req *http.Request) (*url.URL, error) {
	if k.c.Proxy == nil {
		return nil, nil
	}
	u, err := k.c.Proxy(req)
	if u != nil && err == nil && req.URL.Scheme == "http" && req.Header.Get("Authorization") != "" {
		return nil, errdef.New(errdef.Forbidden, "refusing to send the credentials of registry %s through the proxy %s in the clear: name the host in NO_PROXY", req.URL.Host, u.Host)
	}
	return u, err
}

// tlsFor is what TLS with host means. Hosts that may be insecure are not verified, unless they have authorities of their own.
func (k *Client) tlsFor(host string) (*tls.Config, error) {
	c := &tls.Config{RootCAs: k.c.RootCAs, MinVersion: tls.VersionTLS12, InsecureSkipVerify: k.insecure(host)} // insecure hosts only
	for _, dir := range k.certDirs(host) {
		files, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errdef.New(errdef.System, "certificates of registry %s: %w", host, err)
		}
		return c, addCerts(c, dir, files)
	}
	return c, nil
}

// addCerts reads a registry's folder: *.crt are authorities beside the system's, NAME.cert and NAME.key what we show.
func addCerts(c *tls.Config, dir string, files []os.DirEntry) error {
	has := func(name string) bool {
		return slices.ContainsFunc(files, func(f os.DirEntry) bool { return f.Name() == name })
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		base, ext := strings.TrimSuffix(path, filepath.Ext(path)), filepath.Ext(path)
		switch ext {
		case ".crt":
			pem, err := os.ReadFile(path)
			if err != nil {
				return errdef.New(errdef.System, "certificate authority: %w", err)
			}
			if c.RootCAs == nil {
				if c.RootCAs, err = x509.SystemCertPool(); err != nil {
					c.RootCAs = x509.NewCertPool()
				}
			} else {
				c.RootCAs = c.RootCAs.Clone()
			}
			if !c.RootCAs.AppendCertsFromPEM(pem) {
				return errdef.New(errdef.InvalidArgument, "certificate authority %s: it has no certificate in PEM", path)
			}
			c.InsecureSkipVerify = false // who gives an authority wants it asked
		case ".cert":
			if !has(filepath.Base(base) + ".key") {
				return errdef.New(errdef.InvalidArgument, "client certificate %s: its key %s.key is missing (authorities are named *.crt)", path, base)
			}
			pair, err := tls.LoadX509KeyPair(path, base+".key")
			if err != nil {
				return errdef.New(errdef.InvalidArgument, "client certificate %s: %w", path, err)
			}
			c.Certificates = append(c.Certificates, pair)
		case ".key":
			if !has(filepath.Base(base) + ".cert") {
				return errdef.New(errdef.InvalidArgument, "client key %s: its certificate %s.cert is missing", path, base)
			}
		}
	}
	return nil
}
