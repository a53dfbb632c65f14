package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// leastWidth is what the page needs to stay readable.
const leastWidth = 60

// pager lays a report out for a terminal.
type pager struct {
	b      strings.Builder
	width  int
	colour bool
	id     string
}

// explainPage is the report for people: sections of aligned columns, wrapped to the width.
func explainPage(r *report, width int, colour bool) string {
	p := &pager{width: max(width, leastWidth), colour: colour, id: r.ID}
	pid := ""
	if r.Pid > 0 {
		pid = fmt.Sprintf(", process %d", r.Pid)
	}
	p.line("1", fmt.Sprintf("%s (%s): image %s, %s%s", p.cell(r.Name), p.cell(r.ID[:min(12, len(r.ID))]), p.cell(r.Image), p.cell(r.Status), pid))
	switch {
	case r.Differences == 1:
		p.line("31", "1 thing is not as promised; it is marked with !")
	case r.Differences > 1:
		p.line("31", fmt.Sprintf("%d things are not as promised; they are marked with !", r.Differences))
	case r.Pid > 0:
		p.line("", "The kernel holds all that was promised. (= : as promised)")
	}
	for _, n := range r.Notes {
		p.line("33", "note: "+p.cell(n))
	}
	for _, s := range r.Sections {
		p.section(s)
	}
	p.line("", "")
	p.line("1", "PROGRAM")
	if len(r.Program.Lines) == 0 {
		p.line("", "  "+p.cell(r.Program.Note))
	} else {
		p.line("", fmt.Sprintf("  %d host-lane and %d child-lane instructions made it: dhow explain --program %s", r.Program.Host, r.Program.Child, p.cell(r.Name)))
	}
	return p.b.String()
}

// line writes one line in a colour (an SGR parameter, "" for none).
func (p *pager) line(colour, s string) {
	if p.colour && colour != "" {
		s = "\x1b[" + colour + "m" + s + "\x1b[0m"
	}
	p.b.WriteString(s + "\n")
}

// cell is a text that may come from the container: escaped, its long ID shortened.
func (p *pager) cell(s string) string {
	s = format.Safe(s)
	if len(p.id) > 12 {
		s = strings.ReplaceAll(s, p.id, p.id[:12]+"…")
	}
	return s
}

func (p *pager) section(s section) {
	p.line("", "")
	p.line("1", p.cell(strings.ToUpper(s.Title)))
	bare := func(r row) bool { return r.Planned == "" && r.Asked == "" && r.Note == "" && !r.Differs }
	rest := ""
	rows := alike(s.Rows)
	if !slices.ContainsFunc(rows, func(r row) bool { return !bare(r) }) {
		p.table([]string{"WHAT", "KERNEL NOW"}, rows, func(r row) []string { return []string{r.What, r.Kernel} })
		return
	}
	rows = slices.DeleteFunc(rows, func(r row) bool {
		if bare(r) && r.Kernel != "" {
			rest += ", " + r.What + " " + strings.ReplaceAll(r.Kernel, " ", "\u00a0")
		}
		return bare(r)
	})
	p.table([]string{"WHAT", "PROMISED", "KERNEL NOW", "ASKED BY"}, rows, func(r row) []string {
		if r.Kernel == r.Planned && r.Kernel != "" {
			r.Kernel = "="
		}
		return []string{r.What, r.Planned, r.Kernel, r.Asked}
	})
	if rest != "" {
		for i, l := range wrap(p.cell(rest[2:]), p.width-8) {
			lead := "  also: "
			if i > 0 {
				lead = "        "
			}
			p.line("", lead+strings.ReplaceAll(l, "\u00a0", " "))
		}
	}
}

// alike puts things together that are alike in everything but their name.
func alike(in []row) []row {
	var out []row
	for _, r := range in {
		i := slices.IndexFunc(out, func(o row) bool { o.What = r.What; return o == r })
		if i < 0 || r.Planned == "" && r.Asked == "" {
			out = append(out, r)
			continue
		}
		out[i].What += ", " + r.What
	}
	return out
}

// table prints rows in columns; a column that is empty in all rows is left out.
func (p *pager) table(heads []string, rows []row, cells func(row) []string) {
	if len(rows) == 0 {
		return
	}
	text := [][]string{heads}
	used := make([]bool, len(heads))
	for _, r := range rows {
		c := cells(r)
		for i := range c {
			c[i] = p.cell(c[i])
			used[i] = used[i] || c[i] != ""
		}
		text = append(text, c)
	}
	widths := fit(text, used, p.width-2)
	for n, c := range text {
		mark, colour, note := "  ", "", ""
		if n == 0 {
			colour = "2"
		} else if r := rows[n-1]; r.Differs {
			mark, colour = "! ", "31"
		}
		if n > 0 {
			note = rows[n-1].Note
		}
		p.row(mark, colour, c, widths)
		if note != "" {
			for _, l := range wrap(p.cell(note), p.width-6) {
				p.line("33", "    ~ "+l)
			}
		}
	}
}

// row prints one row, as many lines as its tallest cell has.
func (p *pager) row(mark, colour string, cells []string, widths []int) {
	var columns [][]string
	tall := 1
	for i, c := range cells {
		var lines []string
		if widths[i] > 0 {
			lines = wrap(c, widths[i])
		}
		columns = append(columns, lines)
		tall = max(tall, len(lines))
	}
	for n := range tall {
		line := mark
		mark = "  "
		for i, lines := range columns {
			if widths[i] == 0 {
				continue
			}
			s := ""
			if n < len(lines) {
				s = lines[n]
			}
			line += s + strings.Repeat(" ", max(0, widths[i]-len([]rune(s)))+2)
		}
		p.line(colour, strings.TrimRight(line, " "))
	}
}

// fit gives each used column the width it needs, then takes from the widest until all fit.
func fit(text [][]string, used []bool, width int) []int {
	out := make([]int, len(used))
	total := 0
	for i := range used {
		if !used[i] {
			continue
		}
		for _, r := range text {
			out[i] = max(out[i], len([]rune(r[i])))
		}
		total += out[i] + 2
	}
	for total-2 > width {
		// The first column holds names, which read badly when broken: it counts for less.
		widest, most := 0, out[0]-12
		for i, w := range out {
			if i > 0 && w > most {
				widest, most = i, w
			}
		}
		out[widest]--
		total--
	}
	return out
}

// wrap breaks a text into lines of at most width runes, at a space where there is one, else behind a separator, else anywhere.
func wrap(s string, width int) []string {
	var out []string
	r := []rune(s)
	for len(r) > width {
		cut := width
		for _, seps := range []string{" ", ",;/_."} {
			at := 0
			for i := width; i > width/3 && at == 0; i-- {
				if strings.ContainsRune(seps, r[i]) && seps == " " {
					at = i
				} else if seps != " " && strings.ContainsRune(seps, r[i-1]) {
					at = i
				}
			}
			if at > 0 {
				cut = at
				break
			}
		}
		out = append(out, strings.TrimRight(string(r[:cut]), " "))
		r = []rune(strings.TrimLeft(string(r[cut:]), " "))
	}
	return append(out, string(r))
}
