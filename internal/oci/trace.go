package oci

import (
	"fmt"
	"io"
	"strings"

	"github.com/dhow-containers/dhow/internal/oci/interp"
	"github.com/dhow-containers/dhow/internal/oci/prog"
)

// trace prints the instructions that were executed in the order in which they began, with when that was and how long each took, in
// microseconds: as its lane saw it, the system call and two readings of the clock. The child's instructions overlap the host's.
func trace(w io.Writer, p *prog.Program, times []interp.Time) error {
	if w == nil || len(times) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("    BEGAN      TOOK (microseconds)\n")
	us := func(ns int64) float64 { return float64(ns) / 1000 }
	for _, t := range times {
		fmt.Fprintf(&b, "%9.1f %9.1f  %s\n", us(t.Begin-times[0].Begin), us(t.End-t.Begin), p.Line(t.Index))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}
