package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Conn is a connection taken over from HTTP: raw bytes both ways.
type Conn struct {
	net.Conn
	r    *bufio.Reader
	kind string
}

// Read reads what the engine sends after its headers.
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite tells the engine that no more input comes; output goes on.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// Framed reports whether the engine said that stdout and stderr come in frames, and whether it said anything.
func (c *Conn) Framed() (framed, known bool) {
	switch {
	case strings.HasPrefix(c.kind, "application/vnd.docker.multiplexed-stream"):
		return true, true
	case strings.HasPrefix(c.kind, "application/vnd.docker.raw-stream"):
		return false, c.kind != ""
	}
	return false, false
}

// Hijack posts in and takes the connection over. Cancelling ctx after Hijack returned does not close it.
func (c *Client) Hijack(ctx context.Context, path string, q url.Values, in any) (*Conn, error) {
	req, err := c.request(ctx, http.MethodPost, path, q, in, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"tcp"},
	})
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		defer conn.Close()
		if resp.StatusCode >= 400 {
			return nil, readError(resp)
		}
		return nil, fmt.Errorf("post %s: the engine answered %s instead of a stream", path, resp.Status)
	}
	return &Conn{Conn: conn, r: r, kind: resp.Header.Get("Content-Type")}, nil
}

// maxFrame bounds one frame of a multiplexed stream; engines send a few KiB to 1 MiB (a line).
const maxFrame = 64 << 20

// Demux copies a multiplexed stream to stdout and stderr until its end.
func Demux(stdout, stderr io.Writer, src io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(src, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read stream header: %w", err)
		}
		size := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if size > maxFrame || head[1] != 0 || head[2] != 0 || head[3] != 0 {
			return fmt.Errorf("read stream: header % x is not a frame of Docker's multiplexed stream", head)
		}
		var w io.Writer
		switch head[0] {
		case 0, 1:
			w = stdout
		case 2:
			w = stderr
		case 3:
			b, err := io.ReadAll(io.LimitReader(src, size))
			if err != nil {
				return fmt.Errorf("read stream: %w", err)
			}
			return fmt.Errorf("the engine ended the stream: %s", b)
		default:
			return fmt.Errorf("read stream: unknown stream %d", head[0])
		}
		if _, err := io.CopyN(w, src, size); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("copy stream: %w", err)
		}
	}
}
