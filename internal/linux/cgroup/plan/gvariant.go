package plan

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// annotationPrefix begins the annotations that become properties of the container's unit.
const annotationPrefix = "org.systemd.property."

// annotated reads the properties that annotations ask for. Whoever may write annotations of a pod need not be who may administrate the
// host: so names are letters only, what starts programs, acts on the machine or is the runtime's own is refused, and so are control
// characters in values, which systemd writes into a unit file unescaped (CVE-2024-3154).
func annotated(annotations map[string]string) ([]Property, error) {
	var keys []string
	for k := range annotations {
		if strings.HasPrefix(k, annotationPrefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []Property
	for _, k := range keys {
		name := strings.TrimPrefix(k, annotationPrefix)
		if err := checkProperty(name); err != "" {
			return nil, invalid("annotations[%s]: %s", k, err)
		}
		p, err := ParseProperty(annotations[k])
		if err != "" {
			return nil, invalid("annotations[%s]: %.100q: %s", k, annotations[k], err)
		}
		p.Name = name
		if trimmed, ok := strings.CutSuffix(name, "Sec"); ok && trimmed != "" && trimmed[len(trimmed)-1] >= 'a' && trimmed[len(trimmed)-1] <= 'z' {
			if p, ok = seconds(p); !ok {
				return nil, invalid("annotations[%s]: %.100q: not a number of seconds", k, annotations[k])
			}
			p.Name = trimmed + "USec"
		}
		out = append(out, p)
	}
	return out, nil
}

func checkProperty(name string) string {
	if len(name) < 3 || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "a property's name has 3 to 64 letters and nothing else"
	}
	for _, bad := range [...]string{"Exec", "OnFailure", "OnSuccess", "Upholds", "RebootArgument", "Wants", "Requires", "Requisite", "BindsTo", "Conflicts", "Propagates"} {
		if strings.HasPrefix(name, bad) {
			return "this property starts or stops others, which annotations may not"
		}
	}
	if strings.HasSuffix(name, "Action") {
		return "this property acts on the machine, which annotations may not"
	}
	if strings.HasPrefix(name, "RefuseManual") || strings.HasPrefix(name, "Delegate") { // one that refuses to be stopped could not be deleted
		return "this property is the runtime's own"
	}
	for _, own := range [...]string{"PIDs", "Slice", "Controller", "User", "Group", "DevicePolicy", "DeviceAllow", "BPFProgram"} {
		if name == own {
			return "this property is the runtime's own"
		}
	}
	return ""
}

// seconds converts a number of seconds into microseconds.
func seconds(p Property) (Property, bool) {
	var s float64
	switch v := p.Value.(type) {
	case byte:
		s = float64(v)
	case int16:
		s = float64(v)
	case uint16:
		s = float64(v)
	case int32:
		s = float64(v)
	case uint32:
		s = float64(v)
	case int64:
		s = float64(v)
	case uint64:
		s = float64(v)
	case float64:
		s = v
	default:
		return p, false
	}
	us := s * 1e6
	if !(us >= 0 && us < 1<<63) {
		return p, false
	}
	return Property{Name: p.Name, Type: "t", Value: uint64(us)}, true
}

// typeNames are GVariant's words before a value.
var typeNames = [...]struct{ word, sig string }{{"boolean", "b"}, {"byte", "y"}, {"int16", "n"}, {"uint16", "q"}, {"int32", "i"},
	{"uint32", "u"}, {"int64", "x"}, {"uint64", "t"}, {"double", "d"}, {"string", "s"}}

// ParseProperty reads a value in GVariant's text format, as far as properties of units need it: numbers, booleans, strings in quotes and
// arrays of these, each with a type before it ("uint64 5", "@t 5", "@as []") or without. It returns what is wrong, or "".
func ParseProperty(text string) (Property, string) {
	if len(text) > 4096 {
		return Property{}, "longer than 4096 bytes"
	}
	for _, c := range []byte(text) {
		if c < ' ' || c == 0x7f {
			return Property{}, "control characters are refused"
		}
	}
	g := gvariant{s: text}
	p := g.value(g.typed(), true)
	g.space()
	if g.bad == "" && g.s != "" {
		g.bad = "something follows the value"
	}
	return p, g.bad
}

type gvariant struct {
	s   string
	bad string
}

func (g *gvariant) space() { g.s = strings.TrimLeft(g.s, " ") }

func (g *gvariant) fail(why string) Property {
	if g.bad == "" {
		g.bad = why
	}
	return Property{}
}

// typed takes a type that stands before a value; "" if there is none.
func (g *gvariant) typed() string {
	g.space()
	if rest, ok := strings.CutPrefix(g.s, "@"); ok {
		sig, after, ok := strings.Cut(rest, " ")
		if basic := strings.TrimPrefix(sig, "a"); !ok || len(basic) != 1 || !strings.Contains("bynqiuxtds", basic) {
			g.fail("the type after @ is not one of b, y, n, q, i, u, x, t, d, s or an array of one")
			return ""
		}
		g.s = after
		return sig
	}
	for _, t := range typeNames {
		if rest, ok := strings.CutPrefix(g.s, t.word+" "); ok {
			g.s = rest
			return t.sig
		}
	}
	return ""
}

func (g *gvariant) value(sig string, arrays bool) Property {
	g.space()
	switch {
	case g.s == "":
		return g.fail("a value is missing")
	case g.s[0] == '[':
		if !arrays || sig != "" && sig[0] != 'a' {
			return g.fail("an array where a single value is wanted")
		}
		return g.array(strings.TrimPrefix(sig, "a"))
	case strings.HasPrefix(sig, "a"):
		return g.fail("an array was promised")
	case g.s[0] == '\'' || g.s[0] == '"':
		if sig != "" && sig != "s" {
			return g.fail("a string where a number is wanted")
		}
		return g.quoted()
	}
	end := strings.IndexAny(g.s, " ,]")
	if end < 0 {
		end = len(g.s)
	}
	word := g.s[:end]
	g.s = g.s[end:]
	return g.word(word, sig)
}

func (g *gvariant) quoted() Property {
	quote := g.s[0]
	var b strings.Builder
	for i := 1; i < len(g.s); i++ {
		switch c := g.s[i]; {
		case c == quote:
			g.s = g.s[i+1:]
			return Property{Type: "s", Value: b.String()}
		case c == '\\':
			i++
			if i == len(g.s) || g.s[i] != '\\' && g.s[i] != '\'' && g.s[i] != '"' {
				return g.fail("only \\\\, \\' and \\\" are known after a backslash")
			}
			b.WriteByte(g.s[i])
		default:
			b.WriteByte(c)
		}
	}
	return g.fail("a string has no end")
}

func (g *gvariant) word(w, sig string) Property {
	if w == "true" || w == "false" {
		if sig != "" && sig != "b" {
			return g.fail("a boolean where something else is wanted")
		}
		return Property{Type: "b", Value: w == "true"}
	}
	if sig == "" {
		sig = "i"
		if strings.ContainsAny(w, ".eE") && !strings.HasPrefix(w, "0x") {
			sig = "d"
		}
	}
	signed := map[string]int{"n": 16, "i": 32, "x": 64}
	unsigned := map[string]int{"y": 8, "q": 16, "u": 32, "t": 64}
	switch {
	case sig == "d":
		f, err := strconv.ParseFloat(w, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return g.fail("not a number")
		}
		return Property{Type: sig, Value: f}
	case signed[sig] != 0:
		n, err := strconv.ParseInt(w, 0, signed[sig])
		if err != nil {
			return g.fail("not a whole number that fits the type " + sig + "; strings need quotes")
		}
		return Property{Type: sig, Value: map[string]any{"n": int16(n), "i": int32(n), "x": n}[sig]}
	case unsigned[sig] != 0:
		n, err := strconv.ParseUint(w, 0, unsigned[sig])
		if err != nil {
			return g.fail("not a whole number that fits the type " + sig)
		}
		return Property{Type: sig, Value: map[string]any{"y": byte(n), "q": uint16(n), "u": uint32(n), "t": n}[sig]}
	}
	return g.fail("not a value of type " + sig)
}

// array reads values of one type into a slice of them.
func (g *gvariant) array(sig string) Property {
	g.s = g.s[1:]
	var items []any
	for g.bad == "" {
		g.space()
		if len(items) == 0 && strings.HasPrefix(g.s, "]") {
			break
		}
		word := g.typed()
		if word == "" {
			word = sig
		}
		p := g.value(word, false)
		if sig == "" {
			sig = p.Type
		}
		if g.bad == "" && p.Type != sig {
			return g.fail("an array of more than one type")
		}
		items = append(items, p.Value)
		g.space()
		if !strings.HasPrefix(g.s, ",") {
			break
		}
		g.s = g.s[1:]
	}
	if !strings.HasPrefix(g.s, "]") {
		return g.fail("an array has no end")
	}
	g.s = g.s[1:]
	if sig == "" {
		return g.fail("an empty array needs its type, like @as []")
	}
	return Property{Type: "a" + sig, Value: Array(items)}
}

// Array is a value of several of one type.
type Array []any
