package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// TestHostileNetwork gives the real engine what registries of torture cases 49 to 52 do: no credential reaches another host, what never
// ends is ended or can be cancelled at once while others are served, retries are few, and no text of theirs steers a terminal.
func TestHostileNetwork(t *testing.T) {
	t.Parallel()
	const evilAddr = "127.0.0.1:5002"
	w := full(t, "--insecure-registry", hostileAddr, "--insecure-registry", evilAddr)
	h, evil := w.Hostile(hostileAddr), w.Hostile(evilAddr)
	img := registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, registry.Text("f", strings.Repeat("text ", 100_000)))}})
	h.Serve("x:1", img)
	evil.Serve("x:1", img)
	evil.Serve("y:1", registry.Build(t, registry.Spec{Tars: [][]byte{registry.Tar(t, registry.Text("g", "another's"))}}))
	ref, layer := hostileAddr+"/x:1", img.Manifest.Layers[0].Digest.String()
	memory, before := w.memory(t), w.stored(t)

	// 49: a basic login, then redirects and realms that lead to another host.
	h.Fault("*", func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			rw.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			rw.Header().Set("Set-Cookie", "session=secret; Path=/")
			rw.WriteHeader(401)
			return true
		}
		return false
	})
	w.Dhow("login", "-u", "sailor", "-p", "lateen-4711", hostileAddr).OK()
	h.Fault(layer, registry.Status(307, "", "Location", "http://"+evilAddr+"/v2/x/blobs/"+layer))
	if r := w.Dhow("pull", "-q", ref); r.Code == 0 { // the blob is right, wherever it came from
		w.Dhow("rmi", ref).OK()
	}
	h.Fault(layer, nil)
	h.Fault("*", registry.Status(401, "", "WWW-Authenticate", `Bearer realm="http://`+evilAddr+`/token",service="x",scope="repository:x:pull"`))
	w.Dhow("pull", "-q", ref).Fails(1, "realm")
	h.Fault("*", nil)
	w.Dhow("logout", hostileAddr).OK()
	for _, s := range evil.Seen() {
		if s.Authorization != "" || s.Cookie != "" {
			t.Errorf("the other host was told %q %q", s.Authorization, s.Cookie)
		}
	}

	// 51: answers that ask for patience, again and again, and that are not what was asked for.
	for name, f := range map[string]registry.Fault{
		"429, at once": registry.Status(429, "", "Retry-After", "0"), "503, in 30 years": registry.Status(503, "", "Retry-After", "1000000000"),
		"503, in the past": registry.Status(503, "", "Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"), "401 for ever": registry.Status(401, "", "WWW-Authenticate", `Basic realm="x"`),
		"another range": registry.Status(206, "x", "Content-Range", "bytes 5-5/9"), "redirects in a circle": registry.Status(307, "", "Location", "http://"+hostileAddr+"/v2/x/blobs/"+layer),
	} {
		h.Fault(layer, f)
		from, start := len(h.Seen()), time.Now()
		if name == "503, in 30 years" { // it may wait a minute each time: the user has more to do
			if d := w.cancelled(t, 2*time.Second, "pull", "-q", ref); d > patience.Of(2*time.Second) {
				t.Errorf("%s: cancelled after %s", name, d)
			}
		} else if r := w.Dhow("pull", "-q", ref); r.Code == 0 || r.Err == "" {
			t.Errorf("%s: %d %q", name, r.Code, r.Err)
		}
		asked := 0
		for _, s := range h.Seen()[from:] {
			if strings.HasSuffix(s.Path, layer) {
				asked++
			}
		}
		if asked > 12 { // five tries; each may follow redirects
			t.Errorf("%s: asked %d times", name, asked)
		}
		t.Logf("%s: asked %d times in %s", name, asked, time.Since(start).Round(time.Millisecond))
		h.Fault(layer, nil)
	}

	// 50: silence, a drip, and no end: others are served meanwhile, and a pull can be cancelled at once.
	for name, f := range map[string]registry.Fault{"silence": h.Silent(), "a drip": h.Drip([]byte("x"), 20*time.Millisecond)} {
		h.Fault(layer, f)
		var other atomic.Int32
		go func() {
			w.Dhow("pull", "-q", evilAddr+"/y:1")
			other.Store(1)
		}()
		if d := w.cancelled(t, 1500*time.Millisecond, "pull", "-q", ref); d > patience.Of(2*time.Second) {
			t.Errorf("%s: cancelled after %s", name, d)
		}
		eventually(t, name+": the other pull ends", func() bool { return other.Load() == 1 })
		w.Dhow("ps").OK()
		w.Dhow("rmi", evilAddr+"/y:1").OK()
		h.Fault(layer, nil)
	}
	h.Fault("manifest", h.Endless([]byte("    ")))
	w.Dhow("pull", "-q", ref).Fails(1, "more than")
	h.Fault("manifest", nil)

	// 52: words that would steer a terminal, and very many of them.
	evilText := "\x1b]52;c;aGk=\x07\x1b[2Jgone\r\nfake"
	h.Fault("manifest", registry.Status(404, fmt.Sprintf(`{"errors":[{"code":"X","message":%q}]}`, strings.ReplaceAll(evilText, "\x1b", "?"))))
	h.Fault("*", registry.Status(500, evilText+strings.Repeat("A", 10<<20), "Content-Type", "text/plain"))
	r := w.Dhow("pull", ref)
	if r.Code == 0 || strings.ContainsAny(r.Err+r.Out, "\x1b\x07") || len(r.Err) > 8<<10 {
		t.Errorf("%d, %d bytes: %.300q", r.Code, len(r.Err), r.Err)
	}
	if log := w.Log(); strings.ContainsAny(log, "\x1b\x07") {
		t.Error("the engine's log has escape sequences")
	}
	h.Fault("*", nil)
	h.Fault("manifest", nil)
	w.Dhow("image", "prune", "-f").OK()
	eventually(t, "nothing is left", func() bool { return w.stored(t) == before }, func() string { return w.stored(t) })
	if grown := w.memory(t) - memory; grown > 64<<20 {
		t.Errorf("the engine grew by %d MiB", grown>>20)
	}
	w.Dhow("pull", "-q", ref).OK()
}

// cancelled runs our client, interrupts it after a while, and tells how long it then took to end.
func (w *world) cancelled(t *testing.T, after time.Duration, args ...string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, w.Program("dhow"), args...)
	cmd.Env = append(os.Environ(), w.Env()...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	cmd.Process.Signal(os.Interrupt)
	start := time.Now()
	if err := cmd.Wait(); err == nil {
		t.Errorf("%v: it succeeded", args)
	}
	return time.Since(start)
}
