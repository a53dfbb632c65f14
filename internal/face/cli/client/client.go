// Package client is a thin client of the Docker Engine API, over a unix socket or plain TCP.
//
// It owns how a request leaves this process and how an answer comes back: JSON calls, streams, hijacked connections. It
// promises to start in well under a millisecond and to read bounded amounts of anything it keeps in memory. Paths carry no
// version, so the engine answers in its newest one, unless APIVersion pins another. It must never print, and never decide
// what an answer means.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxBody bounds the JSON answers that are decoded as a whole.
const maxBody = 256 << 20

// DefaultHost is where dhowd listens.
const DefaultHost = "unix:///run/dhow/dhow.sock"

// Options make a Client.
type Options struct {
	Host       string // unix:///path or tcp://host:port
	APIVersion string // e.g. "1.45"; empty asks for the engine's newest
	UserAgent  string
	// Wake is called once, when nothing listens on Host; a nil error makes the dial try again.
	Wake func(ctx context.Context) error
}

// Client talks to one engine. It is safe for concurrent use.
type Client struct {
	network, addr string
	prefix        string
	agent         string
	wake          func(ctx context.Context) error
	http          *http.Client
}

// Error is an answer of the engine that says no.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// StatusOf returns the HTTP status of an engine error in err's chain, or 0.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// DownError says that nothing answers at Host.
type DownError struct {
	Host string
	Err  error
}

func (e *DownError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Host, e.Err) }
func (e *DownError) Unwrap() error { return e.Err }

// New returns a client of the engine at o.Host; it does not connect yet.
func New(o Options) (*Client, error) {
	c := &Client{agent: o.UserAgent, wake: o.Wake}
	scheme, rest, ok := strings.Cut(o.Host, "://")
	if !ok {
		return nil, fmt.Errorf("host %q: want unix:///path or tcp://host:port", o.Host)
	}
	switch scheme {
	case "unix":
		c.network, c.addr = "unix", rest
	case "tcp", "http":
		c.network, c.addr = "tcp", strings.TrimSuffix(rest, "/")
		if _, _, err := net.SplitHostPort(c.addr); err != nil {
			return nil, fmt.Errorf("host %q: %w", o.Host, err)
		}
	default:
		return nil, fmt.Errorf("host %q: scheme %s is not supported; want unix or tcp", o.Host, scheme)
	}
	if c.addr == "" {
		return nil, fmt.Errorf("host %q: the address is empty", o.Host)
	}
	if o.APIVersion != "" {
		c.prefix = "/v" + strings.TrimPrefix(o.APIVersion, "v")
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) },
		DisableCompression: true,
		MaxIdleConns:       4,
		IdleConnTimeout:    30 * time.Second,
	}}
	return c, nil
}

// Dial opens a raw connection to the engine, waking it where that is allowed.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, c.network, c.addr)
	if err == nil {
		return conn, nil
	}
	if c.wake != nil && ctx.Err() == nil {
		if werr := c.wake(ctx); werr != nil {
			return nil, &DownError{Host: c.Host(), Err: werr}
		}
		if conn, err = d.DialContext(ctx, c.network, c.addr); err == nil {
			return conn, nil
		}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return nil, &DownError{Host: c.Host(), Err: err}
}

// Host returns where the client connects to, as a URL.
func (c *Client) Host() string { return c.network + "://" + c.addr }

// Get decodes the answer to a GET into out; a nil out discards it.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out any) error {
	return c.call(ctx, http.MethodGet, path, q, nil, out)
}

// Post sends in as JSON (nil: an empty body) and decodes the answer into out.
func (c *Client) Post(ctx context.Context, path string, q url.Values, in, out any) error {
	return c.call(ctx, http.MethodPost, path, q, in, out)
}

// Delete sends a DELETE.
func (c *Client) Delete(ctx context.Context, path string, q url.Values, out any) error {
	return c.call(ctx, http.MethodDelete, path, q, nil, out)
}

func (c *Client) call(ctx context.Context, method, path string, q url.Values, in, out any) error {
	resp, err := c.Open(ctx, method, path, q, in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		return err
	}
	if raw, ok := out.(*[]byte); ok {
		*raw, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: decode the engine's answer: %w", method, path, err)
	}
	return nil
}

// Open sends a request and returns once the headers of a good answer are there; the caller closes its body. in is sent as JSON, or
// when it is an io.Reader as the tar that it gives.
func (c *Client) Open(ctx context.Context, method, path string, q url.Values, in any, header http.Header) (*http.Response, error) {
	req, err := c.request(ctx, method, path, q, in, header)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, method, path string, q url.Values, in any, header http.Header) (*http.Request, error) {
	if !strings.HasPrefix(path, "/dhow/") {
		path = c.prefix + path
	}
	u := url.URL{Scheme: "http", Host: "dhow", Path: path, RawQuery: q.Encode()}
	if plain, err := url.PathUnescape(path); err == nil { // callers escape names
		u.Path, u.RawPath = plain, path
	}
	if c.network == "tcp" {
		u.Host = c.addr
	}
	body, kind := io.Reader(nil), "application/json"
	if r, ok := in.(io.Reader); ok {
		body, kind = r, "application/x-tar"
	} else if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("User-Agent", c.agent)
	return req, nil
}

// plain drops the `Get "http://dhow/...":` that net/http puts before every error.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

func readError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var m struct {
		Message string `json:"message"`
	}
	e := &Error{Status: resp.StatusCode}
	if json.Unmarshal(b, &m) == nil && m.Message != "" {
		e.Message = m.Message
	} else if s := strings.TrimSpace(string(b)); s != "" {
		e.Message = s
	} else {
		e.Message = resp.Status
	}
	return e
}
