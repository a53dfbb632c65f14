package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// do sends one request to the repository's registry, authorises it, and repeats what may be repeated: connection breaks, 429
// and 5xx, at most Attempts times in all. Any other status is returned to the caller, 401 only when nothing helps.
func (p *Repo) do(ctx context.Context, method, path, scope string, h http.Header) (*http.Response, error) {
	return p.send(ctx, method, path, scope, h, nil)
}

// send is do with a body that may be sent again.
func (p *Repo) send(ctx context.Context, method, path, scope string, h http.Header, body []byte) (*http.Response, error) {
	base, err := p.base(ctx)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		resp, err := p.once(ctx, method, base+path, scope, h, body)
		if err == nil && !transient(resp.StatusCode) {
			return resp, nil
		}
		var wait time.Duration
		if err == nil {
			if wait, err = p.k.retryAfter(resp); err == nil {
				err = p.statusError(resp, "request")
			} else {
				try = p.k.c.Attempts // it wants us away for longer than we wait
			}
			resp.Body.Close()
		} else if !breaks(err) || ctx.Err() != nil {
			return nil, err
		}
		if try >= p.k.c.Attempts {
			return nil, err
		}
		if err := p.k.pause(ctx, try, wait); err != nil {
			return nil, err
		}
	}
}

// once sends the request, and a second time when a 401 taught us how to authorise it.
func (p *Repo) once(ctx context.Context, method, url, scope string, h http.Header, body []byte) (*http.Response, error) {
	for learned := false; ; learned = true {
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
		if err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "registry request: %w", err)
		}
		for key, v := range h {
			req.Header[key] = v
		}
		req.Header.Set("User-Agent", p.k.c.UserAgent)
		p.authorize(req, scope)
		resp, err := p.k.pick(method).Do(req)
		if err != nil {
			return nil, unreachable(ctx, req.URL.Host, err)
		}
		// Only the registry itself may ask us to authorise, not a host it redirected us to.
		if resp.StatusCode != http.StatusUnauthorized || learned || origin(resp.Request.URL) != origin(req.URL) {
			return resp, nil
		}
		again, err := p.learn(ctx, resp, scope)
		if err != nil || !again {
			if err != nil {
				resp.Body.Close()
			}
			return resp, err
		}
		io.CopyN(io.Discard, resp.Body, p.k.c.MaxErrBody)
		resp.Body.Close()
	}
}

func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// breaks tells whether an error is a connection that broke rather than one that never was: a refused connection, an unknown
// host or a bad certificate, ours or theirs, stays so, and the user should hear it at once.
func breaks(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == alert) {
		return false
	}
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSlow) ||
		errors.As(err, &op) || errors.As(err, &ne) && ne.Timeout() ||
		strings.Contains(err.Error(), "stream error") || strings.Contains(err.Error(), "http2: ") || strings.Contains(err.Error(), "server closed idle connection")
}

// alert is crypto/tls' word for what the other side of a connection has said against it.
const alert = "remote error"

// retryAfter reads the header (seconds or a date). Absent, past and unreadable are 0. More than MaxWait is an error.
func (k *Client) retryAfter(resp *http.Response) (time.Duration, error) {
	s := resp.Header.Get("Retry-After")
	var d time.Duration
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		d = time.Duration(min(max(n, 0), 1<<32)) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = max(time.Until(t), 0)
	}
	if d > k.c.MaxWait {
		return 0, errdef.New(errdef.Unavailable, "registry %s: %s: it asks to come back in %s", resp.Request.URL.Host, resp.Status, d.Round(time.Second))
	}
	return d, nil
}

// pause waits what the server asked for, or a back-off that doubles, with jitter, capped.
func (k *Client) pause(ctx context.Context, try int, asked time.Duration) error {
	d := asked
	if d == 0 {
		d = k.c.BackOff << (try - 1)
		d = min(d/2+rand.N(d/2+1), k.c.MaxWait)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// statusError turns an answer that is not what was wanted into an error with its kind. It reads a bounded part of the body.
func (p *Repo) statusError(resp *http.Response, what string) error {
	raw, _ := io.ReadAll(io.LimitReader(p.k.watch(resp.Body, func() { resp.Body.Close() }), p.k.c.MaxErrBody))
	code, text := errorText(raw)
	if text == "" {
		text = clean(resp.Status)
	}
	name := p.ref.FamiliarName()
	push := strings.HasPrefix(what, "push")
	switch resp.StatusCode {
	case http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		if push {
			return errdef.New(errdef.Forbidden, "%s to %s: the registry has no room for it (%s): %s", what, name, clean(resp.Status), text)
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		if p.auth != nil && resp.StatusCode == http.StatusUnauthorized {
			return errdef.New(errdef.Unauthorized, "registry %s: the credentials were refused: %s", resp.Request.URL.Host, text)
		}
		if what == "login" || what == "token" {
			return errdef.New(errdef.Unauthorized, "registry %s: %s", resp.Request.URL.Host, text)
		}
		if push {
			return errdef.New(errdef.Forbidden, "push access denied for %s, repository does not exist or may require 'docker login': %s", name, text)
		}
		return errdef.New(errdef.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %s", name, text)
	case http.StatusNotFound:
		switch {
		case push:
			return errdef.New(errdef.NotFound, "%s to %s: %s", what, name, text)
		case code == "NAME_UNKNOWN":
			return errdef.New(errdef.NotFound, "%s for %s not found: repository %s does not exist: %s", what, p.ref.Familiar(), name, text)
		case what == "manifest":
			return errdef.New(errdef.NotFound, "manifest for %s not found: %s", p.ref.Familiar(), text)
		}
		return errdef.New(errdef.NotFound, "%s of %s not found: %s", what, name, text)
	}
	if push {
		return errdef.New(errdef.Unavailable, "registry %s: %s: %s: %s", resp.Request.URL.Host, what, clean(resp.Status), text)
	}
	return errdef.New(errdef.Unavailable, "registry %s: %s: %s", resp.Request.URL.Host, clean(resp.Status), text)
}

// errorText reads the distribution error format, or takes plain text.
func errorText(raw []byte) (code, text string) {
	var e struct {
		Errors  []struct{ Code, Message string }
		Details string
	}
	if json.Unmarshal(raw, &e) == nil {
		if len(e.Errors) == 0 {
			return "", clean(e.Details)
		}
		code = clean(e.Errors[0].Code)
		return code, strings.ToLower(strings.ReplaceAll(code, "_", " ")) + ": " + clean(e.Errors[0].Message)
	}
	if s := strings.TrimSpace(string(raw)); !strings.HasPrefix(s, "<") {
		return "", clean(s)
	}
	return "", ""
}

// clean makes a server's words fit for a log and a terminal: control characters escaped, length bounded.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() > 1024 {
			b.WriteString("...")
			break
		}
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}
