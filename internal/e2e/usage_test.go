package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// du is what du(1) says of these.
func du(t *testing.T, globs ...string) int64 {
	t.Helper()
	args := []string{"-sc", "--block-size=1"}
	for _, g := range globs {
		all, err := filepath.Glob(g)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, all...)
	}
	if len(args) == 2 {
		return 0
	}
	out, err := exec.Command("du", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	l := lines(string(out))
	n, err := strconv.ParseInt(strings.Fields(l[len(l)-1])[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// usage is system df in figures.
func usage(t *testing.T, w *world) (images, containers, volumes, free int64) {
	t.Helper()
	var v struct {
		LayersSize                                               int64
		Containers                                               []struct{ SizeRw int64 }
		Volumes                                                  []struct{ UsageData struct{ Size int64 } }
		ImageUsage, ContainerUsage, VolumeUsage, BuildCacheUsage struct{ TotalSize, Reclaimable int64 }
	}
	out, err := exec.Command("curl", "-s", "--unix-socket", w.Socket, "http://d/system/df").Output()
	if err != nil {
		t.Skipf("no curl: %v", err)
	}
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatal(err)
	}
	var c, vol int64
	for _, x := range v.Containers {
		c += x.SizeRw
	}
	for _, x := range v.Volumes {
		vol += x.UsageData.Size
	}
	if c != v.ContainerUsage.TotalSize || vol != v.VolumeUsage.TotalSize || v.LayersSize != v.ImageUsage.TotalSize || v.BuildCacheUsage.TotalSize != 0 {
		t.Errorf("the old form and the new one differ: %s", out)
	}
	return v.ImageUsage.TotalSize, c, vol, v.ImageUsage.Reclaimable
}

// TestDiskUsage: system df is what du says, to the byte, after pulls, runs, a commit, and after all is gone; what it calls reclaimable is
// what a prune gives back.
func TestDiskUsage(t *testing.T) {
	w := full(t)
	compare := func(when string) (images, free int64) {
		t.Helper()
		images, containers, volumes, free := usage(t, w)
		for what, pair := range map[string][2]int64{
			"images":     {images, du(t, w.DataRoot+"/content", w.DataRoot+"/layers")},
			"containers": {containers, du(t, w.DataRoot+"/snapshots/*/upper")},
			"volumes":    {volumes, du(t, w.DataRoot+"/volumes/*/_data")},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %s take %d, du says %d", when, what, pair[0], pair[1])
			}
		}
		return images, free
	}
	compare("busybox")
	for _, img := range []string{"app:1", "app:2"} {
		w.Dhow("pull", "-q", "127.0.0.1:5000/"+img).OK()
	}
	compare("three images")
	w.Dhow("run", "--name", "writer", "-v", "data:/vol", "-v", "/anon", bb, "sh", "-c",
		"dd if=/dev/urandom of=/f bs=1k count=300; ln /f /g; cp /f /vol/x; cp /f /anon/y; echo out").OK()
	compare("a container and volumes")
	w.Dhow("commit", "writer", "mine:1").OK()
	w.Dhow("run", "--rm", "mine:1", "true").OK()
	broken(t, w, 3<<20)
	before, free := compare("a commit, and what a broken pull left")
	out := w.Dhow("image", "prune", "-af").OK()
	after, left := compare("a prune")
	if before-after < free*98/100 || before-after > free || left != 0 { // folders of names shrink as well, or not
		t.Errorf("a prune gave back %d of %d, %d are left; said %s", before-after, free, left, out)
	}
	for _, want := range []string{"Images space usage:", "writer", "data", "Build cache usage: 0B"} {
		if v := w.Dhow("system", "df", "-v").OK(); !strings.Contains(v, want) {
			t.Errorf("no %q in\n%s", want, v)
		}
	}
	docker := w.Docker("system", "df", "--format", "{{.Type}} {{.Size}}").OK()
	if dhow := w.Dhow("system", "df", "--format", "{{.Type}} {{.Size}}").OK(); dhow != docker {
		t.Errorf("dhow says\n%s\ndocker\n%s", dhow, docker)
	}
	if out := w.Docker("system", "df", "-v").OK(); !strings.Contains(out, "SHARED SIZE") || !strings.Contains(out, "writer") {
		t.Error(out)
	}
	w.Dhow("rm", "-v", "writer").OK()
	w.Dhow("volume", "rm", "data").OK()
	compare("the end")
}

// broken leaves so much of a layer's blob as a pull does that broke off.
func broken(t *testing.T, w *world, size int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.DataRoot, "content/partial", digest.FromString("a layer").Encoded()), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestImageStoreSize: beyond the bound images go, nameless ones first, then the one used longest ago; never one that a container uses, nor
// the newest.
func TestImageStoreSize(t *testing.T) {
	w := full(t, "--image-store-size", "13m")
	make := func(name string) {
		t.Helper()
		w.Dhow("run", "--name", "maker", bb, "sh", "-c", "dd if=/dev/urandom of=/f bs=1M count=3").OK()
		w.Dhow("commit", "maker", name).OK()
		w.Dhow("rm", "maker").OK()
	}
	have := func() string {
		return strings.Join(strings.Fields(w.Dhow("images", "--format", "{{.Repository}}").OK()), " ")
	}
	is := func(what string, want ...string) {
		t.Helper()
		eventually(t, what, func() bool {
			got := have()
			for _, n := range want {
				if strings.HasPrefix(n, "!") == strings.Contains(got, strings.TrimPrefix(n, "!")) {
					return false
				}
			}
			return du(t, w.DataRoot+"/content", w.DataRoot+"/layers") <= 13<<20
		}, have)
	}
	make("one") // 2 + 3 MiB with busybox
	make("two")
	w.Dhow("create", "--name", "user", "one").OK()
	broken(t, w, 5<<20) // goes before any image
	make("three")
	is("all fit", "one", "two", "three", "busybox")
	make("two") // the old two has no name any more
	is("the nameless goes", "one", "two", "three", "busybox", "!<none>")
	w.Dhow("run", "--rm", "three", "true").OK()
	make("four")
	is("of those without a container the one used longest ago goes", "one", "!two", "three", "four", "busybox")
	if !strings.Contains(w.Log(), `msg="image removed to keep images below --image-store-size"`) || !strings.Contains(w.Log(), "two:latest") {
		t.Error("the log does not tell")
	}
	if out := w.Dhow("events", "--since", "10m", "--until", "0s", "--filter", "event=delete").OK(); !strings.Contains(out, "reason=image-store-size") {
		t.Errorf("events: %s", out)
	}
	w.Kill()
	w.Run()
	is("after a crash", "one", "three", "four")
}
