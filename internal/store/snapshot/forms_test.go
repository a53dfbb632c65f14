package snapshot

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/linux/safepath"
)

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep

func TestEveryKind(t *testing.T) {
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("d/", 60)
	target := strings.Repeat("t/", 2000) + "t"
	big := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(1)).Read(big)
	b := makeTar(t,
		entry{name: "./", mode: 0o751, uid: 3, gid: 4},
		entry{name: "empty"},
		entry{name: "small", data: "hello", mode: 0o4755, uid: 1000, gid: 2000},
		entry{name: "big", data: string(big)},
		entry{name: "block", data: strings.Repeat("x", 512)},
		entry{name: "owner", uid: 4294967294, gid: 4000000000},
		entry{name: "old", mtime: time.Unix(-5, 0)},
		entry{name: "sticky/", mode: 0o1777},
		entry{name: "setgid/", mode: 0o2775, gid: 50},
		entry{name: "sticky/l", typ: tar.TypeSymlink, link: "../small"},
		entry{name: "long", typ: tar.TypeSymlink, link: target},
		entry{name: "hard", typ: tar.TypeLink, link: "small"},
		entry{name: "sticky/hard2", typ: tar.TypeLink, link: "/small"},
		entry{name: "hardsym", typ: tar.TypeLink, link: "./sticky/l"},
		entry{name: "null", typ: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
		entry{name: "disk", typ: tar.TypeBlock, major: 259, minor: 70000, mode: 0o660},
		entry{name: "pipe", typ: tar.TypeFifo},
		entry{name: "ping", data: "elf", xattrs: map[string]string{"security.capability": capability, "user.note": "a\x00b\nc", "user.none": "",
			"trusted.overlay.redirect": "/etc", "user.overlay.opaque": "y", "trusted.mine": strings.Repeat("v", 3000), "com.apple.x": "1"}},
		entry{name: "xdir/", xattrs: map[string]string{"user.d": "1", "trusted.overlay.opaque": "y"}},
		entry{name: "xdir/" + long, data: "n"},
		entry{name: deep + "end", data: "end"},
		entry{name: "odd name\n\xff", data: "odd"},
		entry{name: "dup", data: "first"},
		entry{name: "dup", data: "last", mode: 0o600},
		entry{name: "kind/"},
		entry{name: "kind/below", data: "gone"},
		entry{name: "kind", data: "file"},
		entry{name: "Case", data: "C"}, entry{name: "case", data: "c"},
	)
	want := fmt.Sprintf(`
. 0751 3:4 T dir
./empty 0644 0:0 T reg 0 ""
./small 4755 1000:2000 T reg 5 "hello" x3
./hard 4755 1000:2000 T reg 5 "hello" x3
./sticky/hard2 4755 1000:2000 T reg 5 "hello" x3
./big 0644 0:0 T reg %d sha256:%x
./block 0644 0:0 T reg 512 sha256:%x
./owner 0644 4294967294:4000000000 T reg 0 ""
./old 0644 0:0 -5.000000000 reg 0 ""
./sticky 1777 0:0 T dir
./setgid 2775 0:50 T dir
./sticky/l 0777 0:0 T link ../small x2
./hardsym 0777 0:0 T link ../small x2
./long 0777 0:0 T link %s
./null 0666 0:0 T chr 1,3
./disk 0660 0:0 T blk 259,70000
./pipe 0644 0:0 T fifo
./ping 0644 0:0 T reg 3 "elf" security.capability=%q trusted.mine=%q user.none="" user.note="a\x00b\nc"
./xdir 0755 0:0 T dir user.d="1"
./xdir/%s 0644 0:0 T reg 1 "n"
./%s 0644 0:0 T reg 3 "odd"
./dup 0600 0:0 T reg 4 "last"
./kind 0644 0:0 T reg 4 "file"
./Case 0644 0:0 T reg 1 "C"
./case 0644 0:0 T reg 1 "c"
./%send 0644 0:0 T reg 3 "end"
`, len(big), sha256.Sum256(big), sha256.Sum256(bytes.Repeat([]byte("x"), 512)), target, capability, strings.Repeat("v", 3000), long, "odd name%\xff", deep)
	for n := 1; n <= 60; n++ {
		want += "./" + strings.Repeat("d/", n)[:2*n-1] + " 0755 0:0 0.000000000 dir\n"
	}
	forms(t, func(t *testing.T, w world) {
		got := strings.Replace(w.show(t, b), "odd name\n", "odd name%", 1)
		same(t, got, want)
	})
}

func TestManyEntries(t *testing.T) {
	var es []entry
	for n := range 3000 {
		es = append(es, entry{name: fmt.Sprintf("many/%d-%s", n, strings.Repeat("z", n%200)), data: fmt.Sprint(n)})
	}
	b := makeTar(t, es...)
	forms(t, func(t *testing.T, w world) {
		got := w.show(t, b)
		if n := strings.Count(got, "\n") + 1; n != 3002 {
			t.Errorf("%d lines", n)
		}
		for _, n := range []int{0, 1, 1234, 2999} {
			l := fmt.Sprintf("./many/%d-%s 0644 0:0 1700000000.123456789 reg %d %q", n, strings.Repeat("z", n%200), len(fmt.Sprint(n)), fmt.Sprint(n))
			if !strings.Contains(got, l) {
				t.Errorf("missing %s", l)
			}
		}
	})
}

func TestLayersOverEachOther(t *testing.T) {
	base := makeTar(t,
		entry{name: "./", mode: 0o700},
		entry{name: "keep", data: "keep"},
		entry{name: "gone", data: "gone"},
		entry{name: "dir/", mode: 0o750, uid: 7},
		entry{name: "dir/a", data: "a"},
		entry{name: "dir/b", data: "b"},
		entry{name: "opq/", mode: 0o755},
		entry{name: "opq/old", data: "old"},
		entry{name: "new/", mode: 0o755},
		entry{name: "new/old", data: "old"},
		entry{name: "was-dir/"}, entry{name: "was-dir/x", data: "x"},
		entry{name: "was-file", data: "f"},
		entry{name: "lib", typ: tar.TypeSymlink, link: "usr/lib"},
		entry{name: "usr/"}, entry{name: "usr/lib/"}, entry{name: "usr/lib/l", data: "l"},
		entry{name: "dev0", data: "hidden by a 0:0 device"},
	)
	second := makeTar(t,
		entry{name: "dir/.wh.a"},
		entry{name: "dir/c", data: "c"}, // dir has no entry: its owner and mode stay
		entry{name: "opq/", mode: 0o711},
		entry{name: "opq/young", data: "young"},
		entry{name: "opq/.wh..wh..opq"},
		entry{name: "new/", mode: 0o700},
		entry{name: ".wh.new"}, // hides base's new, not this layer's
		entry{name: "new/young", data: "young"},
		entry{name: ".wh.gone"},
		entry{name: "was-dir", data: "now a file"},
		entry{name: "was-file/"}, entry{name: "was-file/y", data: "y"},
		entry{name: "h1", typ: tar.TypeLink, link: "dir/b"}, // into the lower layer
		entry{name: ".wh..wh.plnk/1.2", data: "aufs"},
		entry{name: "dev0", typ: tar.TypeChar},
		entry{name: ".wh.never-there"},
	)
	third := makeTar(t,
		entry{name: "./", mode: 0o755, uid: 9},
		entry{name: "dir/.wh.b"},
		entry{name: "gone", data: "back"},
		entry{name: "opq/old", data: "back"},
		entry{name: "h2", data: "two"}, entry{name: "dir/h2", typ: tar.TypeLink, link: "h2"},
	)
	want := `
. 0755 9:0 T dir
./keep 0644 0:0 T reg 4 "keep"
./gone 0644 0:0 T reg 4 "back"
./dir 0750 7:0 T dir
./dir/c 0644 0:0 T reg 1 "c"
./dir/h2 0644 0:0 T reg 3 "two" x2
./h2 0644 0:0 T reg 3 "two" x2
./h1 0644 0:0 T reg 1 "b"
./opq 0711 0:0 T dir
./opq/young 0644 0:0 T reg 5 "young"
./opq/old 0644 0:0 T reg 4 "back"
./new 0700 0:0 T dir
./new/young 0644 0:0 T reg 5 "young"
./was-dir 0644 0:0 T reg 10 "now a file"
./was-file 0755 0:0 T dir
./was-file/y 0644 0:0 T reg 1 "y"
./lib 0777 0:0 T link usr/lib
./usr 0755 0:0 T dir
./usr/lib 0755 0:0 T dir
./usr/lib/l 0644 0:0 T reg 1 "l"
`
	forms(t, func(t *testing.T, w world) {
		same(t, w.show(t, base, second, third), want)
		same(t, w.show(t, base, second, makeTar(t, entry{name: ".wh..wh..opq"}, entry{name: "only", data: "o"})),
			". 0700 0:0 T dir\n./only 0644 0:0 T reg 1 \"o\"")
	})
}

func TestWritesGoUp(t *testing.T) {
	b := makeTar(t, entry{name: "etc/"}, entry{name: "etc/passwd", data: "root:x:0:0"})
	forms(t, func(t *testing.T, w world) {
		chain := w.ingest(t, b)
		for _, id := range []string{"one", "two"} {
			if _, err := w.snaps.Prepare(t.Context(), id, chain); err != nil {
				t.Fatal(err)
			}
		}
		m, err := w.snaps.Mount("one", false)
		if err != nil {
			t.Fatal(err)
		}
		r := safepath.FromFile(m)
		f, err := r.Open("etc/passwd", unix.O_WRONLY|unix.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("+more")
		f.Close()
		if err := r.Remove("etc/passwd"); err != nil {
			t.Fatal(err)
		}
		g, err := r.Create("etc/new", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		g.WriteString(strings.Repeat("n", 10000))
		g.Close()
		r.Close()
		bytes, inodes, err := w.snaps.Usage("one")
		want := int64(4) // upper, etc, the whiteout, new
		if w.flat {
			want--
		}
		if err != nil || inodes != want || bytes < 10000 {
			t.Errorf("usage %d bytes, %d inodes, %v", bytes, inodes, err)
		}
		for id, want := range map[string]string{"one": "", "two": "root:x:0:0"} {
			m, err := w.snaps.Mount(id, true)
			if err != nil {
				t.Fatal(err)
			}
			r := safepath.FromFile(m)
			got, err := r.ReadFile("etc/passwd", 100)
			if string(got) != want || (err != nil) != (want == "") {
				t.Errorf("%s: %q %v", id, got, err)
			}
			if _, err := r.Create("x", 0o600); err == nil {
				t.Errorf("%s: a read-only mount took a write", id)
			}
			r.Close()
			if err := w.snaps.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	})
}

// Some writers end a tar with the last byte of the last file: no padding, no end marker. It is read like any other.
func TestPaddingLeftOut(t *testing.T) {
	forms(t, func(t *testing.T, w world) {
		whole := makeTar(t, entry{name: "first", data: "1"}, entry{name: "last", data: strings.Repeat("x", 1000)})
		cut := whole[:bytes.LastIndexByte(whole, 'x')+1]
		same(t, w.show(t, cut), w.show(t, whole))
	})
}
