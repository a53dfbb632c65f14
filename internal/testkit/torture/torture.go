// Package torture owns the hostile layers that every entry point for tars is fed with: pull, load, import, copies into containers, and
// commits of what was copied.
//
// It promises that a case is the same bytes in every run, and that none is larger in memory than 64 MiB. It must never be linked into a program.
package torture

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dhow-containers/dhow/internal/testkit/registry"
)

// Any is said where a case may be taken or refused, as long as nothing happens outside.
const Any = "*"

// Case is a tar, and what is said of it; "" is that it is taken.
type Case struct {
	Name  string // begins with its number in the list of hostile cases (docs/security.md)
	Tar   []byte
	Layer string // part of the error when it is to be a layer
	Copy  string // part of the error when it is copied into a container
}

const block = 512

// Header is one tar header by hand, for what no writer makes; size has the field's raw bytes.
func Header(name string, typ byte, size string) []byte {
	b := make([]byte, block)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00        ")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	seal(b)
	return b
}

// seal gives a header its checksum.
func seal(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// Seal gives every header of a tar that somebody changed its checksum again.
func Seal(b []byte) {
	for at := 0; at+block <= len(b); at += block {
		if h := b[at : at+block]; string(h[257:262]) == "ustar" {
			seal(h)
		}
	}
}

// extended is an extended header and its payload.
func extended(typ byte, payload string) []byte {
	b := append(Header("h", typ, fmt.Sprintf("%011o", len(payload))), payload...)
	return append(b, make([]byte, -len(payload)&(block-1))...)
}

// record is one record of an extended header.
func record(k, v string) string {
	s := " " + k + "=" + v + "\n"
	for n := len(s); ; n++ {
		if r := fmt.Sprint(n) + s; len(r) == n {
			return r
		}
	}
}

// Canary is the folder that links of the cases lead to; a test makes it, and looks that nothing in it changes.
type Canary string

// Cases are the torture list's 29 to 36.
func Cases(t testing.TB, host Canary) []Case {
	file := func(name string) registry.File { return registry.Text(name, "x") }
	hard := func(name, to string) registry.File {
		return registry.File{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}}
	}
	node := func(name string, typ byte, major, minor int64) registry.File {
		return registry.File{Header: tar.Header{Name: name, Typeflag: typ, Devmajor: major, Devminor: minor, Mode: 0o666}}
	}
	link, dir := registry.Link, registry.Dir
	var chain []registry.File
	for n := range 255 {
		chain = append(chain, link(fmt.Sprint("l", n), fmt.Sprint("l", n+1)))
	}
	up := strings.Repeat("../", 30) + string(host)[1:]
	overlay := file("f")
	overlay.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": string(host)}
	end := make([]byte, 2*block)
	empty := Header("f", '0', "00000000000")
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	out := []Case{
		{"36 extended header of 1 GiB", Header("x", 'x', "10000000000\x00"), "more than 1048576", "more than 1048576"},
		{"36 extended header of 8 EiB", Header("x", 'L', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), "more than 1048576", "more than 1048576"},
		{"36 negative size", Header("f", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0"), "out of range", "out of range"},
		{"36 size of 1 PiB", Header("f", '0', "\x80\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00"), "out of range", "out of range"},
		{"36 negative size in a record", join(extended('x', record("size", "-1")), empty, end), "out of range", "out of range"},
		{"36 record of no length", join(extended('x', "0 a=b\n"), empty, end), "malformed", "malformed"},
		{"36 100,000 records", join(extended('x', strings.Repeat("8 k=aa\n", 100_000)), empty, end), Any, Any},
		{"36 sparse bomb", join(extended('x', record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+record("GNU.sparse.name", "f")+
			record("GNU.sparse.realsize", "1099511627776")), Header("f", '0', "00000001000"), append([]byte("1\n1099511627776\n0\n"), make([]byte, 495)...), end), "holes exceed", "holes exceed"},
		{"36 old sparse", join(Header("f", 'S', "00000000000"), end), Any, Any},
		{"29 NUL in a path", join(extended('x', record("path", "a\x00b")), empty, end), "NUL", "NUL"},
	}
	for _, c := range []struct {
		name, layer, copy string
		files             []registry.File
	}{
		{"29 climbs", "leads out", "leads out", []registry.File{file("../../canary")}},
		{"29 climbs inside", "leads out", "leads out", []registry.File{file("a/../../b")}},
		{"29 absolute", "", "", []registry.File{file(string(host) + "/canary")}},
		{"29 long path", "longer than 4096", "longer than 4096", []registry.File{file(strings.Repeat("p/", 2100) + "f")}},
		{"29 long name", "longer than 255", "longer than 255", []registry.File{file(strings.Repeat("n", 300))}},
		{"29 deep", Any, "nested deeper", []registry.File{file(strings.Repeat("d/", 1100) + "f")}},
		{"30 through a link", "", "", []registry.File{link("x", string(host)), file("x/canary")}},
		{"30 through a climbing link", "", "", []registry.File{link("x", up), file("x/canary")}},
		{"30 through links to links", "", "", []registry.File{dir("a"), link("a/up", ".."), link("b", "a/up/a/up"), file("b/f")}},
		{"30 255 links", "symbolic links", "symbolic links", append(chain, file("l0/f"))},
		{"30 a loop", "symbolic links", "symbolic links", []registry.File{link("x", "y"), link("y", "x"), file("x/f")}},
		{"31 hard link to the host", Any, "hard link", []registry.File{hard("h", "/etc/shadow-of-the-host")}},
		{"31 hard link to the canary", Any, "hard link", []registry.File{hard("h", string(host)+"/canary")}},
		{"31 hard link that climbs", "leads out", "leads out", []registry.File{hard("h", "../../etc/shadow")}},
		{"31 hard link to a link", "", "", []registry.File{link("l", string(host)+"/canary"), hard("h", "l")}},
		{"31 hard link to a folder", "directory", "directory", []registry.File{dir("d"), hard("h", "d")}},
		{"32 nodes", "", "", []registry.File{node("disk", tar.TypeBlock, 8, 0), node("fifo", tar.TypeFifo, 0, 0), dir("etc"), node("etc/passwd", tar.TypeFifo, 0, 0), node("etc/group", tar.TypeFifo, 0, 0)}},
		{"32 device out of range", "out of range", "out of range", []registry.File{node("d", tar.TypeBlock, 5000, 0)}},
		{"33 root is a link", "root entry", "root entry", []registry.File{link("./", string(host))}},
		{"33 root is a file", "root entry", "root entry", []registry.File{file(".")}},
		{"34 whiteout of dotdot", "names nothing", "", []registry.File{file(".wh...")}},
		{"34 whiteout of nothing", "names nothing", "", []registry.File{file("a/.wh.")}},
		{"34 opaque root", "", "", []registry.File{file(".wh..wh..opq"), file("f")}},
		{"34 whiteout through a link", "", "", []registry.File{link("a", string(host)), file("a/.wh.canary")}},
		{"34 overlay's attributes", "", "", []registry.File{overlay}},
		{"34 overlay's whiteout", "", "0:0", []registry.File{node("w", tar.TypeChar, 0, 0)}},
		{"35 twice", "", "", []registry.File{dir("t"), file("t/in"), file("t"), file("T"), registry.Text("t", "last")}},
		{"35 link, then folder", "", "", []registry.File{link("d", string(host)), dir("d"), file("d/canary")}},
	} {
		out = append(out, Case{c.name, registry.Tar(t, c.files...), c.layer, c.copy})
	}
	return out
}
