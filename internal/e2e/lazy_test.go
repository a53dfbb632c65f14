package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/linux/netlink"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

var lazyStorage shared

// lazyWorld is an engine before a gate, behind which a registry has an image of three layers, chunked:1 in zstd:chunked and stargz:1 in eStargz.
type lazyWorld struct {
	*harness.Engine
	gate  *registry.Gate
	large string // what is in /large/noise
}

func newLazyWorld(t *testing.T, flags ...string) *lazyWorld {
	t.Helper()
	raw := make([]byte, 6<<20)
	rand.New(rand.NewSource(1)).Read(raw)
	w := &lazyWorld{large: string(raw)}
	shell := dockerspec.DockerOCIImageConfig{}
	shell.Env, shell.Cmd = []string{"PATH=/bin"}, []string{"sh"}
	spec := registry.Spec{Config: shell, Compress: "none", Tars: [][]byte{registry.BusyboxTar(t),
		registry.Tar(t, registry.Dir("large"), registry.Text("large/noise", w.large), registry.Text("large/more", w.large[1<<20:])),
		registry.Tar(t, registry.Dir("small"), registry.Text("small/file", "small\n"), registry.Whiteout("large/more"))}}
	dir := lazyStorage.fill(t, func(s *registry.Server) {
		s.PushChunked(t, "chunked:1", registry.Build(t, spec))
		spec.Compress = "estargz"
		s.Push(t, "stargz:1", registry.Build(t, spec))
	})
	w.Engine = harness.Start(t, flags...)
	var l net.Listener
	if err := netlink.Inside(w.Netns, func() (err error) { l, err = net.Listen("tcp", harness.RegistryAddr); return err }); err != nil {
		t.Fatal(err)
	}
	w.gate = registry.Start(t, registry.Over(dir)).Gate(t, 3<<20, l)
	return w
}

func (w *lazyWorld) sum(from int) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(w.large)[from:]))
}

// TestLazyRun: a container starts before its image is here, and reads all of it right; what needs the whole image waits for it.
func TestLazyRun(t *testing.T) {
	t.Parallel()
	w := newLazyWorld(t)
	for _, image := range []string{"chunked:1", "stargz:1"} {
		name := harness.RegistryAddr + "/" + image
		const script = "sha256sum < /large/noise; cat /small/file; ls /large; echo written > /new"
		want := w.sum(0) + "  -\nsmall\nnoise"
		if out := w.Dhow("run", "--lazy", "--name", "c1", name, "sh", "-c", script).OK(); out != want {
			t.Errorf("%s: got %q, want %q", image, out, want)
		}
		if out := w.Dhow("start", "-a", "c1").OK(); out != want {
			t.Errorf("%s, again: got %q, want %q", image, out, want)
		}
		w.Dhow("run", "-d", "--name", "c2", name, "sleep", "1000").OK()
		if out := w.Dhow("exec", "c2", "cat", "/small/file").OK(); out != "small" {
			t.Errorf("%s: exec: %q", image, out)
		}
		if out := w.Dhow("diff", "c1").OK(); out != "A /new" {
			t.Errorf("%s: diff: %q", image, out)
		}
		if got := w.arriving(name); !strings.HasSuffix(got, "of 3 layers") {
			t.Errorf("%s: it arrives: %q", image, got)
		}
		if out := w.Dhow("images", "--format", "{{.Repository}}:{{.Tag}}", name).OK(); out != name {
			t.Errorf("%s: images: %q", image, out)
		}
		for _, c := range [][]string{{"save", "-o", "/dev/null", name}, {"tag", name, "other:1"}, {"push", name}, {"commit", "c1"}, {"image", "layers", name}} {
			w.Dhow(c...).Fails(1, "is still arriving")
		}
		w.Dhow("rmi", "-f", name).Fails(1, "is still arriving")
		w.Dhow("image", "prune", "-af").OK()
		if got := w.Dhow("system", "check").OK(); !strings.Contains(got, "ound") {
			t.Errorf("%s: check: %q", image, got)
		}
		w.gate.Open()
		eventually(t, "it has arrived", func() bool { return w.arriving(name) == "<no value>" }, func() string { return w.arriving(name) })
		w.Dhow("exec", "c2", "sh", "-c", "sha256sum < /large/noise").OK()
		if out := w.Dhow("start", "-a", "c1").OK(); out != want {
			t.Errorf("%s, when it is here: got %q, want %q", image, out, want)
		}
		if got := w.Dhow("events", "--since", "1", "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=arrive", "--format", "{{.Actor.Attributes.name}} {{.Actor.Attributes.error}}").OK(); !strings.Contains(got, name+" <no value>") {
			t.Errorf("%s: events: %q", image, got)
		}
		w.Dhow("save", "-o", "/dev/null", name).OK()
		w.Dhow("rm", "-f", "c1", "c2").OK()
		w.Dhow("rmi", name).OK()
		w.gate.Shut()
	}
}

func (w *lazyWorld) arriving(name string) string {
	return w.Dhow("inspect", "-f", "{{.GraphDriver.Data.Arriving}}", name).OK()
}

// TestLazyKilled kills the engine while an image arrives: a container that runs on it goes on with what it has read, the image is not here, and
// a pull brings back both.
func TestLazyKilled(t *testing.T) {
	t.Parallel()
	w := newLazyWorld(t)
	name := harness.RegistryAddr + "/stargz:1"
	w.Dhow("run", "--lazy", "-d", "--name", "c1", name, "sleep", "1000").OK()
	w.Dhow("create", "--name", "c2", name, "cat", "/small/file").OK()
	w.Dhow("exec", "c1", "cat", "/small/file").OK()
	w.Kill()
	w.Run()
	if got := w.Dhow("inspect", "-f", "{{.State.Running}}", "c1").OK(); got != "true" {
		t.Errorf("c1 runs: %s", got)
	}
	if got := w.Dhow("images", "-q").OK(); got != "" {
		t.Errorf("images: %q", got)
	}
	w.Dhow("exec", "c1", "sha256sum", "/large/noise").Fails(1, "Input/output error")
	w.Dhow("start", "c2").Fails(1, "pull the image again")
	if got := w.Dhow("system", "check"); got.Code == 0 || !strings.Contains(got.Out, "pull the image again") {
		t.Errorf("check: %d %q", got.Code, got.Out)
	}
	w.gate.Open()
	w.Dhow("pull", "-q", name).OK()
	w.Dhow("restart", "-t", "0", "c1").OK()
	if got := w.Dhow("exec", "c1", "sh", "-c", "sha256sum < /large/noise").OK(); got != w.sum(0)+"  -" {
		t.Errorf("c1 reads %q", got)
	}
	if got := w.Dhow("start", "-a", "c2").OK(); got != "small" {
		t.Errorf("c2: %q", got)
	}
	w.Dhow("system", "check").OK()
	w.Dhow("rm", "-f", "c1", "c2").OK()
	w.Dhow("rmi", name).OK()
}

// TestLazyHangs: a registry that does not answer holds up who reads from it, and nobody else; he can be killed.
func TestLazyHangs(t *testing.T) {
	t.Parallel()
	w := newLazyWorld(t)
	name := harness.RegistryAddr + "/chunked:1"
	w.Dhow("run", "--lazy", "-d", "--name", "c1", name, "sh", "-c", "cat /small/file; cat /large/noise > /dev/null").OK()
	w.Dhow("rm", "-f", "c1").OK()
	asked := make(chan bool, 100)
	w.gate.Fault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return false
		}
		asked <- true
		<-r.Context().Done()
		return true
	})
	w.Dhow("run", "-d", "--name", "c2", name, "sh", "-c", "while ! cat /go 2>/dev/null; do sleep 0.1; done; exec tail -c 100000 /large/noise").OK()
	w.Dhow("exec", "c2", "touch", "/go").OK()
	<-asked
	if out := w.Dhow("exec", "c2", "cat", "/small/file").OK(); out != "small" {
		t.Errorf("what was read before: %q", out)
	}
	began := time.Now()
	w.Dhow("rm", "-f", "c2").OK()
	if took := time.Since(began); took > patience.Of(10*time.Second) {
		t.Errorf("its removal took %v", took)
	}
	w.gate.Fault(nil)
	w.gate.Open()
	eventually(t, "it has arrived", func() bool { return w.arriving(name) == "<no value>" })
	w.Dhow("rmi", name).OK()
}
