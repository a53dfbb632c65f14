package docker

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite testdata and docs/compatibility.md")

// exchange sends raw bytes on a connection of its own and reads one response.
func exchange(t *testing.T, sock, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, raw) // may be refused half-way
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.80q: %v", raw, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, string(body) + "<" + err.Error() + ">"
	}
	return resp, string(body)
}

// request turns the text of a golden file into a request.
func request(text string) string {
	head, body, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n\n")
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	lines[0] += " HTTP/1.1"
	lines = append(lines, "Host: localhost")
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// respond prints a response: headers that every answer has are checked here and left out.
func respond(t *testing.T, resp *http.Response, body string) string {
	for k, want := range map[string]string{"Server": "Docker/0.1.0 (linux)", "Api-Version": "1.52", "Ostype": "linux", "Docker-Experimental": "false"} {
		if got := resp.Header.Get(k); got != want {
			t.Errorf("header %s: %q, want %q", k, got, want)
		}
		resp.Header.Del(k)
	}
	resp.Header.Del("Date")
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", resp.StatusCode)
	var keys []string
	for k := range resp.Header {
		if k != "Content-Length" || resp.Request.Method == "HEAD" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %s\n", k, strings.Join(resp.Header[k], ", "))
	}
	if body != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSuffix(strings.NewReplacer(runtime.Version(), "GOVERSION", "\r\n", "\n", "\x1e", "<RS>").Replace(body), "\n"))
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	if len(files) == 0 {
		t.Fatal("no golden files")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			sock := serve(t, newFake())
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := txtar.Parse(b)
			out := &txtar.Archive{Comment: in.Comment}
			for _, f := range in.Files {
				name, ok := strings.CutSuffix(f.Name, ".request")
				if !ok {
					continue
				}
				resp, body := exchange(t, sock, request(string(f.Data)))
				out.Files = append(out.Files, f, txtar.File{Name: name + ".response", Data: []byte(respond(t, resp, body))})
			}
			got := txtar.Format(out)
			if bytes.Equal(got, b) {
				return
			}
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s differs: %s", file, firstDifference(string(got), string(b)))
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, strings.Join(g[max(0, i-2):min(len(g), i+3)], "\n     "), strings.Join(w[max(0, min(i, len(w))-2):min(len(w), i+3)], "\n     "))
		}
	}
	return "the file is longer"
}
