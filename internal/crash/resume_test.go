package crash

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// halfway is an engine whose image comes from docker-registry, through a proxy that counts what of its layer passes, and does something at
// the half of it.
type halfway struct {
	*world
	img   *registry.Image
	layer digest.Digest
	mu    sync.Mutex
	*passage
}

// passage is what passes in the course of one pull.
type passage struct {
	had    int64 // what was kept before
	sent   int64
	ranges []string
	at     func() // what happens when half of the rest has passed; until it returns nothing more does
	all    bool   // the registry has no ranges
}

const (
	halfwayAddr = "127.0.0.1:5001"
	halfwayRef  = halfwayAddr + "/halfway:1"
)

func startHalfway(t *testing.T, flags ...string) *halfway {
	w := &halfway{world: start(t, flags...), passage: &passage{}}
	w.img = registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, registry.Text("f", noise(6<<20)))}})
	w.layer = w.img.Manifest.Layers[0].Digest
	srv := registry.Start(t)
	srv.Push(t, "halfway:1", w.img)
	var l net.Listener
	if err := netlink.Inside(w.Netns, func() (err error) { l, err = net.Listen("tcp", halfwayAddr); return err }); err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: srv.Host})
	proxy.FlushInterval = -1
	h := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) == w.layer.String() && r.Method == http.MethodGet {
			w.mu.Lock()
			w.ranges = append(w.ranges, r.Header.Get("Range"))
			if w.all {
				r.Header.Del("Range")
			}
			rw = passing{rw, w, w.passage}
			w.mu.Unlock()
		}
		proxy.ServeHTTP(rw, r)
	})}
	go h.Serve(l) // ends with Close
	t.Cleanup(func() { h.Close() })
	return w
}

// passing counts. What still goes to an engine that is dead counts for the pull that it died of.
type passing struct {
	http.ResponseWriter
	w *halfway
	p *passage
}

func (p passing) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p passing) Write(b []byte) (int, error) {
	n, err := p.ResponseWriter.Write(b)
	http.NewResponseController(p.ResponseWriter).Flush()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.p.sent += int64(n)
	if f := p.p.at; f != nil && p.p.sent >= (p.w.size()-p.p.had)/2 {
		p.p.at = nil
		f()
	}
	return n, err
}

func (w *halfway) size() int64 { return w.img.Manifest.Layers[0].Size }

func (w *halfway) part() string { return filepath.Join(w.DataRoot, partialDir, w.layer.Encoded()) }

// kept waits until the engine has put aside all that passed, and tells how much it has.
func (w *halfway) kept(t *testing.T) int64 {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		st, err := os.Stat(w.part())
		if err == nil && st.Size() == w.had+w.sent {
			return st.Size()
		}
		if time.Since(start) > patience.Of(10*time.Second) {
			t.Errorf("%d bytes were kept, %d have passed: %v %v", w.had, w.sent, st, err)
			return 0
		}
	}
}

// begin forgets what has passed.
func (w *halfway) begin(at func(), all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passage = &passage{at: at, all: all}
	if st, err := os.Stat(w.part()); err == nil {
		w.had = st.Size()
	}
}

// dies pulls, and kills the engine half way. It returns what is kept.
func (w *halfway) dies(t *testing.T) (kept int64) {
	t.Helper()
	w.begin(func() { kept = w.kept(t); syscall.Kill(w.PID(), syscall.SIGKILL) }, false)
	if r := w.command("pull -q " + halfwayRef); r.Code == 0 {
		t.Fatal("the pull succeeded")
	}
	w.Kill() // waits for its end
	w.Run()
	w.verify(t)
	if r := w.command("image inspect " + halfwayRef); r.Code == 0 {
		t.Error("a name is there before its image")
	}
	if all := w.command("images -aq").OK(); strings.Contains(all, "\n") {
		t.Errorf("more than one image is there: %s", all)
	}
	return kept
}

// whole pulls, and checks how much of the layer passed, what was asked for, and that all is as it should be. Then it removes the image.
func (w *halfway) whole(t *testing.T, want int64, ranges ...string) {
	t.Helper()
	w.command("pull -q " + halfwayRef).OK()
	if got := strings.Join(w.ranges, "|"); w.sent != want || got != strings.Join(ranges, "|") {
		t.Errorf("%d bytes of %d passed, want %d; asked for %q", w.sent, w.size(), want, got)
	}
	w.verify(t)
	if left := w.begun(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	w.command("rmi " + halfwayRef).OK()
}

func from(n int64) string { return fmt.Sprintf("bytes=%d-", n) }

// TestResumedAfterDeath is torture case 1: an engine dies half way through a layer. The next pull asks a real registry for the rest only,
// and for all of it where what was kept is not what it was.
func TestResumedAfterDeath(t *testing.T) {
	w := startHalfway(t)
	n := w.dies(t)
	w.begin(nil, false)
	w.whole(t, w.size()-n, from(n))

	w.dies(t) // and once more, further on
	if again := w.dies(t); again <= n {
		t.Errorf("the second time %d bytes were kept, after %d the first time", again, n)
	} else {
		w.begin(nil, false)
		w.whole(t, w.size()-again, from(again))
	}

	n = w.dies(t)
	f, err := os.OpenFile(w.part(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 512), n-512); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.begin(nil, false)
	if w.whole(t, w.size()-n+w.size(), from(n), ""); t.Failed() {
		t.Log("its last block was of zeros")
	}

	w.dies(t)
	if err := os.Truncate(w.part(), w.size()+1); err != nil {
		t.Fatal(err)
	}
	w.begin(nil, false)
	if w.whole(t, w.size(), ""); t.Failed() {
		t.Log("it was longer than the blob")
	}

	n = w.dies(t)
	w.begin(nil, true)
	if w.whole(t, w.size(), from(n)); t.Failed() {
		t.Log("the registry had no ranges")
	}

	w.dies(t)
	if err := os.WriteFile(w.part(), w.img.Blobs[w.layer], 0o600); err != nil {
		t.Fatal(err)
	}
	w.begin(nil, false)
	if w.whole(t, 0); t.Failed() {
		t.Log("it was all there")
	}

	w.dies(t)
	w.command("image prune -f").OK()
	if left := w.begun(t); len(left) != 0 {
		t.Errorf("a prune left %v", left)
	}
}

// TestResumedAfterInterrupt: what a user's Ctrl-C leaves of a layer counts as what images take, and the next pull goes on with it.
func TestResumedAfterInterrupt(t *testing.T) {
	w := startHalfway(t)
	cmd := exec.Command(w.Program("dhow"), "pull", halfwayRef)
	cmd.Env = append(os.Environ(), w.Env()...)
	var n int64
	w.begin(func() { n = w.kept(t); cmd.Process.Signal(syscall.SIGINT); time.Sleep(100 * time.Millisecond) }, false)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("it was not interrupted: %s", out)
	}
	w.verify(t)
	w.begin(nil, false)
	if n = max(n, w.had); len(w.begun(t)) != 1 { // what was in the socket may be kept, too
		t.Fatalf("kept: %v", w.begun(t))
	}
	r := w.Dhow("pull", halfwayRef)
	if r.Code != 0 || !strings.Contains(r.Out, "Resuming download") || w.sent != w.size()-n {
		t.Errorf("%d bytes of %d passed, %d were there: %s %s", w.sent, w.size(), n, r.Out, r.Err)
	}
	w.verify(t)
}

// TestNoRoomForBeginnings: a layer whose beginning cannot be written comes all the same.
func TestNoRoomForBeginnings(t *testing.T) {
	if !alone(t) {
		return
	}
	w := startHalfway(t)
	dir := filepath.Join(w.DataRoot, partialDir)
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m,mode=700"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	w.begin(func() {
		w.kept(t)
		f, err := os.Create(filepath.Join(dir, "ballast"))
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for size := 1 << 20; size > 0; {
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
	}, false)
	w.command("pull -q " + halfwayRef).OK()
	if w.sent != w.size() {
		t.Errorf("%d bytes of %d passed", w.sent, w.size())
	}
	os.Remove(filepath.Join(dir, "ballast"))
	w.verify(t)
	if left := w.begun(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
