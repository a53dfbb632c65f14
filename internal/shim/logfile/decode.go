package logfile

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Entry is one entry of a log. Line and Attrs are valid until the next call of Next.
type Entry struct {
	Stream string // "stdout" or "stderr"
	Time   time.Time
	Line   []byte // ends in a newline unless the line was longer than MaxLine or the output ended without one
	Attrs  []byte // JSON object, or nil
	// Gap tells that the file being read was removed by rotation, so that entries may be missing here (with one file kept it is
	// not known whether); the other fields are then empty.
	Gap bool
}

// decoder decodes entries; it keeps the buffers that entries point into.
type decoder struct {
	line    []byte
	stamp   []byte // the text of the last time, as many entries share one
	stampAs time.Time
}

// decode parses one line (without its newline) into e and reports whether it is an entry.
func (d *decoder) decode(b []byte, e *Entry) bool {
	return d.fast(b, e) || d.slow(b, e)
}

// fast takes entries as our writer and Docker write them.
func (d *decoder) fast(b []byte, e *Entry) bool {
	b, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return false
	}
	text, rest, escaped, ok := scanString(b)
	if !ok {
		return false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"`)); !ok {
		return false
	}
	name, rest, esc, ok := scanString(rest)
	if !ok || esc {
		return false
	}
	var attrs []byte
	if bytes.HasPrefix(rest, []byte(`,"attrs":{`)) {
		n := scanObject(rest[len(`,"attrs":`):])
		if n < 0 {
			return false
		}
		attrs, rest = rest[len(`,"attrs":`):][:n], rest[len(`,"attrs":`)+n:]
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"time":"`)); !ok {
		return false
	}
	stamp, rest, esc, ok := scanString(rest)
	if !ok || esc || len(rest) != 1 || rest[0] != '}' || !d.time(stamp) {
		return false
	}
	if escaped {
		if d.line, ok = unescape(d.line[:0], text); !ok {
			return false
		}
		text = d.line
	}
	if !utf8.Valid(text) {
		return false
	}
	*e = Entry{Stream: streamName(name), Time: d.stampAs, Line: text, Attrs: attrs}
	return true
}

// slow takes whatever else is JSON of that shape.
func (d *decoder) slow(b []byte, e *Entry) bool {
	var v struct {
		Log    *string         `json:"log"`
		Stream string          `json:"stream"`
		Time   time.Time       `json:"time"`
		Attrs  json.RawMessage `json:"attrs"`
	}
	if json.Unmarshal(b, &v) != nil || v.Log == nil {
		return false
	}
	*e = Entry{Stream: v.Stream, Time: v.Time, Line: []byte(*v.Log), Attrs: v.Attrs}
	return true
}

func (d *decoder) time(b []byte) bool {
	if bytes.Equal(b, d.stamp) && len(b) > 0 {
		return true
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return false
	}
	d.stamp, d.stampAs = append(d.stamp[:0], b...), t
	return true
}

func streamName(b []byte) string {
	switch string(b) {
	case "stdout":
		return "stdout"
	case "stderr":
		return "stderr"
	}
	return string(b)
}

// scanString returns the text up to the closing quote, raw, and what follows it.
func scanString(b []byte) (text, rest []byte, escaped, ok bool) {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '"')
		if i < 0 {
			return nil, nil, false, false
		}
		i += from
		back := 0
		for back < i && b[i-1-back] == '\\' {
			back++
		}
		if back%2 == 0 {
			text = b[:i]
			return text, b[i+1:], bytes.IndexByte(text, '\\') >= 0, true
		}
		from = i + 1
	}
}

// scanObject returns the length of the flat object of strings that b begins with, or -1.
func scanObject(b []byte) int {
	quoted := false
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == '}':
			if !json.Valid(b[:i+1]) {
				return -1
			}
			return i + 1
		case !quoted && c == '{':
			return -1
		}
	}
	return -1
}

// unescape appends the text that the raw JSON string s stands for.
func unescape(b, s []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(b, s...), true
		}
		b = append(b, s[:i]...)
		if s = s[i+1:]; len(s) == 0 {
			return b, false
		}
		c := s[0]
		s = s[1:]
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'u':
			r := hex4(s)
			if r < 0 {
				return b, false
			}
			s = s[4:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
					low = hex4(s[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			return b, false
		}
	}
}

func hex4(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
