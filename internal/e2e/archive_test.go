package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// post sends a body to the engine and returns the status and what it answers.
func (w *world) post(t *testing.T, path string, body io.Reader) (int, string) {
	t.Helper()
	c := http.Client{Timeout: patience.Of(time.Minute), Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return net.Dial("unix", w.Socket) }}}
	resp, err := c.Post("http://dhow"+path, "application/x-tar", body)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp.StatusCode, string(b)
}

// memory is the most that the engine has ever had resident, in bytes.
func (w *world) memory(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no VmHWM: %v", err)
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// stored lists everything of images below the data root.
func (w *world) stored(t *testing.T) string {
	t.Helper()
	harness.Settle(w.Engine)
	var all []string
	for _, d := range []string{"content/blobs/sha256", "content/ingest", "layers/sha256", "layers/tmp"} {
		es, err := os.ReadDir(filepath.Join(w.DataRoot, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			all = append(all, d+"/"+e.Name())
		}
	}
	return strings.Join(all, "\n")
}

// TestHostileArchives gives load and import what must be refused (torture cases 29 to 41 and 60): the answer is an error with its reason,
// nothing is left, and the engine grows by less than 64 MiB.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	w := full(t)
	before, grown := w.stored(t), w.memory(t)
	var zeros bytes.Buffer
	tw := tar.NewWriter(&zeros)
	tw.WriteHeader(&tar.Header{Name: "zeros", Size: 200 << 20, Mode: 0o600})
	tw.Write(make([]byte, 200<<20))
	tw.Close()
	bomb := registry.Gzip(zeros.Bytes())
	link := func(name, to string, typ byte) registry.File {
		return registry.File{Header: tar.Header{Name: name, Linkname: to, Typeflag: typ}}
	}
	for name, c := range map[string]struct {
		tar  []byte
		load int // status of the answer
		imp  string
	}{
		"path out":      {registry.Tar(t, registry.Text("../../canary", "x")), 400, "leads out"},
		"hard link out": {registry.Tar(t, link("l", "../../etc/shadow", tar.TypeLink)), 400, "leads out"},
		"root is link":  {registry.Tar(t, link("./", "/etc", tar.TypeSymlink)), 400, "root"},
		"bomb":          {bomb, 500, "bomb"},
		"cut":           {zeros.Bytes()[:1<<20], 500, "ends in the middle"},
		"no tar":        {[]byte(strings.Repeat("no tar at all ", 1000)), 400, "checksum"},
		"xz":            {[]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6"), 501, "xz -d"},
		"nothing":       {nil, 400, "no entries"},
	} {
		if code, text := w.post(t, "/images/load?quiet=1", bytes.NewReader(c.tar)); code != c.load || !strings.Contains(text, "message") {
			t.Errorf("load %s: %d %s", name, code, text)
		}
		if code, text := w.post(t, "/images/create?fromSrc=-&repo=evil", bytes.NewReader(c.tar)); code < 400 || !strings.Contains(text, c.imp) {
			t.Errorf("import %s: %d %s", name, code, text)
		}
	}
	// A link of the layer that leads to the host, and what would be written through it, stays in the image.
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	through := registry.Tar(t, link("out", filepath.Dir(canary), tar.TypeSymlink), registry.Text("out/canary", "dead"))
	if code, text := w.post(t, "/images/create?fromSrc=-&repo=through", bytes.NewReader(through)); code != 200 || !strings.Contains(text, "sha256:") {
		t.Errorf("%d %s", code, text)
	}
	w.Dhow("create", "--name", "through", "through", "x").OK()
	w.Dhow("export", "-o", filepath.Join(t.TempDir(), "through.tar"), "through").OK()
	if b, err := os.ReadFile(canary); string(b) != "alive" {
		t.Errorf("the canary: %q %v", b, err)
	}
	w.Dhow("rm", "through").OK()
	w.Dhow("rmi", "through").OK()
	// Clients that go away in the middle.
	for _, part := range []string{"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"} {
		for range 3 {
			c, err := net.Dial("unix", w.Socket)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, part)
			if strings.Contains(part, "chunked") {
				fmt.Fprintf(c, "%x\r\n", 8<<20)
			}
			c.Write(zeros.Bytes()[:8<<20])
			time.Sleep(30 * time.Millisecond)
			c.Close()
		}
	}
	eventually(t, "nothing of it is left", func() bool { return w.stored(t) == before }, func() string { return w.stored(t) })
	if more := w.memory(t) - grown; more > 64<<20 {
		t.Errorf("the engine grew by %d MiB", more>>20)
	}
	if now := w.idle(); now > w.fds {
		t.Errorf("the engine holds %d descriptors, %d before", now, w.fds)
	}
}

// TestSwappedLinks: while a container swaps a file, a folder and a link to the host as fast as it can, neither an export nor a
// commit has a byte from outside of it (torture case 56).
func TestSwappedLinks(t *testing.T) {
	t.Parallel()
	w := full(t)
	dir := t.TempDir()
	const secret = "the canary sings"
	if err := os.WriteFile(filepath.Join(dir, "canary"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Dhow("run", "-d", "--name", "swapper", bb, "sh", "-c",
		`mkdir a; echo mine > a/canary; ln -s `+dir+` b; echo mine > f; ln -s `+dir+`/canary g; touch /go
		while :; do mv -T a c 2>/dev/null; mv -T b a; mv -T a b; mv -T c a; mv -T f h; mv -T g f; mv -T f g; mv -T h f; done`).OK()
	eventually(t, "it swaps", func() bool { return w.Dhow("exec", "swapper", "ls", "/go").Code == 0 })
	for n := range 12 {
		out := filepath.Join(dir, "out.tar")
		w.Dhow("export", "-o", out, "swapper").OK()
		args := []string{"commit", "swapper", "swapped"}
		if n%2 == 0 {
			args = []string{"commit", "--no-pause", "swapper", "swapped"}
		}
		w.Dhow(args...).OK()
		img := filepath.Join(dir, "img.tar")
		w.Dhow("save", "-o", img, "swapped").OK()
		for _, p := range []string{out, img} {
			if b, err := os.ReadFile(p); err != nil || bytes.Contains(b, []byte(secret)) {
				t.Fatalf("%s: %v, or it has the canary", p, err)
			}
		}
	}
	if strings.Contains(w.Log(), "root of a running container not reached") {
		t.Error("exports did not see the container's own root")
	}
	w.Dhow("rm", "-f", "swapper").OK()
}

// TestKilledWhileCommitting kills the engine while a container is frozen for a commit: the next one thaws it and finds no half image
// (torture case 10).
func TestKilledWhileCommitting(t *testing.T) {
	t.Parallel()
	w := full(t)
	w.Dhow("run", "-d", "--name", "large", bb, "sh", "-c", "truncate -s 30G /sparse; i=0; while :; do echo $((i+=1)); sleep 0.1; done").OK()
	eventually(t, "it has a large file", func() bool { return w.Dhow("exec", "large", "ls", "/sparse").Code == 0 })
	before := w.stored(t)
	cmd := exec.Command(w.Program("dhow"), "commit", "large", "half")
	cmd.Env = append(os.Environ(), w.Env()...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	frozen := func() bool {
		a := w.Dhow("logs", "large").OK()
		time.Sleep(400 * time.Millisecond)
		return a == w.Dhow("logs", "large").OK()
	}
	eventually(t, "it is frozen", frozen)
	if got := w.Dhow("inspect", "-f", "{{.State.Status}}", "large").OK(); got != "running" {
		t.Errorf("its state is %s", got)
	}
	w.Kill()
	cmd.Wait()
	w.Run()
	eventually(t, "it runs again", func() bool { return !frozen() })
	if got := w.Dhow("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "large").OK(); got != "running false" {
		t.Errorf("its state is %s", got)
	}
	if now := w.stored(t); now != before {
		t.Errorf("stored before\n%s\nand now\n%s", before, now)
	}
	w.Dhow("inspect", "half").Fails(1, "half")
	// A client that gives up ends the commit, and the container goes on.
	cmd = exec.Command(w.Program("dhow"), "commit", "large", "half")
	cmd.Env = append(os.Environ(), w.Env()...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is frozen again", frozen)
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "it runs on", func() bool { return !frozen() })
	eventually(t, "nothing is left", func() bool { return w.stored(t) == before })
	w.Dhow("rm", "-f", "large").OK()
}
