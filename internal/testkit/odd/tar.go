package odd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// form is how a header says what the fields of 1979 have no room for.
type form int

const (
	plain form = iota // POSIX ustar; pax where that has no room
	pax               // all of it in extended headers
	gnu               // long names as entries before, numbers in base 256
	v7                // no magic; a folder is a file whose name ends in a slash
)

// entry is an entry of a layer.
type entry struct {
	name, link   string
	typ          byte
	mode         int64
	uid, gid     int64
	sec, nsec    int64 // fractions are in pax forms only
	major, minor int64
	data         []byte
	pieces       []piece // sparse files: what data holds, and where
	size         int64   // sparse files
	xattrs       map[string]string
	form         form
}

type piece struct{ at, len int64 }

// writer writes entries byte by byte: archive/tar can write neither sparse files nor broken names. The first error stays.
type writer struct{ *bufio.Writer }

func (w writer) write(b []byte) { _, _ = w.Write(b) }

var zeros [512]byte

// padded writes b and zeros up to a block.
func (w writer) padded(b []byte) {
	w.write(b)
	w.write(zeros[:-len(b)&511])
}

// close ends the archive.
func (w writer) close() error {
	w.write(make([]byte, 1024))
	return w.Flush()
}

// put writes an entry.
func (w writer) put(e entry) {
	switch {
	case e.form == pax && e.pieces != nil:
		w.paxSparse(e)
	case e.form == gnu && e.pieces != nil:
		e.typ = 'S'
		h := e.header(e.name, int64(len(e.data)))
		rest := e.sparseMap(h)
		seal(h)
		w.long(e)
		w.write(h)
		w.write(rest)
		w.padded(e.data)
	default:
		w.before(e, nil)
		h := e.header(e.name, int64(len(e.data)))
		seal(h)
		w.write(h)
		w.padded(e.data)
	}
}

// choose takes pax where the form wanted has no room.
func (e *entry) choose() {
	_, _, fits := split(e.name)
	small := e.uid < 1<<21 && e.gid < 1<<21 && e.sec >= 0 && e.sec < 1<<33 && len(e.link) <= 100
	switch {
	case e.xattrs != nil:
		e.form = pax
	case e.form == plain && (!fits || !small || e.nsec != 0 || e.pieces != nil):
		e.form = pax
	case e.form == v7 && (len(e.name) > 100 || !small || e.nsec != 0 || e.pieces != nil || !strings.ContainsRune("05", rune(e.typ))):
		e.form = pax
	}
	if e.form != pax {
		e.nsec = 0
	}
}

// before writes the headers that stand before an entry's own.
func (w writer) before(e entry, more map[string]string) {
	if e.form == gnu {
		w.long(e)
	}
	if e.form != pax {
		return
	}
	recs := map[string]string{"path": e.name, "mtime": paxTime(e.sec, e.nsec)}
	if e.uid >= 1<<21 || e.gid >= 1<<21 {
		recs["uid"], recs["gid"] = fmt.Sprint(e.uid), fmt.Sprint(e.gid)
	}
	if e.link != "" {
		recs["linkpath"] = e.link
	}
	for k, v := range e.xattrs {
		recs["SCHILY.xattr."+k] = v
	}
	maps.Copy(recs, more)
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(recs)) {
		b.WriteString(record(k, recs[k]))
	}
	h := (&entry{typ: 'x', mode: 0o644}).header("PaxHeaders/x", int64(b.Len()))
	seal(h)
	w.write(h)
	w.padded(b.Bytes())
}

// record is "LENGTH KEY=VALUE\n", where LENGTH counts itself.
func record(k, v string) string {
	n := len(k) + len(v) + 3
	for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
		n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, k, v)
}

func paxTime(sec, nsec int64) string {
	switch {
	case nsec == 0:
		return fmt.Sprint(sec)
	case sec < 0:
		return fmt.Sprintf("-%d.%09d", -(sec + 1), 1e9-nsec)
	}
	return fmt.Sprintf("%d.%09d", sec, nsec)
}

// long writes names longer than a header's fields as GNU tar does.
func (w writer) long(e entry) {
	for n, s := range []string{e.name, e.link} {
		if len(s) > 100 {
			h := (&entry{typ: "LK"[n], form: gnu}).header("././@LongLink", int64(len(s)+1))
			seal(h)
			w.write(h)
			w.padded([]byte(s + "\x00"))
		}
	}
}

// header is a header without its checksum.
func (e *entry) header(name string, size int64) []byte {
	h := make([]byte, 512)
	prefix, rest, fits := split(name)
	if e.form == gnu || e.form == v7 || !fits {
		prefix, rest = "", name[:min(len(name), 100)]
	}
	copy(h[0:100], rest)
	mode, mtime := e.mode, e.sec
	if e.form == pax && (mtime < 0 || mtime >= 1<<33) {
		mtime = 0
	}
	uid, gid := e.uid, e.gid
	if e.form == pax && (uid >= 1<<21 || gid >= 1<<21) {
		uid, gid = 0, 0
	}
	number(h[100:108], mode)
	number(h[108:116], uid)
	number(h[116:124], gid)
	number(h[124:136], size)
	number(h[136:148], mtime)
	h[156] = e.typ
	copy(h[157:257], e.link[:min(len(e.link), 100)])
	switch e.form {
	case v7:
		h[156] = 0
		return h
	case gnu:
		copy(h[257:], "ustar  \x00")
	default:
		copy(h[257:], "ustar\x0000")
		copy(h[345:500], prefix)
	}
	copy(h[265:], "somebody")
	copy(h[297:], "some group")
	number(h[329:337], e.major)
	number(h[337:345], e.minor)
	return h
}

// split cuts a name for ustar's two fields.
func split(name string) (prefix, rest string, fits bool) {
	if len(name) <= 100 {
		return "", name, true
	}
	for i := min(len(name)-2, 155); i > 0; i-- {
		if name[i] == '/' && len(name)-i-1 <= 100 {
			return name[:i], name[i+1:], true
		}
	}
	return "", "", false
}

// number fills a field: octal digits and a NUL, or base 256.
func number(b []byte, v int64) {
	if v >= 0 && v < 1<<(3*(len(b)-1)) {
		copy(b, fmt.Sprintf("%0*o", len(b)-1, v))
		return
	}
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(v))
	if len(b) == 8 {
		copy(b, wide[:])
	} else {
		fill := byte(0)
		if v < 0 {
			fill = 0xff
		}
		for i := range len(b) - 8 {
			b[i] = fill
		}
		copy(b[len(b)-8:], wide[:])
	}
	b[0] |= 0x80
}

// seal puts the checksum into a header.
func seal(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// sparseMap puts GNU's old map into a header of type S and returns the blocks that go on with it.
func (e *entry) sparseMap(h []byte) (rest []byte) {
	ps := e.pieces
	if end := ps[len(ps)-1]; end.at+end.len < e.size {
		ps = append(slices.Clone(ps), piece{e.size, 0})
	}
	fill := func(b []byte, many int) {
		for n := 0; n < many && len(ps) > 0; n++ {
			number(b[24*n:24*n+12], ps[0].at)
			number(b[24*n+12:24*n+24], ps[0].len)
			ps = ps[1:]
		}
	}
	fill(h[386:482], 4)
	number(h[483:495], e.size)
	for more := h[482:483]; len(ps) > 0; {
		more[0] = 1
		b := make([]byte, 512)
		fill(b, 21)
		rest = append(rest, b...)
		more = rest[len(rest)-8 : len(rest)-7]
	}
	return rest
}

// paxSparse writes a sparse file in format 1.0: the map as text before the data.
func (w writer) paxSparse(e entry) {
	var text bytes.Buffer
	ps := e.pieces
	if end := ps[len(ps)-1]; end.at+end.len < e.size {
		ps = append(slices.Clone(ps), piece{e.size, 0})
	}
	fmt.Fprintln(&text, len(ps))
	for _, p := range ps {
		fmt.Fprintf(&text, "%d\n%d\n", p.at, p.len)
	}
	text.Write(make([]byte, -text.Len()&511))
	text.Write(e.data)
	w.before(e, map[string]string{"path": "GNUSparseFile.7/x", "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": e.name, "GNU.sparse.realsize": fmt.Sprint(e.size)})
	h := e.header("GNUSparseFile.7/x", int64(text.Len()))
	seal(h)
	w.write(h)
	w.padded(text.Bytes())
}
