package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/torture"
)

// put sends a tar to a container and returns the status and what the engine answers; an error is the connection's.
func (w *world) put(path string, body io.Reader) (int, string, error) {
	c := http.Client{Timeout: patience.Of(time.Minute), Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return net.Dial("unix", w.Socket) }}}
	req, err := http.NewRequest("PUT", "http://dhow"+path, body)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// oneFile is a tar with one file.
func oneFile(t *testing.T, name string, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	tw.Write(bytes.Repeat([]byte("x"), size))
	tw.Close()
	return b.Bytes()
}

// TestSwappedCopies copies out of and into a running container that all the time exchanges a folder and a link to the host, whose file
// is neither read nor written, and into one that does not run whose mount points another one swaps (CVE-2018-15664, CVE-2026-41568,
// CVE-2026-42306, CVE-2019-10152).
func TestSwappedCopies(t *testing.T) {
	t.Parallel()
	w := full(t)
	dir, shared := t.TempDir(), t.TempDir()
	const secret = "the canary sings"
	canary := filepath.Join(dir, "canary")
	if err := os.WriteFile(canary, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "in"), []byte("from cp"), 0o644); err != nil {
		t.Fatal(err)
	}
	swap := `mkdir a; echo mine > a/canary; ln -s ` + dir + ` b; touch /go; while :; do mv -T a c 2>/dev/null; mv -T b a; mv -T a b; mv -T c a; done`
	w.Dhow("run", "-d", "--name", "swapper", "-w", "/s", "-v", shared+":/s", bb, "sh", "-c", swap).OK()
	eventually(t, "it swaps", func() bool { return w.Dhow("exec", "swapper", "ls", "/go").Code == 0 })
	// Its second bind lies below the folder that is swapped.
	w.Dhow("create", "--name", "still", "-v", shared+":/s", "-v", out+":/s/a/deep/mount", bb, "true").OK()
	worked := map[string]int{}
	for range 15 {
		for _, c := range []string{"swapper", "still"} {
			for _, args := range [][]string{
				{"cp", "-L", c + ":/s/a/canary", filepath.Join(out, "one")},
				{"cp", c + ":/s/a/", filepath.Join(out, "all")},
				{"cp", filepath.Join(out, "in"), c + ":/s/a/canary"},
				{"cp", filepath.Join(out, "in"), c + ":/s/a/new"},
			} {
				if w.Dhow(args...).Code == 0 {
					worked[c]++
				}
			}
		}
		if b, err := os.ReadFile(canary); err != nil || string(b) != secret {
			t.Fatalf("the host's file: %q %v", b, err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
			t.Fatalf("the host's folder: %v %v", es, err)
		}
		for _, p := range []string{"one", "all/canary", "all/a/canary"} {
			if b, err := os.ReadFile(filepath.Join(out, p)); err == nil && strings.Contains(string(b), secret) {
				t.Fatalf("%s has the host's file", p)
			}
		}
	}
	if worked["swapper"] == 0 || worked["still"] == 0 {
		t.Errorf("copies that worked, of 60: %v: the race was not run", worked)
	}
	t.Logf("copies that worked, of 60: %v", worked)
	w.Dhow("rm", "-f", "swapper", "still").OK()
}

// TestCopyCutOff breaks uploads off half-way, by the client and by the engine's death: the container has nothing of them, the engine's
// folders neither (torture cases 10, 60).
func TestCopyCutOff(t *testing.T) {
	t.Parallel()
	w := full(t)
	w.Dhow("run", "-d", "--name", "web", bb, "sleep", "1000").OK()
	w.Dhow("create", "--name", "still", bb, "true").OK()
	names := func() string {
		es, err := os.ReadDir(w.DataRoot)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range es {
			out = append(out, e.Name())
		}
		return strings.Join(out, " ")
	}
	before := names()
	body := oneFile(t, "half", 3<<20)
	for _, c := range []string{"web", "still"} {
		r, pw := io.Pipe()
		go func() {
			pw.Write(body[:len(body)/2])
			pw.CloseWithError(io.ErrUnexpectedEOF)
		}()
		if code, text, err := w.put("/containers/"+c+"/archive?path=/root", r); err == nil && code == 200 {
			t.Errorf("%s: %d %s", c, code, text)
		}
		// The engine dies while it waits for the rest.
		hr, hw := io.Pipe()
		done := make(chan struct{})
		go func() { w.put("/containers/"+c+"/archive?path=/root", hr); close(done) }()
		hw.Write(body[:1<<20])
		w.Kill()
		hw.Close()
		<-done
		w.Run()
		if got := w.Dhow("diff", c).OK(); strings.Contains(got, "half") {
			t.Errorf("%s: %s", c, got)
		}
		if code, text, err := w.put("/containers/"+c+"/archive?path=/root", bytes.NewReader(body)); err != nil || code != 200 {
			t.Errorf("%s: whole: %d %s %v", c, code, text, err)
		}
		if got := w.Dhow("diff", c).OK(); !strings.Contains(got, "A /root/half") {
			t.Errorf("%s: %s", c, got)
		}
	}
	if after := names(); after != before {
		t.Errorf("the engine's folder held %s, now %s", before, after)
	}
	w.Dhow("rm", "-f", "web", "still").OK()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestCopyBombs sends what inflates without end (torture cases 36, 37, 60).
func TestCopyBombs(t *testing.T) {
	t.Parallel()
	w := full(t)
	w.Dhow("run", "-d", "--name", "web", bb, "sleep", "1000").OK()
	if _, _, err := w.put("/containers/web/archive?path=/root", bytes.NewReader(oneFile(t, "f", 1<<20))); err != nil {
		t.Fatal(err)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	tw := tar.NewWriter(z)
	tw.WriteHeader(&tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1 << 40})
	io.CopyN(tw, endless{}, 400<<20)
	z.Close()
	before := w.memory(t)
	code, text, err := w.put("/containers/web/archive?path=/root", &bomb)
	if err != nil || code != 400 || !strings.Contains(text, "bomb") {
		t.Errorf("got %d %s %v", code, text, err)
	}
	for _, size := range []string{"77777777777", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"} { // an extended header of 8 GiB, and more
		h := torture.Header("pax", 'x', size)
		if code, text, err := w.put("/containers/web/archive?path=/root", bytes.NewReader(h)); err != nil || code != 400 {
			t.Errorf("got %d %s %v", code, text, err)
		}
	}
	if grown := w.memory(t) - before; grown > 64<<20 {
		t.Errorf("the engine grew by %d MiB", grown>>20)
	}
	if got := w.Dhow("diff", "web").OK(); strings.Contains(got, "bomb") {
		t.Error(got)
	}
	w.Dhow("rm", "-f", "web").OK()
}
