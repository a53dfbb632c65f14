package change

import "strings"

// lookup finds a variable.
type lookup func(name string) (string, bool)

// pairs reads "k=v k2='v 2'", or the old form "k everything else".
func pairs(name, s string, env lookup) ([][2]string, error) {
	first := s
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		first = s[:i]
	}
	if !strings.Contains(first, "=") {
		if first == s {
			return nil, bad(name, s, "want KEY=VALUE")
		}
		key, err := expand(name, first, env)
		if err != nil {
			return nil, err
		}
		value, err := expand(name, strings.TrimSpace(s[len(first):]), env)
		return [][2]string{{key, value}}, err
	}
	list, err := words(name, s, env)
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for _, w := range list {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, bad(name, w, "want KEY=VALUE")
		}
		out = append(out, [2]string{k, v})
	}
	return out, nil
}

// words cuts s at blanks outside of quotes and expands each part.
func words(name, s string, env lookup) ([]string, error) {
	var out []string
	start, quote := -1, byte(0)
	for i := 0; i <= len(s); i++ {
		if i == len(s) || quote == 0 && (s[i] == ' ' || s[i] == '\t') {
			if start >= 0 {
				w, err := expand(name, s[start:i], env)
				if err != nil {
					return nil, err
				}
				out = append(out, w)
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		switch c := s[i]; {
		case c == '\\' && quote != '\'':
			i++
		case quote == c:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		}
		if i >= len(s) {
			i = len(s) - 1
		}
	}
	return out, nil
}

// expand takes quotes and backslashes away and puts variables in.
func expand(name, s string, env lookup) (string, error) {
	e := &expander{name: name, s: s, env: env}
	out := e.until("", 0)
	return out, e.err
}

type expander struct {
	name, s string
	i       int
	env     lookup
	err     error
}

func (e *expander) fail(why string) {
	if e.err == nil {
		e.err = bad(e.name, e.s, why)
	}
}

const mostNesting = 32

// until reads to one of the bytes in ends, which it leaves, or to the end of the text.
func (e *expander) until(ends string, depth int) string {
	var b strings.Builder
	if depth > mostNesting {
		e.fail("nested too deeply")
	}
	for e.err == nil && e.i < len(e.s) && strings.IndexByte(ends, e.s[e.i]) < 0 {
		c := e.s[e.i]
		e.i++
		switch c {
		case '\'':
			j := strings.IndexByte(e.s[e.i:], '\'')
			if j < 0 {
				e.fail("a quote is not closed")
				return ""
			}
			b.WriteString(e.s[e.i : e.i+j])
			e.i += j + 1
		case '"':
			b.WriteString(e.quoted(depth))
		case '\\':
			if e.i < len(e.s) {
				b.WriteByte(e.s[e.i])
				e.i++
			}
		case '$':
			b.WriteString(e.variable(depth))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (e *expander) quoted(depth int) string {
	var b strings.Builder
	for e.err == nil {
		if e.i >= len(e.s) {
			e.fail("a quote is not closed")
			break
		}
		c := e.s[e.i]
		e.i++
		switch {
		case c == '"':
			return b.String()
		case c == '\\' && e.i < len(e.s) && strings.IndexByte(`"$\`, e.s[e.i]) >= 0:
			b.WriteByte(e.s[e.i])
			e.i++
		case c == '$':
			b.WriteString(e.variable(depth))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func wordByte(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}

// variable reads what stands behind a dollar sign: NAME, {NAME}, {NAME:-else}, {NAME:+then}, {NAME:?message}.
func (e *expander) variable(depth int) string {
	braces := e.i < len(e.s) && e.s[e.i] == '{'
	if braces {
		e.i++
	}
	start := e.i
	for e.i < len(e.s) && wordByte(e.s[e.i], e.i == start) {
		e.i++
	}
	name := e.s[start:e.i]
	if name == "" && !braces {
		return "$"
	}
	value, _ := e.env(name)
	if !braces {
		return value
	}
	op := ""
	if e.i+1 < len(e.s) && e.s[e.i] == ':' {
		op = e.s[e.i : e.i+2]
		e.i += 2
	}
	word := ""
	if op != "" {
		word = e.until("}", depth+1)
	}
	if e.err == nil && (name == "" || e.i >= len(e.s) || e.s[e.i] != '}') {
		e.fail("a variable is not closed or has no name")
		return ""
	}
	e.i++
	switch {
	case op == ":-" && value == "", op == ":+" && value != "":
		return word
	case op == ":+":
		return ""
	case op == ":?" && value == "":
		e.fail(name + " is not set: " + word)
	case op != "" && op != ":-" && op != ":?":
		e.fail("${" + name + op + "...} is not supported")
	}
	return value
}
