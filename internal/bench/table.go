package bench

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the report for a reader.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s\nload before %s, after %s\n", r.Machine, r.Load[0], r.Load[1])
	fmt.Fprintf(w, "%s\n", strings.Join(r.Programs, "; "))
	for _, a := range r.Absent {
		fmt.Fprintf(w, "not measured: %s\n", a)
	}
	for _, c := range r.Results {
		fmt.Fprintf(w, "\n%s: %s\n", c.Case, c.What)
		fmt.Fprintf(w, "  %-28s %10s %10s %6s  %s\n", "", "median", "p90", "n", "dhow is")
		for i, s := range c.Samples {
			if s.Note != "" {
				fmt.Fprintf(w, "  %-28s not measured: %s\n", s.Contender, s.Note)
				continue
			}
			ratio := ""
			if i > 0 && c.Samples[0].Note == "" && s.Median > 0 {
				ratio = fmt.Sprintf("%.2f of it", c.Samples[0].Median/s.Median)
			}
			fmt.Fprintf(w, "  %-28s %7.2f %s %7.2f %s %5d  %s\n", s.Contender, s.Median, c.Unit, s.P90, c.Unit, len(s.Values), ratio)
		}
		for _, t := range c.Targets {
			if t.Peer != "" {
				fmt.Fprintf(w, "  target %s: <= %.2f of %s, is %.3f\n", t.State, t.Ratio, t.Peer, t.Is)
			} else {
				fmt.Fprintf(w, "  target %s: <= %g %s, is %.2f\n", t.State, t.Most, c.Unit, t.Is)
			}
		}
	}
}
