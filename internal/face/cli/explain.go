package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func cmdExplain(a *app) *cobra.Command {
	var asJSON bool
	c := words("explain [OPTIONS] CONTAINER", "Show what a container is made of, who asked for each part, and what the kernel says now",
		"dhow explain web\ndhow explain --json web | jq .", exactArgs(1), func(c *cobra.Command, args []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var raw []byte
			if err := api.Get(c.Context(), "/dhow/containers/"+url.PathEscape(args[0])+"/explain", nil, &raw); err != nil {
				return err
			}
			if asJSON {
				var b bytes.Buffer
				if err := json.Indent(&b, raw, "", "  "); err != nil {
					return fmt.Errorf("the engine's answer is not JSON: %w", err)
				}
				a.out(strings.TrimSpace(b.String()))
				return nil
			}
			dec := json.NewDecoder(bytes.NewReader(raw))
			dec.UseNumber()
			var v any
			if err := dec.Decode(&v); err != nil {
				return fmt.Errorf("the engine's answer is not JSON: %w", err)
			}
			var b strings.Builder
			page(&b, v, 0)
			fmt.Fprint(a.Stdout, b.String())
			return nil
		})
	c.Flags().BoolVar(&asJSON, "json", false, "Print the report as JSON")
	return c
}

// page writes any JSON: objects as "key: value" lines, lists of flat objects as aligned columns.
func page(b *strings.Builder, v any, indent int) {
	tab := strings.Repeat("  ", indent)
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Slice(keys, func(i, j int) bool { // short values first, sections after
			if f, g := flat(v[keys[i]]), flat(v[keys[j]]); f != g {
				return f
			}
			return keys[i] < keys[j]
		})
		for _, k := range keys {
			if flat(v[k]) {
				fmt.Fprintf(b, "%s%s: %s\n", tab, format.Safe(k), cell(v[k]))
				continue
			}
			fmt.Fprintf(b, "%s%s\n", tab, format.Safe(strings.ToUpper(k)))
			page(b, v[k], indent+1)
		}
	case []any:
		if columns(b, v, tab) {
			return
		}
		for _, e := range v {
			if flat(e) {
				fmt.Fprintf(b, "%s%s\n", tab, cell(e))
				continue
			}
			page(b, e, indent)
			b.WriteString("\n")
		}
	default:
		fmt.Fprintf(b, "%s%s\n", tab, cell(v))
	}
}

func flat(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return true
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		return format.Safe(v)
	case map[string]any, []any:
		return "-"
	}
	return format.Safe(fmt.Sprint(v))
}

// columns prints a list of flat objects as a table; false when it is not one.
func columns(b *strings.Builder, list []any, tab string) bool {
	var keys []string
	seen := map[string]bool{}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range m {
			if !flat(v) {
				return false
			}
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	rank := map[string]int{"what": -3, "asked-by": -2, "asked": -2, "kernel": -1}
	sort.Slice(keys, func(i, j int) bool {
		if rank[keys[i]] != rank[keys[j]] {
			return rank[keys[i]] < rank[keys[j]]
		}
		return keys[i] < keys[j]
	})
	width := make([]int, len(keys))
	rows := [][]string{make([]string, len(keys))}
	for i, k := range keys {
		rows[0][i] = strings.ToUpper(format.Safe(k))
	}
	for _, e := range list {
		r := make([]string, len(keys))
		for i, k := range keys {
			r[i] = cell(e.(map[string]any)[k])
		}
		rows = append(rows, r)
	}
	for _, r := range rows {
		for i, s := range r {
			width[i] = max(width[i], len([]rune(s)))
		}
	}
	for _, r := range rows {
		line := tab
		for i, s := range r {
			line += s + strings.Repeat(" ", width[i]-len([]rune(s))+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return true
}
