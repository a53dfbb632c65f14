package logfile

import (
	"bytes"
	"sort"
	"time"
	"unicode/utf8"
)

// MaxLine is the longest piece of a line in one entry, in bytes, as in Docker; longer lines become several entries, of which
// only the last ends in a newline.
const MaxLine = 16 << 10

const hexDigits = "0123456789abcdef"

// plain tells the bytes that stand for themselves in a JSON string as Docker's json-file driver writes it.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = true
	}
	for _, c := range `"\<>&` {
		t[c] = false
	}
	return t
}()

// appendString appends s as a JSON string without its quotes. Invalid UTF-8 becomes \ufffd, byte by byte, as Docker writes it.
func appendString(b, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hexDigits[r&0xf])
		default:
			i += n
			continue
		}
		i += n
		start = i
	}
	return append(b, s[start:]...)
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// appendTail appends what follows the text of an entry: the same for all entries of one piece of output.
func appendTail(b []byte, stream string, attrs []byte, t time.Time) []byte {
	b = append(b, `","stream":"`...)
	b = append(b, stream...)
	b = append(b, '"')
	b = append(b, attrs...)
	b = append(b, `,"time":"`...)
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"', '}', '\n')
}

// encodeAttrs returns `,"attrs":{...}` with sorted keys, or nothing.
func encodeAttrs(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	keys := make([]string, 0, len(attrs))
	for k := range attrs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b := []byte(`,"attrs":{`)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = appendString(b, []byte(k))
		b = append(b, '"', ':', '"')
		b = appendString(b, []byte(attrs[k]))
		b = append(b, '"')
	}
	return append(b, '}')
}

// cut returns how much of p makes the next partial entry: room bytes (p has as many), less when a character would be cut.
func cut(p []byte, room int) int {
	for n := room - 1; n > 0 && n >= room-utf8.UTFMax; n-- {
		if utf8.RuneStart(p[n]) {
			if utf8.FullRune(p[n:room]) {
				return room
			}
			return n
		}
	}
	return room
}

// nextLine returns the length of the first line of p with its newline, or -1.
func nextLine(p []byte) int {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return -1
	}
	return i + 1
}
