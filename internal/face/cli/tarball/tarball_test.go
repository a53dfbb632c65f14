package tarball

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func same(n string) string { return n }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A tar from a hostile engine or container: links, climbing and absolute names reach nothing outside of the folder named.
func TestExtractStaysInside(t *testing.T) {
	for name, hs := range map[string][]tar.Header{
		"climbs":         {{Name: "../canary", Typeflag: tar.TypeReg}},
		"absolute":       {{Name: "HOST/canary", Typeflag: tar.TypeReg}},
		"link":           {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "HOST"}, {Name: "x/canary", Typeflag: tar.TypeReg}},
		"climbing link":  {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "../host"}, {Name: "x/canary", Typeflag: tar.TypeReg}},
		"folder":         {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "HOST"}, {Name: "x/", Typeflag: tar.TypeDir, Mode: 0o777}},
		"hard link":      {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../host/canary"}, {Name: "h", Typeflag: tar.TypeReg}},
		"link's target":  {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "HOST"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "x/canary"}},
		"there already":  {{Name: "old/canary", Typeflag: tar.TypeReg}},
		"replaced":       {{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: "HOST"}, {Name: "d/canary", Typeflag: tar.TypeReg}},
		"device":         {{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"owner and mode": {{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "HOST/canary", Mode: 0o777, Uid: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			host, dir := filepath.Join(top, "host"), filepath.Join(top, "dir")
			must(t, os.Mkdir(host, 0o700))
			must(t, os.Mkdir(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(host, "canary"), []byte("canary"), 0o600))
			must(t, os.Symlink(host, filepath.Join(dir, "old")))
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range hs {
				h.Name, h.Linkname = strings.Replace(h.Name, "HOST", host, 1), strings.Replace(h.Linkname, "HOST", host, 1)
				must(t, w.WriteHeader(&h))
			}
			must(t, w.Close())
			err := Extract(&b, dir, same, os.Getuid() == 0)
			if ok := name == "absolute" || name == "owner and mode"; ok != (err == nil) {
				t.Errorf("got %v", err)
			}
			got, err := os.ReadFile(filepath.Join(host, "canary"))
			fi, serr := os.Stat(filepath.Join(host, "canary"))
			hi, herr := os.Stat(host)
			if err != nil || serr != nil || herr != nil || string(got) != "canary" || fi.Mode() != 0o600 || hi.Mode().Perm() != 0o700 {
				t.Fatalf("the canary: %q %v %v %v", got, err, fi, hi)
			}
			if es, _ := os.ReadDir(host); len(es) != 1 {
				t.Fatalf("made on the host: %v", es)
			}
		})
	}
}

// What is written comes out again: kinds, modes, times, hard links, under another name.
func TestRoundTrip(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "top/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "top/f"), []byte("text"), 0o640))
	must(t, os.Chmod(filepath.Join(src, "top/f"), 0o640|os.ModeSetgid))
	must(t, os.Link(filepath.Join(src, "top/f"), filepath.Join(src, "top/g")))
	must(t, os.Symlink("/nowhere", filepath.Join(src, "top/l")))
	when := time.Unix(1_500_000_000, 0)
	must(t, os.Chtimes(filepath.Join(src, "top"), when, when))
	var b bytes.Buffer
	i, err := Source(filepath.Join(src, "top"), false)
	must(t, err)
	must(t, Write(&b, i, Rename("top", "new")))
	must(t, Extract(&b, dst, same, false))
	f, err := os.Stat(filepath.Join(dst, "new/f"))
	must(t, err)
	g, err := os.Stat(filepath.Join(dst, "new/g"))
	must(t, err)
	if !os.SameFile(f, g) || f.Mode() != 0o640|os.ModeSetgid {
		t.Errorf("f %v, g %v", f, g)
	}
	if l, err := os.Readlink(filepath.Join(dst, "new/l")); err != nil || l != "/nowhere" {
		t.Errorf("l: %q %v", l, err)
	}
	if d, err := os.Stat(filepath.Join(dst, "new")); err != nil || !d.ModTime().Equal(when) {
		t.Errorf("new: %v %v", d, err)
	}
}

// A copy that breaks off leaves whole files only, old ones or new ones.
func TestBrokenOff(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range []string{"one", "old", "new"} {
		must(t, w.WriteHeader(&tar.Header{Name: n, Mode: 0o640, Size: 1 << 20}))
		_, err := w.Write(bytes.Repeat([]byte(n[:1]), 1<<20))
		must(t, err)
	}
	must(t, w.Close())
	for _, c := range []struct {
		bytes int
		want  string // the first byte of each file
	}{{700 << 10, "old=x"}, {1700 << 10, "old=x one=o"}, {2700 << 10, "old=o one=o"}, {b.Len(), "new=n old=o one=o"}} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "old"), []byte("x"), 0o600))
		err := Extract(bytes.NewReader(b.Bytes()[:c.bytes]), dir, same, false)
		if (err == nil) != (c.bytes == b.Len()) {
			t.Errorf("after %d bytes: %v", c.bytes, err)
		}
		var got []string
		es, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range es {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
			if len(text) != 1 && len(text) != 1<<20 {
				t.Errorf("%s has %d bytes", e.Name(), len(text))
			}
			got = append(got, e.Name()+"="+string(text[:1]))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("after %d bytes: %v, want %s", c.bytes, got, c.want)
		}
	}
}

// Docker's table of what a copy is called (docker's documentation of cp).
func TestPlan(t *testing.T) {
	file, dir := Info{Exists: true}, Info{Exists: true, IsDir: true}
	at := func(i Info, p string) Info { i.Path = p; return i }
	for _, c := range []struct {
		src, dst         Info
		in, entry, named string
		err              error
	}{
		{at(file, "/s/f"), at(Info{}, "/d/new"), "/d", "f", "new", nil},
		{at(file, "/s/f"), at(Info{}, "/d/new/"), "", "", "", ErrNoDir},
		{at(file, "/s/f"), at(file, "/d/old"), "/d", "f", "old", nil},
		{at(file, "/s/f"), at(dir, "/d/dir"), "/d/dir", "f", "f", nil},
		{at(dir, "/s/t"), at(Info{}, "/d/new"), "/d", "t/x", "new/x", nil},
		{at(dir, "/s/t"), at(Info{}, "/d/new/"), "/d", "t/x", "new/x", nil},
		{at(dir, "/s/t"), at(file, "/d/old"), "", "", "", ErrCannotCopy},
		{at(dir, "/s/t"), at(dir, "/d/dir"), "/d/dir", "t/x", "t/x", nil},
		{at(dir, "/s/t/."), at(dir, "/d/dir"), "/d/dir", "./x", "./x", nil},
		{at(dir, "/s/t/."), at(Info{}, "/d/new"), "/d", "./x", "new/x", nil},
		{at(dir, "/"), at(Info{}, "/d/new"), "/d", "/x", "new/x", nil},
	} {
		in, rename, err := Plan(c.src, c.dst)
		if err != c.err || in != c.in {
			t.Errorf("%v to %v: %q %v", c.src, c.dst, in, err)
		} else if err == nil && rename(c.entry) != c.named {
			t.Errorf("%v to %v: %q became %q", c.src, c.dst, c.entry, rename(c.entry))
		}
	}
}
