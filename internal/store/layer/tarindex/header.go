package tarindex

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Type flags (POSIX pax, section "ustar Interchange Format", and GNU tar's).
const (
	typeReg     = '0'
	typeRegOld  = 0
	typeHard    = '1'
	typeSymlink = '2'
	typeChar    = '3'
	typeBlock   = '4'
	typeDir     = '5'
	typeFifo    = '6'
	typeCont    = '7'
	typePAX     = 'x'
	typeGlobal  = 'g'
	typeGNUName = 'L'
	typeGNULink = 'K'
	typeSparse  = 'S'
)

const block = 512

// header is one entry's header, with what extended headers before it said.
type header struct {
	typ          byte
	name, link   string
	mode         int64
	uid, gid     int64
	size         int64
	sec          int64
	nsec         uint32
	major, minor int64
	xattrs       []record
	sparse       *sparseMap // nil: no sparse file
}

type record struct{ key, value string }

// parseHeader reads one 512-byte block whose checksum has been verified.
func parseHeader(b []byte) (h header, err error) {
	n := numbers{err: &err}
	h.typ = b[156]
	h.name = text(b[0:100])
	h.link = text(b[157:257])
	h.mode = n.parse("mode", b[100:108])
	h.uid = n.parse("uid", b[108:116])
	h.gid = n.parse("gid", b[116:124])
	h.size = n.parse("size", b[124:136])
	h.sec = n.parse("mtime", b[136:148])
	if h.typ == typeSparse {
		h.sparse = &sparseMap{size: n.parse("realsize", b[483:495])}
		h.sparse.old(n, b[386:482])
		h.sparse.more = b[482] != 0
	}
	ustar := string(b[257:263]) == "ustar\x00"
	gnu := string(b[257:265]) == "ustar  \x00"
	if ustar || gnu {
		h.major = n.parse("devmajor", b[329:337])
		h.minor = n.parse("devminor", b[337:345])
	}
	if ustar || gnu && h.typ != typeSparse && timeless(b) {
		prefix := b[345:500]
		if string(b[508:512]) == "tar\x00" { // star keeps times behind a shorter prefix
			prefix = b[345:476]
		}
		if p := text(prefix); p != "" && (ustar || ascii(p)) {
			h.name = p + "/" + h.name
		}
	}
	return h, err
}

// timeless reports that what GNU keeps behind the device numbers, access and change time, are no numbers: Go's own writer before
// 1.8, hence Docker's images of that time, could put a ustar prefix there under GNU's magic.
func timeless(b []byte) bool {
	for _, f := range [][]byte{b[345:357], b[357:369]} {
		var err error
		if n := (numbers{err: &err}); f[0] != 0 {
			n.parse("time", f)
		}
		if err != nil {
			return true
		}
	}
	return false
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}

// zero reports whether a block is all zeros; two of them end an archive.
func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// checksum reports whether the header's checksum is right; old tars summed signed bytes.
func checksum(b []byte) bool {
	var err error
	want := numbers{err: &err}.parse("chksum", b[148:156])
	if err != nil {
		return false
	}
	var u, s int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		u += int64(c)
		s += int64(int8(c))
	}
	return want == u || want == s
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

type numbers struct{ err *error }

// parse reads a numeric field: octal text, or GNU's base-256 when the first byte has its top bit set (two's complement).
func (n numbers) parse(field string, b []byte) int64 {
	if b[0]&0x80 != 0 {
		return n.binary(field, b)
	}
	s := strings.Trim(string(b), " \x00")
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = strings.TrimRight(s[:i], " ")
	}
	if s == "" {
		return 0
	}
	v, err := strconv.ParseUint(s, 8, 63)
	if err != nil {
		n.fail(field, b)
	}
	return int64(v)
}

func (n numbers) binary(field string, b []byte) int64 {
	neg := byte(0)
	if b[0]&0x40 != 0 {
		neg = 0xff
	}
	var v uint64
	for i, c := range b {
		c ^= neg
		if i == 0 {
			c &= 0x7f
		}
		if v>>56 != 0 {
			n.fail(field, b)
			return 0
		}
		v = v<<8 | uint64(c)
	}
	if v>>63 != 0 {
		n.fail(field, b)
		return 0
	}
	if neg != 0 {
		return ^int64(v)
	}
	return int64(v)
}

func (n numbers) fail(field string, b []byte) {
	if *n.err == nil {
		*n.err = errdef.New(errdef.InvalidArgument, "tar header: field %s: %q is no number", field, b)
	}
}

// pax parses the records "LENGTH KEY=VALUE\n" of an extended header. Of equal keys the last one counts.
func pax(b string) ([]record, error) {
	bad := func() ([]record, error) {
		return nil, errdef.New(errdef.InvalidArgument, "tar: extended header is malformed near %.40q", b)
	}
	var recs []record
	for b != "" {
		digits, _, ok := strings.Cut(b, " ")
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || n > uint64(len(b)) || n < uint64(len(digits)+4) || b[n-1] != '\n' {
			return bad()
		}
		key, value, ok := strings.Cut(b[len(digits)+1:n-1], "=")
		if !ok || key == "" || strings.IndexByte(key, 0) >= 0 {
			return bad()
		}
		recs = append(recs, record{key, value})
		b = b[n:]
	}
	return recs, nil
}

// merge applies extended records to h. An empty value leaves the header's own.
func (h *header) merge(recs []record) error {
	var err error
	for _, r := range recs {
		name, isXattr := strings.CutPrefix(r.key, "SCHILY.xattr.")
		if isXattr {
			h.setXattr(name, r.value)
			continue
		}
		if key, ok := strings.CutPrefix(r.key, "GNU.sparse."); ok {
			if h.sparse == nil {
				h.sparse = &sparseMap{}
			}
			if err := h.sparse.pax(key, r.value); err != nil {
				return errdef.New(errdef.InvalidArgument, "tar: extended header of %.100q: %w", h.name, err)
			}
			continue
		}
		if r.value == "" {
			continue
		}
		switch r.key {
		case "path":
			h.name = r.value
		case "linkpath":
			h.link = r.value
		case "uid":
			h.uid, err = strconv.ParseInt(r.value, 10, 64)
		case "gid":
			h.gid, err = strconv.ParseInt(r.value, 10, 64)
		case "size":
			h.size, err = strconv.ParseInt(r.value, 10, 64)
		case "mtime":
			h.sec, h.nsec, err = paxTime(r.value)
		case "SCHILY.devmajor":
			h.major, err = strconv.ParseInt(r.value, 10, 64)
		case "SCHILY.devminor":
			h.minor, err = strconv.ParseInt(r.value, 10, 64)
		}
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "tar: extended header of %.100q: %s=%.40q is no number", h.name, r.key, r.value)
		}
	}
	return nil
}

func (h *header) setXattr(name, value string) {
	for i := range h.xattrs {
		if h.xattrs[i].key == name {
			h.xattrs[i].value = value
			return
		}
	}
	h.xattrs = append(h.xattrs, record{name, value})
}

// paxTime parses seconds with an optional fraction, negative included; digits beyond nanoseconds are dropped.
func paxTime(s string) (sec int64, nsec uint32, err error) {
	whole, frac, _ := strings.Cut(s, ".")
	if sec, err = strconv.ParseInt(whole, 10, 64); err != nil || frac == "" {
		return sec, 0, err
	}
	if len(frac) > 9 {
		for _, c := range frac[9:] {
			if c < '0' || c > '9' {
				return 0, 0, strconv.ErrSyntax
			}
		}
		frac = frac[:9]
	}
	n, err := strconv.ParseUint(frac+"000000000"[len(frac):], 10, 32)
	if err != nil {
		return 0, 0, err
	}
	if n > 0 && strings.HasPrefix(whole, "-") {
		return sec - 1, uint32(1e9 - n), nil
	}
	return sec, uint32(n), nil
}
