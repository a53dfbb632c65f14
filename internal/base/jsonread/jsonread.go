// Package jsonread reads JSON in one pass, without reflection: encoding/json studies every type it may meet before it decodes the first
// byte, which takes a short-lived program longer than the decoding.
//
// It promises that what it accepts encoding/json accepts too, with the same meaning, and that strings it returns lie in the text that it
// was given. What it does not expect (null, a key its caller does not know, a key twice) makes it fail, not wrong: callers then ask
// encoding/json, which also has the words for errors. It must never be the one that refuses a document.
package jsonread

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reader reads one document. After a failure all its methods return zero values.
type Reader struct {
	s      string
	i      int
	depth  int
	failed bool
}

// maxDepth is far below encoding/json's 10000 and above what any document of ours has.
const maxDepth = 64

// New returns a reader of s.
func New(s string) *Reader { return &Reader{s: s} }

// Fail tells that the caller did not expect what it read.
func (r *Reader) Fail() { r.failed = true }

// Done tells whether the whole text was read and all of it was expected.
func (r *Reader) Done() bool {
	r.space()
	return !r.failed && r.i == len(r.s)
}

func (r *Reader) space() {
	for r.i < len(r.s) {
		switch r.s[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// token takes c, after white space, if it is next.
func (r *Reader) token(c byte) bool {
	r.space()
	if r.failed || r.i >= len(r.s) || r.s[r.i] != c {
		return false
	}
	r.i++
	return true
}

func (r *Reader) expect(c byte) {
	if !r.token(c) {
		r.failed = true
	}
}

// list reads what stands between brackets, separated by commas.
func (r *Reader) list(open, end byte, item func()) {
	r.expect(open)
	if r.depth++; r.depth > maxDepth {
		r.failed = true
	}
	if !r.failed && !r.token(end) {
		for !r.failed {
			item()
			if r.token(end) {
				break
			}
			r.expect(',')
		}
	}
	r.depth--
}

// Object calls field for each key; it reads the value, or fails.
func (r *Reader) Object(field func(key string)) {
	var seen [48]string
	n := 0
	r.list('{', '}', func() {
		key := r.String()
		for _, k := range seen[:n] {
			if k == key {
				r.failed = true
			}
		}
		if n == len(seen) {
			r.failed = true
			return
		}
		seen[n] = key
		n++
		if r.expect(':'); !r.failed {
			field(key)
		}
	})
}

// Empty takes an object without keys, if it is next.
func (r *Reader) Empty() bool {
	at := r.i
	if r.token('{') && r.token('}') {
		return true
	}
	r.i = at
	return false
}

// Array calls item for each element; it reads the element, or fails.
func (r *Reader) Array(item func()) { r.list('[', ']', item) }

// Strings reads an array of strings; an empty one is not nil.
func (r *Reader) Strings() []string {
	out := make([]string, 0, 8)
	r.Array(func() { out = append(out, r.String()) })
	return out
}

// Map reads an object whose values are strings.
func (r *Reader) Map() map[string]string {
	out := map[string]string{}
	r.list('{', '}', func() {
		key := r.String()
		r.expect(':')
		out[key] = r.String()
	})
	return out
}

// String reads a string.
func (r *Reader) String() string {
	if r.expect('"'); r.failed {
		return ""
	}
	start, plain := r.i, true
	for r.i < len(r.s) {
		switch c := r.s[r.i]; {
		case c == '"':
			text := r.s[start:r.i]
			r.i++
			if plain {
				return text
			}
			return r.decode(r.s[start-1 : r.i])
		case c < ' ':
			r.failed = true
			return ""
		case c == '\\':
			plain = false
			r.i++
		case c >= utf8.RuneSelf:
			plain = plain && utf8.FullRuneInString(r.s[r.i:]) // decode has the last word about broken ones
			if x, n := utf8.DecodeRuneInString(r.s[r.i:]); x == utf8.RuneError && n == 1 {
				plain = false
			}
		}
		r.i++
	}
	r.failed = true
	return ""
}

// decode lets encoding/json read a string with escapes or broken characters.
func (r *Reader) decode(literal string) (out string) {
	if json.Unmarshal([]byte(literal), &out) != nil {
		r.failed = true
	}
	return strings.Clone(out)
}

// number takes the characters of an integer as JSON has it: no plus sign, no leading zero, no fraction.
func (r *Reader) number() string {
	r.space()
	start := r.i
	if r.i < len(r.s) && r.s[r.i] == '-' {
		r.i++
	}
	digits := r.i
	for r.i < len(r.s) && r.s[r.i] >= '0' && r.s[r.i] <= '9' {
		r.i++
	}
	if r.i == digits || r.s[digits] == '0' && r.i > digits+1 {
		r.failed = true
	}
	if r.i < len(r.s) && strings.IndexByte(".eE", r.s[r.i]) >= 0 {
		r.failed = true
	}
	return r.s[start:r.i]
}

// Int reads an integer of that many bits.
func (r *Reader) Int(bits int) int64 {
	n, err := strconv.ParseInt(r.number(), 10, bits)
	if err != nil {
		r.failed = true
	}
	return n
}

// Uint reads an integer of that many bits that is not negative.
func (r *Reader) Uint(bits int) uint64 {
	n, err := strconv.ParseUint(r.number(), 10, bits)
	if err != nil {
		r.failed = true
	}
	return n
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	r.space()
	for _, w := range [2]string{"true", "false"} {
		if !r.failed && strings.HasPrefix(r.s[r.i:], w) {
			r.i += len(w)
			return w == "true"
		}
	}
	r.failed = true
	return false
}

// Null takes null, if it is next.
func (r *Reader) Null() bool {
	r.space()
	if r.failed || !strings.HasPrefix(r.s[r.i:], "null") {
		return false
	}
	r.i += len("null")
	return true
}

// Into has encoding/json decode the value that is next, with the types that it alone needs.
func (r *Reader) Into(v any) {
	r.space()
	start := r.i
	r.skip()
	if !r.failed && json.Unmarshal([]byte(r.s[start:r.i]), v) != nil {
		r.failed = true
	}
}

// skip passes over a value whose form somebody else checks.
func (r *Reader) skip() {
	depth := 0
	for r.space(); !r.failed && r.i < len(r.s); r.space() {
		switch c := r.s[r.i]; c {
		case '"':
			_ = r.String()
		case '{', '[':
			depth++
			r.i++
		case '}', ']':
			depth--
			r.i++
		case ',', ':':
			if depth == 0 {
				return
			}
			r.i++
		default:
			for r.i < len(r.s) && strings.IndexByte(" \t\r\n,:{}[]\"", r.s[r.i]) < 0 {
				r.i++
			}
		}
		if depth <= 0 {
			if depth < 0 {
				r.failed = true
			}
			return
		}
	}
	r.failed = r.failed || depth != 0
}
