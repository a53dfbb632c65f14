package docker

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// raw makes a request head.
func raw(method, target string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func withBody(target, ctype, body string) string {
	return raw("POST", target, "Content-Type: "+ctype, fmt.Sprintf("Content-Length: %d", len(body))) + body
}

func TestHostile(t *testing.T) {
	f := newFake()
	sock := serve(t, f)
	const js = "application/json"
	big := `{"Image":"` + strings.Repeat("a", maxBody+1-len(`{"Image":""}`)) + `"}`
	if len(big) != maxBody+1 {
		t.Fatal(len(big))
	}
	for _, tc := range []struct {
		name, raw string
		status    int
	}{
		{"dotdot encoded", raw("GET", "/containers/%2e%2e/json"), 400},
		{"dotdot slash encoded", raw("GET", "/containers/..%2f..%2fetc/json"), 400},
		{"dotdot plain", raw("GET", "/containers/../json"), 400},
		{"dotdot in image", raw("GET", "/images/a/../../b/json"), 400},
		{"slash in id", raw("GET", "/containers/a%2fb/json"), 404},
		{"double slash", raw("GET", "//containers/json"), 400},
		{"double slash inside", raw("GET", "/v1.41//containers/json"), 400},
		{"trailing slash", raw("GET", "/containers/json/"), 400},
		{"root", raw("GET", "/"), 400},
		{"only version", raw("GET", "/v1.41"), 404},
		{"NUL", raw("GET", "/containers/a%00b/json"), 400},
		{"newline", raw("GET", "/containers/a%0d%0aX:y/json"), 400},
		{"not UTF-8", raw("GET", "/containers/%ff%fe/json"), 400},
		{"bad escape", raw("GET", "/containers/%zz/json"), 400},
		{"long path", raw("GET", "/containers/"+strings.Repeat("a", 3000)+"/json"), 400},
		{"asterisk", raw("GET", "*"), 404},
		{"4 MiB + 1", withBody("/containers/create", js, big), 413},
		{"4 MiB is read", withBody("/containers/create", js, strings.Repeat(" ", maxBody-2)+"{}"), 400},
		{"deep", withBody("/containers/create", js, strings.Repeat("[", 100000)), 400},
		{"deep filters", raw("GET", "/containers/json?filters="+strings.Repeat("[", 5000)), 400},
		{"trailing data", withBody("/containers/create", js, `{"Image":"here"}{"HostConfig":{"Privileged":true}}`), 400},
		{"text/plain", withBody("/containers/create", "text/plain", `{"Image":"here"}`), 403},
		{"form", withBody("/containers/create", "application/x-www-form-urlencoded", `{"Image":"here"}`), 403},
		{"multipart", withBody("/containers/create", "multipart/form-data; boundary=x", `{"Image":"here"}`), 403},
		{"two types", raw("POST", "/containers/create", "Content-Type: application/json", "Content-Type: text/plain", "Content-Length: 2") + "{}", 400},
		{"two lengths", raw("POST", "/containers/create", "Content-Length: 2", "Content-Length: 3") + "{}", 400},
		{"TE gzip", raw("POST", "/containers/create", "Transfer-Encoding: gzip, chunked") + "0\r\n\r\n", 501},
		{"header CRLF", "GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", 400},
		{"no host", "GET /_ping HTTP/1.1\r\n\r\n", 400},
		{"huge header", raw("GET", "/_ping", "X: "+strings.Repeat("a", 2*maxHeader)), 431},
		{"h2c preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
		{"big auth", raw("POST", "/images/create?fromImage=a:1", "X-Registry-Auth: "+strings.Repeat("a", maxAuth+1)), 400},
		{"two auths", raw("POST", "/images/create?fromImage=a:1", "X-Registry-Auth: e30=", "X-Registry-Auth: e30="), 400},
		{"panic", raw("GET", "/containers/panic/json"), 500},
		{"alive", raw("GET", "/_ping"), 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			resp, body := exchange(t, sock, tc.raw)
			if resp.StatusCode != tc.status {
				t.Errorf("%d %.200s, want %d", resp.StatusCode, body, tc.status)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
	if len(f.calls) != 0 {
		t.Errorf("the engine was reached: %q", f.calls)
	}
}

// TestSmuggle: a request with both Content-Length and chunked coding is the last one read on its connection.
func TestSmuggle(t *testing.T) {
	f := newFake()
	sock := serve(t, f)
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, raw("POST", "/containers/x/start", "Content-Length: 4", "Transfer-Encoding: chunked")+"0\r\n\r\n"+raw("POST", "/containers/x/kill"))
	b, _ := io.ReadAll(c)
	if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d answers: %s", n, b)
	}
	for _, call := range f.calls {
		if strings.HasPrefix(call, "kill") {
			t.Error("the smuggled request was run")
		}
	}
}

// TestOrigin: on TCP web pages and rebound names stay out.
func TestOrigin(t *testing.T) {
	srv := httptest.NewServer(New(Config{Engine: newFake().engine(), Hosts: []string{"engine.test"}}))
	defer srv.Close()
	for _, tc := range []struct {
		host, origin string
		status       int
	}{
		{"", "", 200}, {"localhost:1", "", 200}, {"[::1]:80", "", 200}, {"engine.test:2376", "", 200},
		{"evil.test", "", 403}, {"localhost.evil.test", "", 403}, {"", "https://evil.test", 403}, {"", "null", 403},
	} {
		req, _ := http.NewRequest("GET", srv.URL+"/_ping", nil)
		if tc.host != "" {
			req.Host = tc.host
		}
		if tc.origin != "" {
			req.Header.Set("Origin", tc.origin)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("Host %q Origin %q: %d, want %d", tc.host, tc.origin, resp.StatusCode, tc.status)
		}
	}
}
