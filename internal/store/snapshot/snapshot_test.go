package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/layer"
)

// traces counts what a leak would leave: mounts, this process's descriptors, busy loop devices over files below dir.
func traces(t *testing.T, dir string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	loops := 0
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir) {
			loops++
		}
	}
	return fmt.Sprintf("%d mounts below %s, %d fds, %d loop devices", strings.Count(string(mounts), dir), dir, len(fds), loops)
}

func TestNothingLeaks(t *testing.T) {
	forms(t, func(t *testing.T, w world) {
		chain := w.ingest(t, makeTar(t, entry{name: "a", data: "a"}), makeTar(t, entry{name: "b", data: "b"}))
		if _, err := w.snaps.Prepare(t.Context(), "x", chain); err != nil {
			t.Fatal(err)
		}
		before := traces(t, w.dir)
		r, err := w.snaps.Rootfs(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			m, err := w.snaps.Mount("x", false)
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
			if w.flat {
				continue
			}
			if m, err = overPaths(r); err != nil {
				t.Fatal(err)
			}
			m.Close()
		}
		w.layers.Close()
		var after string
		for range 100 { // loop devices and namespaces are freed a moment later
			if after = traces(t, w.dir); after == before {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("before: %s\nafter: %s", before, after)
	})
}

// TestOlderKernels takes the way that kernels before 6.15 need.
func TestOlderKernels(t *testing.T) {
	base := makeTar(t, entry{name: "./"}, entry{name: "a", data: "a"}, entry{name: "d/"}, entry{name: "d/x", data: "x"})
	top := makeTar(t, entry{name: "d/.wh.x"}, entry{name: "d/y", data: "y"})
	forms(t, func(t *testing.T, w world) {
		r, err := w.snaps.Prepare(t.Context(), "x", w.ingest(t, base, top))
		if err != nil {
			t.Fatal(err)
		}
		if w.flat {
			t.Skip("the same on every kernel")
		}
		m, err := overPaths(r)
		if err != nil {
			t.Fatal(err)
		}
		root := safepath.FromFile(m)
		defer root.Close()
		same(t, describe(t, root), `
. 0755 0:0 T dir
./a 0644 0:0 T reg 1 "a"
./d 0755 0:0 T dir
./d/y 0644 0:0 T reg 1 "y"`)
		f, err := root.Create("d/new", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}

func TestLifecycle(t *testing.T) {
	forms(t, func(t *testing.T, w world) {
		ctx := t.Context()
		if _, err := w.snaps.Prepare(ctx, "none", nil); err != nil {
			t.Fatal(err)
		}
		m, err := w.snaps.Mount("none", false)
		if err != nil {
			t.Fatal(err)
		}
		r := safepath.FromFile(m)
		if f, err := r.Create("f", 0o600); err != nil {
			t.Error(err)
		} else {
			f.Close()
		}
		r.Close()
		if m, err = w.snaps.Mount("none", true); err != nil {
			t.Error(err)
		} else {
			m.Close()
		}
		if _, err := w.snaps.Prepare(ctx, "none", nil); !errdef.Is(err, errdef.Conflict) {
			t.Errorf("twice: %v", err)
		}
		for _, id := range []string{"", ".", "..", "a/b", ".hidden", strings.Repeat("x", 200), "a\x00"} {
			if _, err := w.snaps.Prepare(ctx, id, nil); !errdef.Is(err, errdef.InvalidArgument) {
				t.Errorf("%q: %v", id, err)
			}
			if err := w.snaps.Remove(ctx, id); !errdef.Is(err, errdef.InvalidArgument) {
				t.Errorf("remove %q: %v", id, err)
			}
		}
		if _, err := w.snaps.Prepare(ctx, "y", []digest.Digest{digest.FromString("absent")}); !errdef.Is(err, errdef.NotFound) {
			t.Errorf("absent layer: %v", err)
		}
		for _, left := range []string{coming + "1", going + "2"} {
			os.MkdirAll(filepath.Join(w.snaps.dir, left, "x"), 0o700)
		}
		if ids, err := w.snaps.List(); err != nil || len(ids) != 1 || ids[0] != "none" {
			t.Errorf("list %v %v", ids, err)
		}
		if err := w.snaps.Sweep(); err != nil {
			t.Error(err)
		}
		if err := w.snaps.Remove(ctx, "none"); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{"remove": w.snaps.Remove(ctx, "none"), "rootfs": second(w.snaps.Rootfs(ctx, "none")),
			"usage": third(w.snaps.Usage("none")), "mount": second(w.snaps.Mount("none", true))} {
			if !errdef.Is(err, errdef.NotFound) {
				t.Errorf("%s of none: %v", what, err)
			}
		}
		if ents, err := os.ReadDir(w.snaps.dir); err != nil || len(ents) != 1 { // .scratch
			t.Errorf("left: %v %v", ents, err)
		}
	})
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

// TestCanary: a layer full of ways out leaves the host as it was and shows them confined, in every form.
func TestCanary(t *testing.T) {
	forms(t, func(t *testing.T, w world) {
		host := filepath.Join(w.dir, "host")
		canary := filepath.Join(host, "canary")
		if err := os.Mkdir(host, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(canary, []byte("alive"), 0o640); err != nil {
			t.Fatal(err)
		}
		var before, after unix.Stat_t
		if err := unix.Stat(canary, &before); err != nil {
			t.Fatal(err)
		}
		evil := makeTar(t,
			entry{name: "x", typ: tar.TypeSymlink, link: host},
			entry{name: "x/canary", data: "dead", mode: 0o777},
			entry{name: "y", typ: tar.TypeSymlink, link: "../../../../../../../.." + host},
			entry{name: "y/.wh.canary"},
			entry{name: "y/.wh..wh..opq"},
			entry{name: host + "/abs", data: "abs"},
		)
		second := makeTar(t, entry{name: "x/second", data: "2"}, entry{name: "z", typ: tar.TypeLink, link: "y"})
		got := w.show(t, evil, second)
		if err := unix.Stat(canary, &after); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(canary)
		ents, _ := os.ReadDir(host)
		if string(b) != "alive" || len(ents) != 1 || before.Ctim != after.Ctim {
			t.Errorf("the canary was touched: %q, %d entries", b, len(ents))
		}
		for _, l := range []string{"." + canary + " 0777", "." + host + "/abs 0644", "./x/second 0644", "./z 0777"} {
			if !strings.Contains(got, "\n"+l) {
				t.Errorf("missing %s in\n%s", l, got)
			}
		}
	})
}

// TestAgainstTar compares a real tree with what GNU tar unpacks, object by object.
func TestAgainstTar(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar")
	}
	dir := t.TempDir()
	file, plain := filepath.Join(dir, "t.tar"), filepath.Join(dir, "plain")
	if out, err := exec.Command(gnu, "--format=pax", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--one-file-system", "--warning=no-file-changed",
		"-C", "/", "-cf", file, "etc", "usr/sbin", "usr/share/zoneinfo").CombinedOutput(); err != nil && strings.Contains(string(out), "Cannot") {
		t.Skipf("tar: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	forms(t, func(t *testing.T, w world) {
		os.Mkdir(plain, 0o755)
		defer os.RemoveAll(plain)
		if out, err := exec.Command(gnu, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C", plain, "-xf", file).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r, err := safepath.OpenRoot(plain)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want, got := lines(describe(t, r)), lines(w.show(t, b))
		if len(want) < 500 {
			t.Errorf("only %d objects", len(want))
		}
		bad := 0
		for p, l := range want {
			if got[p] != l && p != "." && p != "./usr" && p != "./usr/share" { // these have no entry: times are the unpacker's
				if bad++; bad < 10 {
					t.Errorf("tar:  %s\nwe:   %s", l, got[p])
				}
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d objects, tar has %d", len(got), len(want))
		}
	})
}

func lines(s string) map[string]string {
	m := map[string]string{}
	for _, l := range strings.Split(s, "\n") {
		p, _, _ := strings.Cut(l, " ")
		m[p] = l
	}
	return m
}

// TestNoSpace: a full disk gives a clear error and leaves nothing, and removing still works on it.
func TestNoSpace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("no tmpfs:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	l, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{Form: layer.FormErofs})
	if err != nil {
		t.Fatal(err)
	}
	small, large := makeTar(t, entry{name: "s", data: "s"}), makeTar(t, entry{name: "l", data: strings.Repeat("l", 4<<20)})
	keep := digest.FromBytes(small)
	if _, err := l.Ingest(t.Context(), keep, bytes.NewReader(small)); err != nil {
		t.Fatal(err)
	}
	_, err = l.Ingest(context.Background(), digest.FromBytes(large), bytes.NewReader(large))
	if err == nil || !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
		t.Errorf("got %v", err)
	}
	if ids, _ := l.List(); len(ids) != 1 {
		t.Errorf("layers: %v", ids)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	fill.Write(make([]byte, 4<<20)) // until it is full
	fill.Close()
	if err := l.Remove(keep); err != nil {
		t.Error(err)
	}
}

// The paths of a hundred layers are longer than what fsconfig(2) and mount(2) take.
func TestManyLayersByPath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	mkdir := func(name string) string {
		p := filepath.Join(dir, strings.Repeat("long", 20), name)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	r := bundle.Rootfs{Upper: mkdir("up,per:1"), Work: mkdir("work"), Scratch: mkdir("scratch")}
	for n := range 100 {
		p := mkdir(fmt.Sprintf("layer:%d", n))
		if err := os.WriteFile(filepath.Join(p, fmt.Sprint(n)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		r.Lower = append(r.Lower, bundle.Layer{Type: layer.FormDir, Source: p})
	}
	m, err := overPaths(r)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil || len(names) != 100 {
		t.Errorf("%d names, %v; want 100", len(names), err)
	}
}
