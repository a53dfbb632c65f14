// Package registry owns the conversation with image registries (OCI distribution 1.1, Docker registry v2).
//
// It promises that bytes it hands out as a blob or manifest have the digest and size that were asked for, that credentials go
// to the exact scheme, host and port they belong to and to that registry's token server (https, or the same host) only, that
// plain http is spoken to loopback and configured hosts only, and that nothing a server does makes it wait, read or retry
// without bound. It must never follow the urls of a foreign layer, keep cookies, or print a secret.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

// Auth are the credentials of one registry, in the terms of docker's config.json. It prints as ***.
type Auth struct {
	Username, Password string
	IdentityToken      string // an OAuth2 refresh token
	RegistryToken      string // a bearer token to send as it is
}

// String hides the secret.
func (a *Auth) String() string { return "***" }

// GoString hides the secret from %#v as well.
func (a *Auth) GoString() string { return "***" }

func (a *Auth) empty() bool {
	return a == nil || a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == ""
}

// Config tunes a Client. The zero value is right for an engine.
type Config struct {
	Insecure  []string       // hosts (host, host:port or CIDR) that may be spoken to by http or with an unverified certificate
	RootCAs   *x509.CertPool // nil: the system's
	CertDirs  []string       // folders with a folder HOST[:PORT] of *.crt, *.cert and *.key for each registry; the first that has it counts
	Mirrors   []string       // scheme://host[:port] that are asked before docker.io
	Proxy     func(*http.Request) (*url.URL, error)
	UserAgent string

	Attempts   int           // per request, default 5
	BackOff    time.Duration // before the second attempt, doubled each time, default 500 ms
	MaxWait    time.Duration // cap of one wait, default 60 s; a server that asks for more is given up on
	Stall      time.Duration // longest silence within a body or before its headers, default 30 s
	Finish     time.Duration // longest wait for a registry to say that an upload is stored, default 5 min
	MinRate    int64         // bytes per second a body must average over every Stall, default 512
	MaxErrBody int64         // of an error answer, default 4 KiB

	Split Split
}

// Client speaks to any registry. It is safe for concurrent use.
type Client struct {
	c    Config
	http *http.Client
	up   *http.Client // for uploads, whose answer may take Finish

	mu      sync.Mutex
	schemes map[string]string // host to the scheme that answered
}

// New returns a Client with the defaults filled in.
func New(c Config) *Client {
	def(&c.Attempts, 5)
	def(&c.BackOff, 500*time.Millisecond)
	def(&c.MaxWait, 60*time.Second)
	def(&c.Stall, 30*time.Second)
	def(&c.Finish, 5*time.Minute)
	def(&c.MinRate, 512)
	def(&c.MaxErrBody, 4<<10)
	c.Split.defaults()
	if c.UserAgent == "" {
		c.UserAgent = "dhow"
	}
	k := &Client{c: c, schemes: map[string]string{}}
	k.http, k.up = k.client(c.Stall), k.client(c.Finish)
	return k
}

func def[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

func (k *Client) client(answer time.Duration) *http.Client {
	return &http.Client{Transport: &transports{k: k, answer: answer, byHost: map[string]hostTransport{}}, CheckRedirect: k.redirect}
}

// Rest closes the connections that nobody uses at the moment.
func (k *Client) Rest() {
	k.http.CloseIdleConnections()
	k.up.CloseIdleConnections()
}

// origin is what credentials belong to.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		if port = "443"; u.Scheme == "http" {
			port = "80"
		}
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// redirect follows at most five hops of a GET or HEAD, takes our header from any request that leaves the origin, and never
// goes from https to http nor by http to a host that may not be spoken to so.
func (k *Client) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > 5 {
		return errors.New("more than 5 redirects")
	}
	first, last := via[0], via[len(via)-1]
	if first.Method != http.MethodGet && first.Method != http.MethodHead {
		return http.ErrUseLastResponse
	}
	switch {
	case req.URL.Scheme == "https":
	case req.URL.Scheme != "http":
		return errors.New("redirect to a scheme other than https")
	case last.URL.Scheme == "https":
		return errors.New("redirect from https to http")
	case !k.insecure(req.URL.Host):
		return errors.New("redirect to http at a host that is not configured as insecure")
	}
	req.Header.Del("Referer")
	if origin(req.URL) != origin(first.URL) {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// insecure tells whether host[:port] may be spoken to by http.
func (k *Client) insecure(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	addr, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && addr.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(k.c.Insecure, func(s string) bool {
		if p, perr := netip.ParsePrefix(s); perr == nil {
			return err == nil && p.Contains(addr)
		}
		return strings.EqualFold(s, hostport) || strings.EqualFold(s, host)
	})
}

// pick returns the client for a request of this method.
func (k *Client) pick(method string) *http.Client {
	if method == http.MethodPut || method == http.MethodPatch {
		return k.up
	}
	return k.http
}

// endpoint is where the API of a registry lives.
func endpoint(domain string) string {
	if domain == "docker.io" {
		return "registry-1.docker.io"
	}
	return domain
}

// base returns scheme://host of a registry. Hosts that may be insecure are tried with https first; http is used when what
// answers there does not speak TLS at all, or when nothing listens there and no port was named; never because of a certificate.
func (k *Client) base(ctx context.Context, domain string) (string, error) {
	host := endpoint(domain)
	if !k.insecure(host) {
		return "https://" + host, nil
	}
	k.mu.Lock()
	scheme := k.schemes[host]
	k.mu.Unlock()
	if scheme != "" {
		return scheme + "://" + host, nil
	}
	err := k.answers(ctx, "https", host)
	for try := 1; err != nil && breaks(err) && !notTLS(err) && try < k.c.Attempts && ctx.Err() == nil; try++ {
		if err = k.pause(ctx, try, 0); err == nil {
			err = k.answers(ctx, "https", host)
		}
	}
	scheme = "https"
	var op *net.OpError
	if err != nil && (notTLS(err) || (&url.URL{Host: host}).Port() == "" && errors.As(err, &op) && op.Op == "dial" && k.answers(ctx, "http", host) == nil) {
		scheme, err = "http", nil
	}
	if err != nil {
		return "", unreachable(ctx, host, err)
	}
	k.mu.Lock()
	k.schemes[host] = scheme
	k.mu.Unlock()
	return scheme + "://" + host, nil
}

// answers is nil when something at a host answers by a scheme, whatever it says.
func (k *Client) answers(ctx context.Context, scheme, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, scheme+"://"+host+"/v2/", nil)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "registry %q: %w", host, err)
	}
	req.Header.Set("User-Agent", k.c.UserAgent)
	resp, err := k.http.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

func notTLS(err error) bool {
	var rec tls.RecordHeaderError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &rec)
}

// unreachable names host and cause; a cancelled context stays Cancelled.
func unreachable(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	wants := errors.As(err, &op) && op.Op == alert && strings.Contains(err.Error(), "certificate")
	if wants || strings.Contains(err.Error(), "client conn could not be established") { // net/http's word for an alert behind the handshake
		return errdef.New(errdef.Unavailable, "registry %s: %w: it may want a client certificate (certs.d/%s/NAME.cert and NAME.key)", host, err, host)
	}
	return errdef.New(errdef.Unavailable, "registry %s: %w", host, err)
}

// Repo is one repository as seen with one set of credentials. It is safe for concurrent use.
type Repo struct {
	k    *Client
	ref  ref.Ref // for its name
	auth *Auth

	mu       sync.Mutex
	tokens   map[string]token // by scope
	useBasic bool
	mirror   string // scheme://host in place of the registry's own
}

// base returns scheme://host of where the repository is.
func (p *Repo) base(ctx context.Context) (string, error) {
	if host, plain := strings.CutPrefix(p.mirror, "http://"); plain && !p.k.insecure(host) {
		return "", errdef.New(errdef.Forbidden, "mirror %s: http is for hosts that are configured as insecure", p.mirror)
	}
	if p.mirror != "" {
		return p.mirror, nil
	}
	return p.k.base(ctx, p.ref.Domain)
}

// Sources are where r may be pulled from, in order: mirrors, which get no credentials, and r's registry.
func (k *Client) Sources(r ref.Ref, auth *Auth) []*Repo {
	var out []*Repo
	if r.Domain == "docker.io" {
		for _, m := range k.c.Mirrors {
			p := k.Repo(r, nil)
			p.mirror = strings.TrimSuffix(m, "/")
			out = append(out, p)
		}
	}
	return append(out, k.Repo(r, auth))
}

// Mirror is the URL of the mirror that this is, or "".
func (p *Repo) Mirror() string { return p.mirror }

// CheckMirror refuses what is no scheme://host[:port].
func CheckMirror(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return errdef.New(errdef.InvalidArgument, "registry mirror %q: want https://host[:port]", s)
	}
	return nil
}

// Repo returns the repository that r names. auth must be what the user stored for r.Domain, or nil.
func (k *Client) Repo(r ref.Ref, auth *Auth) *Repo {
	if auth.empty() {
		auth = nil
	}
	return &Repo{k: k, ref: r, auth: auth, tokens: map[string]token{}}
}
