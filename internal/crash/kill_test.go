package crash

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
)

// operation is something that changes the data root.
type operation struct {
	name   string
	before []string // commands that make what it needs
	do     string
	again  string // what the command may say when it is repeated although it had succeeded
	there  string // an image that is there when it is done
	gone   string // one that is not
}

const (
	change = `echo new > /f; dd if=/dev/zero of=/big bs=1k count=200 2>/dev/null; rm /etc/group`
	pushed = "127.0.0.1:5000/pushed:1"
)

var operations = []operation{
	{name: "pull", do: "pull -q " + sampleRef, there: sampleRef},
	{name: "large", do: "pull -q " + largeRef, there: largeRef},
	{name: "push", before: []string{"tag " + bb + " " + pushed}, do: "push -q " + pushed, there: pushed},
	{name: "load", do: "load -q -i FILE", there: sampleRef},
	{name: "import", do: "import PLAIN imported:1", there: "imported:1"},
	{name: "commit", do: "commit changed committed:1", there: "committed:1"},
	{name: "rmi", before: []string{"pull -q " + sampleRef}, do: "rmi " + sampleRef, again: "No such image", gone: sampleRef},
	{name: "tag", before: []string{"pull -q " + sampleRef}, do: "tag " + sampleRef + " other:1", there: "other:1"},
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
			clean := w.stored(t)
			w.setUp(o)
			w.arm(0, nil)
			w.command(o.do).OK()
			_, total := w.disarm()
			w.done(t, o, clean)
			w.reset(t, clean)
			hits := 0
			for _, n := range points(t, total, 5) {
				w.setUp(o)
				w.arm(n, func() { syscall.Kill(w.PID(), syscall.SIGKILL) })
				r := w.command(o.do)
				hit, _ := w.disarm()
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
	have := w.verify(t)
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
	if o.there != "" && o.name != "push" && o.name != "tag" {
		w.Dhow("rm", w.Dhow("create", o.there, "x").OK()).OK() // its layers can be laid over each other
	}
}

// command runs our client with words.
func (w *world) command(line string) harness.Result {
	return w.Dhow(strings.Fields(strings.NewReplacer("FILE", w.file, "PLAIN", w.plain).Replace(line))...)
}

func (w *world) setUp(o operation) {
	for _, c := range o.before {
		w.command(c).OK()
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
