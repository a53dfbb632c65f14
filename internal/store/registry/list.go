package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/spec/ref"
)

// Bounds of a list that a registry gives in pages.
const (
	maxPage = 4 << 20
	maxTags = 10_000
)

// Tags lists the repository's tags in the registry's order, all pages.
func (p *Repo) Tags(ctx context.Context) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	next := "/v2/" + p.ref.Path + "/tags/list?n=1000"
	for next != "" && !seen[next] {
		seen[next] = true
		resp, err := p.do(ctx, http.MethodGet, next, p.scope(), nil)
		if err != nil {
			return nil, err
		}
		var page struct{ Tags []string }
		if err := p.page(resp, "tags", &page); err != nil {
			return nil, err
		}
		for _, t := range page.Tags {
			if r, err := ref.Parse(p.ref.Name() + ":" + t); err != nil || r.Tag != t || r.Digest != "" {
				return nil, errdef.New(errdef.DataLoss, "registry %s: tags of %s: bad tag %q", p.ref.Domain, p.ref.FamiliarName(), clean(t))
			}
		}
		if out = append(out, page.Tags...); len(out) > maxTags || len(seen) > maxTags {
			return nil, errdef.New(errdef.DataLoss, "registry %s: tags of %s: more than %d", p.ref.Domain, p.ref.FamiliarName(), maxTags)
		}
		if next, err = following(resp); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// page decodes a bounded answer and closes it.
func (p *Repo) page(resp *http.Response, what string, v any) error {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return p.statusError(resp, what)
	}
	body := p.k.watch(resp.Body, func() { resp.Body.Close() })
	defer body.stop()
	raw, err := io.ReadAll(io.LimitReader(body, maxPage+1))
	switch {
	case err != nil:
		return errdef.New(errdef.Unavailable, "registry %s: %s: %w", resp.Request.URL.Host, what, err)
	case len(raw) > maxPage:
		return errdef.New(errdef.DataLoss, "registry %s: %s: the answer is larger than %d bytes", resp.Request.URL.Host, what, maxPage)
	case json.Unmarshal(raw, v) != nil:
		return errdef.New(errdef.DataLoss, "registry %s: %s: the answer is not the JSON that was asked for", resp.Request.URL.Host, what)
	}
	return nil
}

// following is the path of the next page (Link: <URL>; rel="next"), which must be at the same origin.
func following(resp *http.Response) (string, error) {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(resp.Header.Get("Link")), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return "", nil
	}
	u, err := resp.Request.URL.Parse(target)
	if err != nil || origin(u) != origin(resp.Request.URL) {
		return "", errdef.New(errdef.Forbidden, "registry %s: its next page is at another host", resp.Request.URL.Host)
	}
	return u.RequestURI(), nil
}

// Hit is one repository that a search found.
type Hit struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
}

// Search asks a registry's index for repositories. Docker Hub has one; most other registries answer NotFound.
func (k *Client) Search(ctx context.Context, domain, term string, limit int, auth *Auth) ([]Hit, error) {
	if auth.empty() {
		auth = nil
	}
	p := &Repo{k: k, auth: auth, tokens: map[string]token{}}
	p.ref.Domain, p.ref.Path = domain, "search"
	if domain == "docker.io" {
		p.ref.Domain = "index.docker.io"
	}
	resp, err := p.do(ctx, http.MethodGet, "/v1/search?"+url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}.Encode(), "", nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		resp.Body.Close()
		return nil, errdef.New(errdef.NotImplemented, "registry %s has no search (it answers %s to /v1/search)", domain, clean(resp.Status))
	}
	var out struct{ Results []Hit }
	if err := p.page(resp, "search", &out); err != nil {
		return nil, err
	}
	return out.Results[:min(len(out.Results), limit)], nil
}
