package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// funcs are the functions of a --format template.
func funcs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) string {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(v); err != nil {
				return ""
			}
			return strings.TrimSpace(b.String())
		},
		"join":     strings.Join,
		"split":    strings.Split,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"title":    title,
		"println":  func(v ...any) string { return fmt.Sprintln(v...) },
		"pad":      func(s string, left, right int) string { return pad(s, left, right) },
		"truncate": truncate,
	}
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func pad(s string, left, right int) string {
	if s == "" || left < 0 || right < 0 {
		return s
	}
	return strings.Repeat(" ", left) + s + strings.Repeat(" ", right)
}

func truncate(s string, n int) string {
	if r := []rune(s); n >= 0 && len(r) > n {
		return string(r[:n])
	}
	return s
}

// unescape gives \t and \n between a template's actions their meaning. Within actions they are Go's own business.
func unescape(text string) string {
	var b strings.Builder
	r := strings.NewReplacer(`\t`, "\t", `\n`, "\n")
	for text != "" {
		i := strings.Index(text, "{{")
		if i < 0 {
			i = len(text)
		}
		b.WriteString(r.Replace(text[:i]))
		n := action(text[i:])
		b.WriteString(text[i : i+n])
		text = text[i+n:]
	}
	return b.String()
}

// action is the length of the action that text begins with: up to the }} that stands in no string.
func action(text string) int {
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote == 0 && strings.HasPrefix(text[i:], "}}"):
			return i + 2
		case quote == 0 && (c == '"' || c == '`' || c == '\''):
			quote = c
		case quote != 0 && c == '\\' && quote != '`':
			i++
		case c == quote:
			quote = 0
		}
	}
	return len(text)
}

// Parse compiles a --format template.
func Parse(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(funcs()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("--format: %w", err)
	}
	return t, nil
}

// Table says how a list prints.
type Table struct {
	Default string // the template of the table when none is asked for, without the word table
	Header  any    // a row whose fields are the headings
	Quiet   string // the template of -q
}

// Print writes rows as format asks: empty or "table" for the table, "json" for one object per line, "table TEMPLATE", or a
// template for each row, where \t and \n between actions mean tab and line feed.
func (t Table) Print(w io.Writer, format string, quiet bool, rows []any) error {
	if quiet && (format == "" || format == "table") {
		return each(w, t.Quiet, rows)
	}
	switch {
	case format == "" || format == "table":
		return t.table(w, t.Default, rows)
	case format == "raw":
		return fmt.Errorf("--format raw is not supported; use json")
	case format == "json":
		return each(w, "{{json .}}", rows)
	case strings.HasPrefix(format, "table "):
		return t.table(w, strings.TrimSpace(format[6:]), rows)
	}
	return each(w, format, rows)
}

func (t Table) table(w io.Writer, text string, rows []any) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := each(tw, text, append([]any{t.Header}, rows...)); err != nil {
		return err
	}
	return tw.Flush()
}

func each(w io.Writer, text string, rows []any) error {
	tmpl, err := Parse(unescape(text))
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := tmpl.Execute(w, r); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
	}
	return nil
}
