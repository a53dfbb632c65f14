package tarindex

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
	"github.com/dhow-containers/dhow/internal/testkit/torture"
)

type entry = tar.Header

func build(t testing.TB, hs ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	return b.Bytes()
}

// raw makes one header block by hand, for what archive/tar would not write.
func raw(name string, typ byte, size string, change func(b []byte)) []byte {
	b := make([]byte, block)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if change != nil {
		change(b)
	}
	sum(b)
	return b
}

func sum(b []byte) {
	n := 8 * int(' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			n += int(c)
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", n))
}

func parse(l Limits, b []byte) (*tree.Inode, error) {
	p := New(l)
	if _, err := p.Write(b); err != nil {
		return nil, err
	}
	root, err := p.Finish()
	if err != nil {
		return nil, err
	}
	return root.Tree(), nil
}

func names(root *tree.Inode) string {
	var s []string
	_ = tree.Walk(root, func(p string, _, i *tree.Inode) error {
		if i.Foreign() {
			p += "=>" + i.Link
		} else if i.IsDir() {
			p += "/"
			if i.Dir.Opaque {
				p += "!"
			}
			for _, h := range i.Dir.Hidden() {
				p += "-" + h
			}
		}
		s = append(s, p)
		return nil
	})
	for _, h := range root.Dir.Hidden() {
		s = append(s, "-"+h)
	}
	return strings.Join(s, " ")
}

// TestHostile holds what torture cases 29 to 36 ask: refused with the reason, or confined to the layer.
func TestHostile(t *testing.T) {
	link := func(name, to string) entry { return entry{Name: name, Typeflag: tar.TypeSymlink, Linkname: to} }
	hard := func(name, to string) entry { return entry{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	dir := func(name string) entry { return entry{Name: name, Typeflag: tar.TypeDir} }
	file := func(name string) entry { return entry{Name: name} }
	var chain []entry
	for n := range 255 {
		chain = append(chain, link(fmt.Sprint("l", n), fmt.Sprint("l", n+1)))
	}
	cases := []struct {
		name    string
		entries []entry
		tree    string // what is in the layer, or
		refused string // the reason
	}{
		{"29 up", []entry{file("../../canary")}, "", "leads out of the layer"},
		{"29 up inside", []entry{file("a/../../b")}, "", "leads out of the layer"},
		{"29 dotdot that stays", []entry{file("a/x/../b")}, "a/ a/b", ""},
		{"29 absolute", []entry{file("/abs")}, "abs", ""},
		{"29 path a byte too long", []entry{file(strings.Repeat("a/", 2048) + "x")}, "", "longer than 4096"},
		{"29 long path", []entry{file(strings.Repeat("a/", 2100) + "x")}, "", "longer than 4096"},
		{"29 long name", []entry{file(strings.Repeat("a", 300))}, "", "longer than 255"},
		{"30 through an absolute link", []entry{link("x", "/etc"), file("x/f")}, "etc/ etc/f x", ""},
		{"30 through a climbing link", []entry{link("x", "../../.."), file("x/f")}, "f x", ""},
		{"30 through nested links", []entry{dir("a"), link("a/up", ".."), link("b", "a/up/a/up"), file("b/f")}, "a/ a/up b f", ""},
		{"30 255 links", append(chain, file("l0/f")), "", "more than 40 symbolic links"},
		{"30 a loop", []entry{link("x", "y"), link("y", "x"), file("x/f")}, "", "more than 40 symbolic links"},
		{"30 through a file", []entry{file("x"), file("x/f")}, "", "is used as a directory"},
		{"31 hard link up", []entry{hard("h", "../../etc/shadow")}, "", "leads out of the layer"},
		{"31 hard link to the host's file is the image's", []entry{hard("h", "/etc/shadow")}, "h=>etc/shadow", ""},
		{"31 hard link to a directory", []entry{dir("d"), hard("h", "d")}, "", "points to a directory"},
		{"31 hard link to the root", []entry{hard("h", "/")}, "", "points to a directory"},
		{"31 hard link to a link is the link", []entry{link("l", "/etc/shadow"), hard("h", "l")}, "h l", ""},
		{"32 device out of range", []entry{{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 5000}}, "", "out of range"},
		{"33 root is a link", []entry{link("./", "/etc")}, "", "root entry is no directory"},
		{"33 root is a file", []entry{{Name: "."}}, "", "root entry is no directory"},
		{"34 empty whiteout", []entry{file("a/.wh.")}, "", "names nothing"},
		{"34 whiteout of dot", []entry{file(".wh..")}, "", "names nothing"},
		{"34 whiteout of dotdot", []entry{file(".wh...")}, "", "names nothing"},
		{"34 opaque root", []entry{file(".wh..wh..opq"), file("f")}, "f", ""},
		{"34 whiteout through a link", []entry{dir("r"), link("a", "r"), file("a/.wh.b")}, "a r/-b", ""},
		{"34 whiteout of the longest name", []entry{file(".wh." + strings.Repeat("n", 255))}, "-" + strings.Repeat("n", 255), ""},
		{"34 whiteout of a longer name", []entry{file(".wh." + strings.Repeat("n", 256))}, "", "longer than 255"},
		{"34 below a whiteout", []entry{file(".wh.a/b")}, "", "below a whiteout"},
		{"34 aufs", []entry{file(".wh..wh.aufs"), file(".wh..wh.plnk/1")}, "", ""},
		{"34 overlayfs' own whiteout", []entry{file("x"), {Name: "x", Typeflag: tar.TypeChar}}, "-x", ""},
		{"35 dir then file", []entry{dir("a"), file("a/b"), file("a")}, "a", ""},
		{"35 file then dir", []entry{file("a"), dir("a"), file("a/b")}, "a/ a/b", ""},
		{"35 dir twice", []entry{dir("a"), file("a/b"), dir("a")}, "a/ a/b", ""},
		{"35 root late", []entry{file("a"), dir("./")}, "a", ""},
		{"35 whiteout beside its name", []entry{file(".wh.d"), dir("d"), file(".wh.f"), file("f")}, "d/! f", ""},
		{"owner", []entry{{Name: "f", Uid: 1<<32 - 1}}, "", "out of range"},
		{"owner beyond 32 bits", []entry{{Name: "f", Uid: 1 << 32}}, "", "out of range"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root, err := parse(Limits{}, build(t, c.entries...))
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) || errdef.KindOf(err) != errdef.InvalidArgument {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := names(root); got != c.tree {
				t.Errorf("got %q, want %q", got, c.tree)
			}
		})
	}
}

// TestHostileHeaders feeds headers that no writer makes; each is refused at once and without memory for what it claims.
func TestHostileHeaders(t *testing.T) {
	end := make([]byte, 1024)
	rec := func(k, v string) string {
		s := " " + k + "=" + v + "\n"
		for n := len(s); ; n++ {
			if r := fmt.Sprint(n) + s; len(r) == n {
				return r
			}
		}
	}
	ext := func(typ byte, payload string) []byte {
		b := raw("h", typ, fmt.Sprintf("%011o", len(payload)), nil)
		b = append(b, payload...)
		return append(b, make([]byte, padding(int64(len(payload))))...)
	}
	f := raw("f", '0', "00000000000", nil)
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	cases := []struct {
		name    string
		data    []byte
		refused string // empty: accepted
	}{
		{"plain", join(f, end), ""},
		{"no end", f, ""},
		{"empty", nil, ""},
		{"36 extended header of 1 GiB", raw("x", 'x', "10000000000\x00", nil), "more than 1048576"},
		{"36 extended header of 8 EiB", raw("x", 'L', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", nil), "more than 1048576"},
		{"36 negative size", raw("f", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0", nil), "out of range"},
		{"36 negative size, special", raw("f", 'x', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0", nil), "more than"},
		{"36 size beyond 63 bits", raw("f", '0', "\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", nil), "is no number"},
		{"36 size of 1 PiB", raw("f", '0', "\x80\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00", nil), "out of range"},
		{"36 sparse bomb", join(ext('x', rec("GNU.sparse.major", "0")+rec("GNU.sparse.minor", "1")+rec("GNU.sparse.size", "1099511627776")+rec("GNU.sparse.map", "512,0,1024,512")), raw("f", '0', "00000001000", nil), make([]byte, 512), end), "the holes exceed"},
		{"36 sparse map bomb", join(ext('x', rec("GNU.sparse.major", "0")+rec("GNU.sparse.minor", "1")+rec("GNU.sparse.size", "34359738368")+rec("GNU.sparse.map", "512,0,1024,512")), raw("f", '0', "00000001000", nil), make([]byte, 512), end), "names, attributes and holes exceed"},
		{"36 sparse bomb of one hole", join(ext('x', rec("GNU.sparse.size", "1099511627776")+rec("GNU.sparse.map", "")), f, end), "the holes exceed"},
		{"36 sparse beyond", join(ext('x', rec("GNU.sparse.size", "1099511627777")+rec("GNU.sparse.map", "")), f, end), "sparse"},
		{"36 sparse overlap", join(ext('x', rec("GNU.sparse.size", "4096")+rec("GNU.sparse.map", "0,512,0,512")), raw("f", '0', "00000002000", nil), make([]byte, 1024), end), "out of order"},
		{"36 sparse unaligned", join(ext('x', rec("GNU.sparse.size", "4096")+rec("GNU.sparse.map", "100,512")), raw("f", '0', "00000001000", nil), make([]byte, 512), end), "not aligned"},
		{"36 sparse data differs", join(ext('x', rec("GNU.sparse.size", "4096")+rec("GNU.sparse.map", "0,512")), raw("f", '0', "00000002000", nil), make([]byte, 1024), end), "its data 1024"},
		{"36 sparse map of text", join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.realsize", "4096")), raw("f", '0', "00000001000", nil), append([]byte("1\n0\nx\n"), make([]byte, 505)...), end), "no number"},
		{"36 sparse map of too many", join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.realsize", "4096")), raw("f", '0', "00000001000", nil), append([]byte("1000000000\n"), make([]byte, 501)...), end), "more than 4096"},
		{"36 sparse negative", join(ext('x', rec("GNU.sparse.size", "-1")), f, end), "no number"},
		{"36 PAX sparse", join(ext('x', rec("GNU.sparse.major", "1")+rec("GNU.sparse.minor", "0")+rec("GNU.sparse.realsize", "1099511627776")), f, end), "sparse"},
		{"36 PAX negative size", join(ext('x', rec("size", "-1")), f, end), "out of range"},
		{"36 PAX record longer than the header", join(ext('x', "99999 a=b\n"), f, end), "malformed"},
		{"36 PAX record of no length", join(ext('x', "0 a=b\n"), f, end), "malformed"},
		{"36 PAX record without end", join(ext('x', "6 a=bc"), f, end), "malformed"},
		{"NUL in a PAX path", join(ext('x', rec("path", "a\x00b")), f, end), "NUL"},
		{"NUL in a link", join(ext('x', rec("linkpath", "a\x00b")), raw("l", '2', "00000000000", nil), end), "NUL"},
		{"xattr of 64 KiB", join(ext('x', rec("SCHILY.xattr.user.a", strings.Repeat("v", 1<<16))), f, end), "too large"},
		{"xattrs of 300 KiB", join(ext('x', rec("SCHILY.xattr.user.a", strings.Repeat("v", 65000))+rec("SCHILY.xattr.user.b", strings.Repeat("v", 65000))+
			rec("SCHILY.xattr.user.c", strings.Repeat("v", 65000))+rec("SCHILY.xattr.user.d", strings.Repeat("v", 65000))), f, end), "exceed"},
		{"PAX at the end", ext('x', rec("path", "a")), "behind an extended header"},
		{"garbage behind the end", join(f, end, f), "behind the end"},
		{"a hole amid entries", join(f, end[:512], f), "zero block amid"},
		{"unknown type", join(raw("f", 'Z', "00000000000", nil), end), "unknown type"},
		{"letters for a number", join(raw("f", '0', "0000000xyz0", nil), end), "is no number"},
		{"cut off", f[:300], "middle of an entry"},
		{"padding left out at the end", append(raw("f", '0', "00000000010\x00", nil), "12345678"...), ""},
		{"odd zeros at the end", join(f, end, end[:100]), ""},
		{"cut off in data", raw("f", '0', "00000000010", nil), "middle of an entry"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := parse(Limits{}, c.data)
			runtime.ReadMemStats(&after)
			if c.refused == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("got %v", err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 || time.Since(start) > time.Second {
				t.Errorf("took %d bytes, %v", grown, time.Since(start))
			}
		})
	}
}

// TestLimits: endless small entries, names and special headers end at the limits.
func TestLimits(t *testing.T) {
	many := build(t, entry{Name: "a"}, entry{Name: "b"}, entry{Name: "c"})
	for want, l := range map[string]Limits{"more than 2 entries": {Entries: 2}, "exceed 2 bytes": {Meta: 2}, "larger than 1000 bytes": {Size: 1000}} {
		if _, err := parse(l, many); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := parse(Limits{Entries: 100}, build(t, entry{Name: strings.Repeat("d/", 200) + "f"})); err == nil {
		t.Error("implicit directories are not counted")
	}
	var globals bytes.Buffer
	for range 100 {
		globals.Write(raw("g", 'g', "00000000000", nil))
	}
	if _, err := parse(Limits{Entries: 99}, globals.Bytes()); err == nil {
		t.Error("empty global headers are not counted")
	}
}

func TestMillionEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("a million entries; -short")
	}
	p := New(Limits{Entries: 100_000})
	start := time.Now()
	var err error
	for n := 0; err == nil && n < 1_000_000; n++ {
		_, err = p.Write(raw(fmt.Sprintf("d%d/f%d", n%100, n), '0', "00000000000", nil))
	}
	if err == nil || !strings.Contains(err.Error(), "more than 100000 entries") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("100,000 entries took %v", d)
	}
}

// TestPieces: how the stream is cut does not matter.
func TestPieces(t *testing.T) {
	b := build(t, entry{Name: strings.Repeat("long/", 60) + "x", Size: 700, Format: tar.FormatGNU},
		entry{Name: "p", Size: 3, Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}, entry{Name: "q", Size: 1024})
	whole, err := parse(Limits{}, b)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	tree.Encode(&want, whole)
	for _, n := range []int{1, 7, 511, 512, 513, 4096} {
		p := New(Limits{})
		for r := bytes.NewReader(b); ; {
			buf := make([]byte, n)
			m, err := r.Read(buf)
			if err != nil {
				break
			}
			if _, err := p.Write(buf[:m]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := p.Finish()
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		root.Encode(&got)
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("pieces of %d give another tree", n)
		}
	}
}

// FuzzParse compares with the standard library's reader: whatever both accept, both see alike; nothing panics, and what
// is accepted survives encoding.
func FuzzParse(f *testing.F) {
	f.Add(build(f, entry{Name: "a/", Typeflag: tar.TypeDir}, entry{Name: "a/f", Size: 5}, entry{Name: "h", Typeflag: tar.TypeLink, Linkname: "a/f"}))
	f.Add(build(f, entry{Name: strings.Repeat("long/", 60) + "x", Size: 700, Format: tar.FormatGNU}))
	f.Add(build(f, entry{Name: "p", Size: 3, Format: tar.FormatPAX, ModTime: time.Unix(5, 7), PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}))
	f.Add(raw("f", 'S', "00000000000", nil))
	for _, c := range torture.Cases(f, "/host/folder") {
		f.Add(c.Tar)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		for at := 0; at+block <= len(b); at += block { // or no changed header would ever be read
			if h := b[at : at+block]; string(h[257:262]) == "ustar" {
				sum(h)
			}
		}
		root, err := parse(Limits{Entries: 1000, Special: 1 << 16}, b)
		if err != nil {
			return
		}
		var enc bytes.Buffer
		if err := tree.Encode(&enc, root); err != nil {
			t.Fatal(err)
		}
		back, err := tree.Decode(enc.Bytes())
		if err != nil || names(back) != names(root) {
			t.Fatalf("decoding: %v", err)
		}
		checkAgainst(t, b)
	})
}

func checkAgainst(t *testing.T, b []byte) {
	var ours []header
	p := New(Limits{Entries: 1000, Special: 1 << 16})
	p.build.seen = func(h *header, off int64) { ours = append(ours, *h); ours[len(ours)-1].mode = off }
	if _, err := p.Write(b); err != nil {
		return
	}
	r := bytes.NewReader(b)
	theirs := tar.NewReader(r)
	for n := 0; ; {
		h, err := theirs.Next()
		if errors.Is(err, io.EOF) || err != nil {
			return // stricter than we are in fields that we do not use
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if n >= len(ours) {
			t.Fatalf("the standard library sees one more entry, %q", h.Name)
		}
		o := ours[n]
		off := int64(len(b)) - int64(r.Len())
		if o.name != h.Name || o.link != h.Linkname || o.uid != int64(h.Uid) || o.mode != off {
			t.Fatalf("entry %d: we see %q -> %q uid %d at %d, the standard library %q -> %q uid %d at %d", n, o.name, o.link, o.uid, o.mode, h.Name, h.Linkname, h.Uid, off)
		}
		n++
	}
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile(os.Getenv("LAYER_TAR"))
	if err != nil {
		b.Skip("set LAYER_TAR to a layer")
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := parse(Limits{}, data); err != nil {
			b.Fatal(err)
		}
	}
}
