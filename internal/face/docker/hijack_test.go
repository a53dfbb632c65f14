package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// must creates and starts nothing but a container of the fake and returns its ID.
func must(t *testing.T, sock, path, body string, status int) string {
	t.Helper()
	resp, got := exchange(t, sock, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body))
	if resp.StatusCode != status {
		t.Fatalf("POST %s: %d %s", path, resp.StatusCode, got)
	}
	_, rest, _ := strings.Cut(got, `"Id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// hijacked sends raw bytes and returns the connection, its reader, and the head of the answer.
func hijacked(t *testing.T, sock, raw string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: "POST"})
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), r, resp
}

// frames splits a multiplexed stream.
func frames(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out [3]bytes.Buffer
	for {
		var h [8]byte
		if _, err := io.ReadFull(r, h[:]); errors.Is(err, io.EOF) {
			return out[1].String(), out[2].String()
		} else if err != nil {
			t.Fatal(err)
		}
		n := binary.BigEndian.Uint32(h[4:])
		if h[0] != 1 && h[0] != 2 || h[1]|h[2]|h[3] != 0 || n == 0 || n > maxFrame {
			t.Fatalf("frame header %x", h)
		}
		if _, err := io.CopyN(&out[h[0]], r, int64(n)); err != nil {
			t.Fatal(err)
		}
	}
}

const upgrade = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"

func TestHijackForms(t *testing.T) {
	for _, tc := range []struct {
		name, version, head, tty string
		status                   int
		media                    string
	}{
		{"upgrade", "/v1.42", upgrade, "false", 101, "application/vnd.docker.multiplexed-stream"},
		{"upgrade old", "/v1.41", upgrade, "false", 101, "application/vnd.docker.raw-stream"},
		{"no upgrade", "/v1.52", "Host: x\r\nContent-Length: 0\r\n\r\n", "false", 200, "application/vnd.docker.multiplexed-stream"},
		{"tty", "", upgrade, "true", 101, "application/vnd.docker.raw-stream"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sock := serve(t, newFake())
			id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["both"],"Tty":`+tc.tty+`}`, 201)
			_, r, resp := hijacked(t, sock, "POST "+tc.version+"/containers/"+id+"/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\n"+tc.head)
			if resp.StatusCode != tc.status || resp.Header.Get("Content-Type") != tc.media || resp.Header.Get("Api-Version") != "1.52" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			if tc.status == 101 && (resp.Header.Get("Upgrade") != "tcp" || resp.Status != "101 UPGRADED") {
				t.Errorf("status %q, Upgrade %q", resp.Status, resp.Header.Get("Upgrade"))
			}
			must(t, sock, "/containers/"+id+"/start", "", 204)
			if tc.tty == "true" {
				if b, err := io.ReadAll(r); string(b) != "out\nerr\n" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				return
			}
			if out, errs := frames(t, r); out != "out\n" || errs != "err\n" {
				t.Errorf("stdout %q, stderr %q", out, errs)
			}
		})
	}
}

// TestHalfClose: stdin sent together with the request head arrives, EOF arrives, and output goes on after it.
func TestHalfClose(t *testing.T) {
	sock := serve(t, newFake())
	id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["count"]}`, 201)
	c, r, _ := hijacked(t, sock, "POST /containers/"+id+"/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"+upgrade+"early ")
	io.WriteString(c, "later")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // longer than the check for gone clients
	must(t, sock, "/containers/"+id+"/start", "", 204)
	if out, _ := frames(t, r); out != "11\n" {
		t.Errorf("stdin bytes counted: %q, want 11", out)
	}
}

// TestUnreadInput: input nobody read must not turn the end of output into a reset.
func TestUnreadInput(t *testing.T) {
	sock := serve(t, newFake())
	id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["big"]}`, 201)
	c, r, _ := hijacked(t, sock, "POST /containers/"+id+"/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"+upgrade)
	go io.Copy(c, strings.NewReader(strings.Repeat("z", 4<<20)))
	must(t, sock, "/containers/"+id+"/start", "", 204)
	if out, _ := frames(t, r); len(out) != 1<<20 {
		t.Errorf("%d bytes", len(out))
	}
}

// TestGoneClients: sessions of clients that vanish end, with and without stdin; 200 idle ones are no burden.
func TestGoneClients(t *testing.T) {
	f := newFake()
	sock := serve(t, f)
	id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["hang"]}`, 201)
	must(t, sock, "/containers/"+id+"/start", "", 204)
	var conns []net.Conn
	for i := range 200 {
		c, _, resp := hijacked(t, sock, fmt.Sprintf("POST /containers/%s/attach?stream=1&stdin=%d&stdout=1 HTTP/1.1\r\n%s", id, i%2, upgrade))
		if resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		conns = append(conns, c)
	}
	waitSessions(t, f, 200)
	for i, c := range conns {
		if i%3 == 0 {
			io.WriteString(c, "pending input that nobody reads")
		}
		c.Close()
	}
	waitSessions(t, f, 0)
}

func waitSessions(t *testing.T, f *fake, want int) {
	t.Helper()
	n := -1
	for range 100 {
		f.mu.Lock()
		n = f.sessions
		f.mu.Unlock()
		if n == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%d sessions, want %d", n, want)
}

// TestExecTTY: exec start takes its body, then the connection.
func TestExecTTY(t *testing.T) {
	sock := serve(t, newFake())
	id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["hang"]}`, 201)
	ex := must(t, sock, "/containers/"+id+"/exec", `{"Cmd":["upper"],"AttachStdin":true,"Tty":true}`, 201)
	body := `{"Tty":true,"ConsoleSize":[24,80]}`
	c, r, resp := hijacked(t, sock, fmt.Sprintf("POST /v1.43/exec/%s/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", ex, len(body), body))
	if resp.StatusCode != 101 || resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Fatal(resp.Status, resp.Header)
	}
	io.WriteString(c, "abc\n")
	if l, _ := r.ReadString('\n'); l != "ABC\n" {
		t.Fatalf("%q", l)
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(r); len(rest) != 0 || err != nil {
		t.Fatalf("%q, %v", rest, err)
	}
	resp, _ = exchange(t, sock, fmt.Sprintf("POST /exec/%s/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", ex))
	if resp.StatusCode != 409 {
		t.Errorf("second start: %d", resp.StatusCode)
	}
}

// TestWaitHeaders: the head of a wait comes before the container even starts.
func TestWaitHeaders(t *testing.T) {
	sock := serve(t, newFake())
	id := must(t, sock, "/containers/create", `{"Image":"here","Cmd":["exit","9"]}`, 201)
	_, _, resp := hijacked(t, sock, "POST /containers/"+id+"/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	must(t, sock, "/containers/"+id+"/start", "", 204)
	if b, _ := io.ReadAll(resp.Body); string(b) != "{\"StatusCode\":9}\n" {
		t.Errorf("%q", b)
	}
}
