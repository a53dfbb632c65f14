package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/pack"
	"github.com/dhow-containers/dhow/internal/store/layer/upper"
)

// below is what changeAll changes.
func below(t *testing.T) []byte {
	return makeTar(t, entry{name: "./", mode: 0o711},
		entry{name: "etc/", mode: 0o750}, entry{name: "etc/passwd", data: "root"}, entry{name: "etc/gone", data: "g"}, entry{name: "etc/keep", data: "k"},
		entry{name: "etc/" + strings.Repeat("w", 255), data: "its whiteout has a longer name than files can have"},
		entry{name: "old/", uid: 7}, entry{name: "old/a", data: "a"}, entry{name: "old/b/"}, entry{name: "old/b/c", data: "c"},
		entry{name: "dir/"}, entry{name: "dir/x", data: "x"}, entry{name: "file", data: "f"}, entry{name: "l1", data: "linked"},
		entry{name: "l2", typ: tar.TypeLink, link: "l1"}, entry{name: "cap", data: "c", xattrs: map[string]string{"security.capability": capability}},
		entry{name: "sock", data: "no socket yet"}, entry{name: "deep/"}, entry{name: "deep/er/"}, entry{name: "deep/er/f", data: "d"})
}

const changeAll = `set -e
echo more >> etc/passwd
rm etc/gone etc/www*
rm -r old; mkdir old; echo n > old/new; mkdir old/b; echo again > old/b/d
rm -r dir; echo now a file > dir
rm file; mkdir file; echo in > file/in
rm sock
echo one > h1; ln h1 h2; ln h1 etc/h3
echo changed >> l1
chmod 4755 cap
mknod null c 1 3; mknod sda b 8 0; mkfifo pipe; mknod whiteout-like c 0 1
ln -s /etc/passwd abs; ln -s ../../.. up; chown -h 5:6 abs
truncate -s 3000000 sparse; printf x | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none
: > empty; mkdir -m 1777 tmp; chown 4000000000:65534 tmp
touch -d '1960-01-02 03:04:05.123456789Z' ancient
touch -d '2300-01-02 03:04:05.000000001Z' later
n=$(printf 'n%.0s' $(seq 200)); mkdir -p "$n/$n"; echo long > "$n/$n/$n"; ln -s "$n/$n/$n" long
printf 'odd' > "$(printf 'a\tb\377c')"
mv deep/er/f deep/er/g
chmod 700 .
`

// attributesToo is what shells have no words for.
func attributesToo(t *testing.T, r *safepath.Root) {
	if err := r.Mknod("sock", unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	setxattr(t, r, "empty", "user.x", "v\x00w\n")
	setxattr(t, r, "empty", "trusted.t", "\x00\x01\xff")
	setxattr(t, r, "tmp", "user.dir", "d")
	setxattr(t, r, "etc", "trusted.overlay.opaque", "y") // overlayfs keeps it apart from its own
}

func setxattr(t *testing.T, r *safepath.Root, p, name, value string) {
	t.Helper()
	h, err := r.Handle(p, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	err = safepath.Setxattr(h, name, []byte(value))
	if errors.Is(err, unix.EOPNOTSUPP) && strings.HasPrefix(name, "trusted.overlay.") {
		t.Logf("%s cannot be set through this kernel's overlayfs (Linux 6.7 can)", name)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
}

// changed makes a snapshot over tars, runs a shell script in it, and then more.
func (w world) changed(t *testing.T, id, script string, more func(*testing.T, *safepath.Root), tars ...[]byte) {
	t.Helper()
	if _, err := w.snaps.Prepare(t.Context(), id, w.ingest(t, tars...)); err != nil {
		t.Fatal(err)
	}
	m, err := w.snaps.Mount(id, false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.Fd())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if more != nil {
		more(t, safepath.FromFile(m))
	}
}

func (w world) see(t *testing.T, id string) string {
	t.Helper()
	m, err := w.snaps.Mount(id, true)
	if err != nil {
		t.Fatal(err)
	}
	r := safepath.FromFile(m)
	defer r.Close()
	return describe(t, r)
}

// TestLayerOfChanges: the tar of a snapshot's changes over the same layers shows what the snapshot shows, and so does an export of it.
func TestLayerOfChanges(t *testing.T) {
	base := below(t)
	forms(t, func(t *testing.T, w world) {
		w.changed(t, "c", changeAll, attributesToo, base)
		var b bytes.Buffer
		n, err := w.snaps.Layer(t.Context(), "c", &b)
		if err != nil || n < 30 {
			t.Fatal(n, err)
		}
		plain := func(text string) string {
			var lines []string
			for _, l := range strings.Split(text, "\n") {
				switch {
				case strings.HasPrefix(l, "./sock "): // a socket is no part of a layer, nor is what would steer overlayfs
				case strings.HasPrefix(l, "./l2 "): // its other name is a file of its own by now, but overlayfs may count as below
					lines = append(lines, strings.TrimSuffix(l, " x2"))
				default:
					lines = append(lines, strings.TrimSuffix(l, ` trusted.overlay.opaque="y"`))
				}
			}
			return strings.Join(lines, "\n")
		}
		want := plain(w.see(t, "c"))
		same(t, plain(w.show(t, base, b.Bytes())), want)
		if out, err := tarList(b.Bytes()); err != nil {
			t.Errorf("GNU tar does not read it: %v: %s", err, out)
		}

		m, err := w.snaps.Mount("c", true)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var all bytes.Buffer
		if err := pack.Tree(t.Context(), m, &all); err != nil {
			t.Fatal(err)
		}
		same(t, plain(w.show(t, all.Bytes())), want)
	})
}

func tarList(b []byte) ([]byte, error) {
	cmd := exec.Command("tar", "-tvf", "-")
	cmd.Stdin = bytes.NewReader(b)
	return cmd.CombinedOutput()
}

func TestChanges(t *testing.T) {
	base := below(t)
	forms(t, func(t *testing.T, w world) {
		w.changed(t, "c", `set -e
			echo >> etc/passwd; rm etc/gone; rm -r old; mkdir old; echo > old/new; rm -r dir; echo > dir; rm file; mkdir file; echo > file/in
			mkdir -p a/b; touch a/b/c; rm -r deep; touch l1; echo > temporary; rm temporary`, nil, base)
		var got []string
		err := w.snaps.Changes(t.Context(), "c", func(c upper.Change) error {
			got = append(got, fmt.Sprintf("%c /%s", "CAD"[c.Kind], c.Path))
			if (c.File == nil) != (c.Kind == upper.Deleted) {
				t.Errorf("%+v", c)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// The root changed its time; an opaque folder tells what it hides before what it has.
		want := "C / A /a A /a/b A /a/b/c D /deep C /dir C /etc D /etc/gone C /etc/passwd C /file A /file/in C /l1 C /old D /old/a D /old/b A /old/new"
		if w.flat { // the link stays one: both names have what was touched
			want = strings.Replace(want, "C /l1", "C /l1 C /l2", 1)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
		}
	})
}

// A snapshot without changes makes a layer without entries, and one without layers is told whole.
func TestLayerOfNothing(t *testing.T) {
	base := below(t)
	forms(t, func(t *testing.T, w world) {
		if _, err := w.snaps.Prepare(t.Context(), "n", w.ingest(t, base)); err != nil {
			t.Fatal(err)
		}
		if n, err := w.snaps.Layer(t.Context(), "n", io.Discard); n != 0 || err != nil {
			t.Error(n, err)
		}
		w.changed(t, "whole", "echo x > f", nil)
		if n, err := w.snaps.Layer(t.Context(), "whole", io.Discard); n != 2 || err != nil { // the root, too: it has another time
			t.Error(n, err)
		}
		if _, err := w.snaps.Layer(t.Context(), "absent", io.Discard); err == nil {
			t.Error("a snapshot that is not there has a layer")
		}
	})
}

// What a layer cannot say is refused by name.
func TestLayerRefuses(t *testing.T) {
	forms(t, func(t *testing.T, w world) {
		equals := func(t *testing.T, r *safepath.Root) { setxattr(t, r, "f", "user.a=b", "x") }
		for id, c := range map[string]struct {
			script, want string
			more         func(*testing.T, *safepath.Root)
		}{
			"wh":    {"mkdir d; touch d/.wh.x", "/d/.wh.x: names that begin with .wh.", nil},
			"equal": {"touch f", `extended attribute "user.a=b"`, equals},
			"deep":  {"mkdir -p $(printf 'd/%.0s' $(seq 1100))", "nested deeper than 1000", nil},
		} {
			w.changed(t, id, c.script, c.more)
			if _, err := w.snaps.Layer(t.Context(), id, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", id, err)
			}
		}
		w.changed(t, "redirect", "mkdir d", nil)
		if w.flat {
			return
		}
		if err := unix.Setxattr(w.snaps.path("redirect", upperDir, "d"), "trusted.overlay.redirect", []byte("/etc"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.snaps.Layer(t.Context(), "redirect", io.Discard); err == nil || !strings.Contains(err.Error(), "redirect_dir") {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.snaps.Layer(ctx, "redirect", io.Discard); err == nil {
			t.Error("a cancelled walk went on")
		}
	})
}
