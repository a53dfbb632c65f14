package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dhow-containers/dhow/internal/testkit/harness"
	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// crowd runs the same command by many clients at once.
func (w *world) crowd(n int, args func(i int) []string) []harness.Result {
	out := make([]harness.Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = w.Dhow(args(i)...) })
	}
	wg.Wait()
	return out
}

// won counts those that succeeded, and wants of the others the words.
func won(t *testing.T, what string, all []harness.Result, words string) (n int) {
	t.Helper()
	for _, r := range all {
		if r.Code == 0 {
			n++
		} else if words == "" || !strings.Contains(r.Err, words) {
			t.Errorf("%s: exit code %d: %s", what, r.Code, r.Err)
		}
	}
	return n
}

// TestCrowd is torture case 26: 64 clients want the same at once. One of them wins where one can, a layer comes over the wire once, and
// whatever is pruned and removed meanwhile, nothing that a container needs goes.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const clients = 64
	w := full(t, "--insecure-registry", hostileAddr)
	h := w.Hostile(hostileAddr)
	img := registry.Build(t, registry.Spec{Tars: [][]byte{registry.BusyboxTar(t), registry.Tar(t, registry.Text("etc/motd", "mine\n"))}})
	h.Serve("many:1", img)
	const many = hostileAddr + "/many:1"
	same := func(args ...string) func(int) []string { return func(int) []string { return args } }

	if n := won(t, "pull", w.crowd(clients, same("pull", "-q", many)), ""); n != clients {
		t.Errorf("%d of %d pulls succeeded", n, clients)
	}
	got := map[string]int{}
	for _, s := range h.Seen() {
		if s.Method == "GET" && strings.Contains(s.Path, "/blobs/") {
			got[filepath.Base(s.Path)]++
		}
	}
	if n := got[img.Manifest.Layers[1].Digest.String()]; n != 1 { // the first one was here
		t.Errorf("the layer was fetched %d times", n)
	}
	if n := won(t, "create", w.crowd(clients, same("create", "--name", "one", many, "true")), "already in use"); n != 1 {
		t.Errorf("%d clients made the same container", n)
	}
	if n := won(t, "rm", w.crowd(clients, same("rm", "one")), "o such container"); n < 1 {
		t.Error("nobody removed the container")
	}
	w.Dhow("tag", many, "second:1").OK()
	if n := won(t, "rmi", w.crowd(clients, same("rmi", "second:1")), "No such image"); n != 1 {
		t.Errorf("%d clients removed the same name", n)
	}

	w.Dhow("run", "-d", "--name", "holder", many, "sleep", "1000").OK()
	w.Dhow("rmi", "-f", many)
	w.Dhow("commit", "holder", "kept:1").OK()
	all := w.crowd(clients, func(i int) []string {
		name := fmt.Sprint("c", i)
		return [][]string{{"pull", "-q", many}, {"image", "prune", "-af"}, {"run", "--rm", "--name", name, many, "cat", "/etc/motd"}, {"rmi", "-f", many},
			{"create", "--name", name, "kept:1", "cat", "/etc/motd"}, {"rmi", "kept:1"}, {"exec", "holder", "cat", "/etc/motd"}, {"tag", many, fmt.Sprintf("t%d:1", i)}}[i%8]
	})
	for i, r := range all {
		switch i % 8 {
		case 0, 1, 6: // these always can
			if r.Code != 0 {
				t.Errorf("client %d: %d %s", i, r.Code, r.Err)
			}
		case 2: // it pulls what is missing
			if r.Code == 0 && r.Out != "mine\n" || r.Code != 0 && !strings.Contains(r.Err, "No such image") && !strings.Contains(r.Err, "not found") {
				t.Errorf("client %d: %d %q %s", i, r.Code, r.Out, r.Err)
			}
		}
		if strings.Contains(r.Err, "panic") || strings.Contains(r.Err, "not in the store") {
			t.Errorf("client %d: %s", i, r.Err)
		}
	}
	for _, name := range strings.Fields(w.Dhow("ps", "-a", "--format", "{{.Names}}").OK()) { // whoever was created can start
		if name == "holder" {
			continue
		}
		if out := w.Dhow("start", "-a", name).OK(); out != "mine" {
			t.Errorf("%s says %q", name, out)
		}
	}
	w.Dhow("system", "check").OK()
	for _, name := range strings.Fields(w.Dhow("ps", "-aq").OK()) {
		w.Dhow("rm", "-f", name).OK()
	}
	w.Dhow("image", "prune", "-af").OK()
	if left := w.stored(t); left != "" {
		t.Errorf("all is removed, and there is still\n%s", left)
	}
}
