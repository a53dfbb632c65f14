package crash

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/linux/du"
	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/patience"
)

// operation is something that changes the data root.
type operation struct {
	name   string
	before []string // commands that make what it needs
	do     string   // one command, or several behind "; "
	again  string   // what the command may say when it is repeated although it had succeeded
	there  string   // an image that is there when it is done
	gone   string   // one that is not
	spoil  func(*testing.T, *world)
	behind bool // the engine does more when it has answered: gone goes once there is
}

const (
	change = `echo new > /f; dd if=/dev/zero of=/big bs=1k count=200 2>/dev/null; rm /etc/group`
	pushed = "127.0.0.1:5000/pushed:1"
)

var operations = []operation{
	{name: "pull", do: "pull -q " + sampleRef, there: sampleRef},
	{name: "large", do: "pull -q " + largeRef, there: largeRef},
	{name: "lazy", do: "pull -q --lazy " + lazyRef + "; pull -q " + lazyRef, there: lazyRef},
	{name: "push", before: []string{"tag " + bb + " " + pushed}, do: "push -q " + pushed, there: pushed},
	{name: "load", do: "load -q -i FILE", there: sampleRef},
	{name: "import", do: "import PLAIN imported:1", there: "imported:1"},
	{name: "commit", do: "commit changed committed:1", there: "committed:1"},
	{name: "rmi", before: []string{"pull -q " + sampleRef}, do: "rmi " + sampleRef, again: "No such image", gone: sampleRef},
	{name: "tag", before: []string{"pull -q " + sampleRef}, do: "tag " + sampleRef + " other:1", there: "other:1"},
	{name: "repair", before: []string{"pull -q " + sampleRef}, spoil: spoil, do: "system check --repair", there: sampleRef},
	{name: "shrink", before: []string{"pull -q " + sampleRef}, do: "pull -q " + largeRef, there: largeRef, gone: sampleRef, behind: true},
	{name: "prune", before: []string{"pull -q " + sampleRef, "import PLAIN more:1"}, do: "image prune -af", gone: sampleRef},
}

// TestKilledAtEveryCall kills the engine in place of the calls by which an operation changes the data root (rule R2, torture cases 1, 2
// and 10). The next engine has all of it or nothing, nothing besides, and does it again.
func TestKilledAtEveryCall(t *testing.T) {
	for _, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.Dhow("create", "--name", "changed", bb, "sh", "-c", change).OK()
			w.Dhow("start", "-a", "changed").OK()
			if o.behind {
				w.bound(t)
			}
			clean := w.stored(t)
			w.setUp(t, o)
			w.arm(0, nil)
			w.command(o.do).OK()
			_, total := w.disarm(t, o)
			w.done(t, o, clean)
			w.reset(t, clean)
			hits := 0
			for _, n := range points(t, total, 5) {
				w.setUp(t, o)
				w.arm(n, func() { syscall.Kill(w.PID(), syscall.SIGKILL) })
				r := w.command(o.do)
				hit, _ := w.disarm(t, o)
				if hit == "" {
					t.Logf("%d of %d: not reached this time", n, total)
				} else {
					hits++
					t.Logf("%d of %d: killed at %s; the client: %d", n, total, hit, r.Code)
					w.Kill() // waits for its end
					w.Run()
					w.repeated(t, o, clean)
				}
				w.reset(t, clean)
				if t.Failed() {
					return
				}
			}
			if o.name == "pull" && w.reused == 0 {
				t.Error("no pull found a whole layer of the one before")
			}
			if hits == 0 {
				t.Errorf("the engine was never killed at one of %d calls", total)
			}
		})
	}
}

// repeated looks at what an engine finds that follows one that was killed, and does the operation again.
func (w *world) repeated(t *testing.T, o operation, clean []string) {
	t.Helper()
	w.behind(t, o)
	var have []digest.Digest
	if o.spoil == nil { // else what was damaged may still be
		have = w.verify(t)
	}
	from := len(w.reg.Seen())
	if r := w.command(o.do); r.Code != 0 && (o.again == "" || !strings.Contains(r.Err, o.again)) {
		t.Errorf("again: exit code %d: %s", r.Code, r.Err)
	}
	if o.name == "pull" {
		var missing int64
		for i, d := range w.want.DiffIDs {
			if !slices.Contains(have, d) {
				missing += w.want.Manifest.Layers[i].Size
			}
		}
		if n := w.fetched(from); n != missing {
			t.Errorf("fetched %d bytes, %d were missing", n, missing)
		}
		w.reused += w.whole() - missing
	}
	w.done(t, o, clean)
}

// whole is the size of the sample's layers, compressed.
func (w *world) whole() (n int64) {
	for _, l := range w.want.Manifest.Layers {
		n += l.Size
	}
	return n
}

// done checks that an operation had its effect.
func (w *world) done(t *testing.T, o operation, clean []string) {
	t.Helper()
	w.behind(t, o)
	w.verify(t)
	for name, want := range map[string]int{o.there: 0, o.gone: 1} {
		if r := w.Dhow("image", "inspect", "-f", "{{.Id}}", name); name != "" && r.Code != want {
			t.Errorf("%s is there: %v %s", name, r.Code == 0, r.Err)
		}
	}
	if o.name == "prune" && !slices.Equal(w.stored(t), clean) {
		t.Errorf("all was pruned, and there is still\n%s\nin place of\n%s", strings.Join(w.stored(t), "\n"), strings.Join(clean, "\n"))
	}
	if left := w.begun(t); len(left) > 0 {
		t.Errorf("nothing is under way, and there are beginnings of blobs: %v", left)
	}
	if o.spoil != nil {
		if st, err := os.Stat(filepath.Join(w.DataRoot, "layers/sha256")); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("not put right: %v %v", st.Mode(), err)
		}
	}
	if o.there != "" && o.name != "push" && o.name != "tag" {
		w.Dhow("rm", w.Dhow("create", o.there, "x").OK()).OK() // its layers can be laid over each other
	}
}

// command runs our client with words, once for each command, as long as it succeeds.
func (w *world) command(line string) (r harness.Result) {
	for _, one := range strings.Split(line, "; ") {
		if r = w.Dhow(strings.Fields(strings.NewReplacer("FILE", w.file, "PLAIN", w.plain).Replace(one))...); r.Code != 0 {
			break
		}
	}
	return r
}

func (w *world) setUp(t *testing.T, o operation) {
	for _, c := range o.before {
		w.command(c).OK()
	}
	if o.spoil != nil {
		o.spoil(t, w)
	}
}

// spoil damages what the sample image has, each file in a way of its own.
func spoil(t *testing.T, w *world) {
	t.Helper()
	at := func(parts ...string) string { return filepath.Join(append([]string{w.DataRoot}, parts...)...) }
	layers := w.want.DiffIDs
	for _, p := range []string{at("content/blobs/sha256", w.want.ID.Encoded()), at("layers/sha256", layers[0].Encoded(), "layer.tar"), at("layers/sha256", layers[1].Encoded(), "tree.bin"), at("content/index.json")} {
		raw, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/3] ^= 2
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Remove(at("layers/sha256", layers[2].Encoded(), "info.json")), os.Chmod(at("layers/sha256"), 0o777),
		os.WriteFile(at("content/blobs/sha256", strings.Repeat("a", 64)), []byte("nobody's"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// bound restarts the engine with a bound for images that the large one and the sample are above.
func (w *world) bound(t *testing.T) {
	t.Helper()
	w.command("pull -q " + largeRef).OK()
	size := du.Of(filepath.Join(w.DataRoot, "content")) + du.Of(filepath.Join(w.DataRoot, "layers"))
	w.command("rmi " + largeRef).OK()
	w.Signal(syscall.SIGTERM)
	harness.AddFlags(w.Engine, "--image-store-size", strconv.FormatInt(size+200<<10, 10))
	w.Run()
}

// behind waits for what an engine does behind its answers.
func (w *world) behind(t *testing.T, o operation) {
	t.Helper()
	has := func(name string) bool { return w.Dhow("image", "inspect", name).Code == 0 }
	for start := time.Now(); o.behind && harness.Alive(w.Engine) && has(o.there) && has(o.gone); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience.Of(20*time.Second) {
			t.Fatalf("%s is still there", o.gone)
		}
	}
}

// reset removes every image but the first, and checks that nothing of them is left.
func (w *world) reset(t *testing.T, clean []string) {
	t.Helper()
	for _, name := range strings.Fields(w.Dhow("images", "--format", "{{.Repository}}:{{.Tag}}").OK()) {
		if name != bb {
			w.Dhow("rmi", name)
		}
	}
	w.Dhow("image", "prune", "-f").OK()
	if now := w.stored(t); !slices.Equal(now, clean) {
		t.Errorf("the images are removed, and there is still\n%s\nin place of\n%s", strings.Join(now, "\n"), strings.Join(clean, "\n"))
	}
}
