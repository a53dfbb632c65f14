package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// maxToken bounds a token server's answer.
const maxToken = 1 << 20

type token struct {
	value   string
	expires time.Time
}

// challenge is one WWW-Authenticate header: RFC 9110 section 11.6.1.
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenge reads scheme and parameters; a quoted value may hold commas.
func parseChallenge(h string) challenge {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
	c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		var val string
		if strings.HasPrefix(after, `"`) {
			val, rest = unquote(after[1:])
		} else {
			val, rest, _ = strings.Cut(after, ",")
		}
		c.params[strings.ToLower(strings.TrimSpace(key))] = val
	}
	return c
}

func unquote(s string) (val, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// authorize puts the header on a request to the registry's own origin, from what earlier answers taught.
func (p *Repo) authorize(req *http.Request, scope string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch t, ok := p.tokens[scope]; {
	case p.auth != nil && p.auth.RegistryToken != "":
		req.Header.Set("Authorization", "Bearer "+p.auth.RegistryToken)
	case ok && time.Now().Before(t.expires):
		req.Header.Set("Authorization", "Bearer "+t.value)
	case p.useBasic && p.auth != nil:
		req.SetBasicAuth(p.auth.Username, p.auth.Password)
	}
}

// learn acts on a 401 of the registry's own origin: it gets a token or switches to basic. false means that there is nothing
// more to try.
func (p *Repo) learn(ctx context.Context, resp *http.Response, scope string) (bool, error) {
	var basic bool
	for _, h := range resp.Header.Values("WWW-Authenticate") {
		switch c := parseChallenge(h); c.scheme {
		case "bearer":
			t, err := p.fetchToken(ctx, c, resp.Request.URL, scope)
			if err != nil {
				return false, err
			}
			p.mu.Lock()
			p.tokens[scope] = t
			p.mu.Unlock()
			return true, nil
		case "basic":
			basic = true
		}
	}
	if !basic || p.auth == nil || p.auth.Username == "" {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.useBasic
	p.useBasic = true
	// Of several first requests one learns it; the others went without, too.
	return first || resp.Request.Header.Get("Authorization") == "", nil
}

// realm checks where a challenge wants us to go: https anywhere, http only back to the very origin that sent the challenge.
func realm(raw string, from *url.URL) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errdef.New(errdef.Forbidden, "registry %s: bad token realm %q", from.Host, clean(raw))
	}
	if u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || origin(u) != origin(from)) {
		return nil, errdef.New(errdef.Forbidden, "registry %s: refusing its token realm %q: it must be https or the same host", from.Host, clean(raw))
	}
	return u, nil
}

func (p *Repo) fetchToken(ctx context.Context, c challenge, from *url.URL, scope string) (token, error) {
	u, err := realm(c.params["realm"], from)
	if err != nil {
		return token{}, err
	}
	req, err := p.tokenRequest(ctx, u, c.params["service"], scope)
	if err != nil {
		return token{}, err
	}
	resp, err := p.k.pick(http.MethodGet).Do(req)
	if err != nil {
		return token{}, unreachable(ctx, u.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return token{}, p.statusError(resp, "token")
	}
	body := p.k.watch(resp.Body, func() { resp.Body.Close() })
	defer body.stop()
	raw, err := io.ReadAll(io.LimitReader(body, maxToken+1))
	if err != nil || len(raw) > maxToken {
		return token{}, errdef.New(errdef.Unavailable, "registry %s: token server %s: unreadable answer", from.Host, u.Host)
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return token{}, errdef.New(errdef.Unavailable, "registry %s: token server %s: answer is no JSON", from.Host, u.Host)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	life := time.Duration(min(max(t.ExpiresIn, 60), 24*3600)) * time.Second
	return token{value: t.Token, expires: time.Now().Add(life - 5*time.Second)}, nil
}

// tokenRequest asks as the distribution token specification says: GET with basic, or the OAuth2 POST for a refresh token.
func (p *Repo) tokenRequest(ctx context.Context, u *url.URL, service, scope string) (*http.Request, error) {
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	if scope != "" {
		q["scope"] = strings.Split(scope, " ") // a mount needs two
	}
	method, body := http.MethodGet, ""
	to := *u
	if p.auth != nil && p.auth.IdentityToken != "" {
		method = http.MethodPost
		if scope != "" {
			q.Set("scope", scope)
		}
		q.Set("grant_type", "refresh_token")
		q.Set("client_id", "dhow")
		q.Set("refresh_token", p.auth.IdentityToken)
		body = q.Encode()
	} else {
		to.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("token request: %w", err)
	}
	req.Header.Set("User-Agent", p.k.c.UserAgent)
	switch {
	case method == http.MethodPost:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case p.auth != nil && p.auth.Username != "":
		req.SetBasicAuth(p.auth.Username, p.auth.Password)
	}
	return req, nil
}

// Login checks credentials against a registry: nil when it lets them in, errdef.Unauthorized when it does not.
func (k *Client) Login(ctx context.Context, domain string, auth *Auth) error {
	p := &Repo{k: k, auth: auth, tokens: map[string]token{}}
	p.ref.Domain = domain
	resp, err := p.do(ctx, http.MethodGet, "/v2/", "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return p.statusError(resp, "login")
	}
	return nil
}
