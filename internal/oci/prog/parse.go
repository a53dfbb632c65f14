package prog

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Line is one instruction as a listing tells it: what WriteTo printed, taken apart again. A listing is for readers; it does not hold the
// memory that a Program needs to run.
type Line struct {
	Number   int      `json:"number"`
	Lane     string   `json:"lane"` // host or child
	Out      Reg      `json:"out,omitempty"`
	Call     string   `json:"call"`               // with its arguments
	Tolerate []string `json:"tolerate,omitempty"` // errnos by name
	Goto     int      `json:"goto,omitempty"`     // where a tolerated errno leads; 0: to the next instruction
	Undo     string   `json:"undo,omitempty"`     // the folder that taking back removes
	Note     string   `json:"note,omitempty"`
	Why      string   `json:"why,omitempty"`
}

// maxLine bounds one line of a listing, in bytes: an argument of execve(2) may be 128 KiB and is printed escaped.
const maxLine = 1 << 20

// ParseListing reads a listing (docs/formats/program.md). It returns errdef.DataLoss with the line's number for what is none.
func ParseListing(r io.Reader) ([]Line, error) {
	var out []Line
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		l, err := ParseLine(s.Text())
		if err != nil {
			return nil, err
		}
		if l.Number != len(out) {
			return nil, errdef.New(errdef.DataLoss, "program listing: line %d is numbered %d", len(out), l.Number)
		}
		out = append(out, l)
	}
	if err := s.Err(); err != nil {
		return nil, errdef.New(errdef.DataLoss, "program listing: line %d: %w", len(out), err)
	}
	return out, nil
}

// ParseLine reads one line of a listing.
func ParseLine(text string) (Line, error) {
	bad := func(what string) (Line, error) {
		return Line{}, errdef.New(errdef.DataLoss, "program listing: %s: %.80q", what, text)
	}
	number, rest, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return bad("no instruction number")
	}
	l := Line{Number: n}
	lane, rest, _ := strings.Cut(rest, " ")
	if lane != "host" && lane != "child" {
		return bad("no lane")
	}
	l.Lane = lane
	code := outsideQuotes(rest, " # ")
	if code < len(rest) {
		l.Note, l.Why = cutReason(rest[code+len(" # "):])
	}
	body := strings.TrimSpace(rest[:code])
	if k := outsideQuotes(body, " undo rmdir("); k < len(body) {
		if l.Undo, err = strconv.Unquote(strings.TrimSuffix(body[k+len(" undo rmdir("):], ")")); err != nil {
			return bad("undo names no folder")
		}
		body = body[:k]
	}
	if k := outsideQuotes(body, " ?"); k < len(body) {
		errnos, target, jumps := strings.Cut(body[k+len(" ?"):], "->")
		if jumps {
			if l.Goto, err = strconv.Atoi(target); err != nil {
				return bad("-> leads nowhere")
			}
		}
		l.Tolerate = strings.Split(errnos, "|")
		if slices.Contains(l.Tolerate, "") {
			return bad("an errno without a name")
		}
		body = body[:k]
	}
	if r, call, ok := strings.Cut(body+" ", " = "); ok && strings.HasPrefix(r, "r") {
		if v, err := strconv.ParseUint(r[1:], 10, 32); err == nil && v != 0 {
			l.Out, body = Reg(v), call
		}
	}
	if l.Call = strings.TrimSpace(body); l.Call == "" {
		return bad("no call")
	}
	return l, nil
}

// outsideQuotes returns where sep stands in s outside of quoted strings, or len(s).
func outsideQuotes(s, sep string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && strings.HasPrefix(s[i:], sep):
			return i
		}
	}
	return len(s)
}

// cutReason takes "NOTE [FIELD]" apart. A field has no blank before its own brackets: mounts[2].
func cutReason(s string) (note, why string) {
	if k := strings.LastIndex(" "+s, " ["); k >= 0 && strings.HasSuffix(s, "]") {
		return strings.TrimSpace(s[:max(k-1, 0)]), s[k+1 : len(s)-1]
	}
	return strings.TrimSpace(s), ""
}
