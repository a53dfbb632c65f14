package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// maxIDs bounds how many progress lines are redrawn in place.
const maxIDs = 1000

// Progress prints a stream of progress messages. On a terminal of the given width each ID has a line that is redrawn in
// place, and what is downloaded or pushed has a total below them; elsewhere every change of status is a line of its own. It returns the error
// the stream carries, if any.
func Progress(w io.Writer, width int, terminal bool, r io.Reader) error {
	p := &progress{w: w, width: width, terminal: terminal, lines: map[string]int{}, last: map[string]string{}, total: total{now: time.Now}}
	dec := json.NewDecoder(r)
	for {
		var m jsonstream.Message
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read progress: %w", err)
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		p.show(&m)
		if text := p.total.add(&m); text != "" && p.terminal {
			p.put(totalID, text)
		}
	}
}

type progress struct {
	w        io.Writer
	width    int
	terminal bool
	lines    map[string]int    // line of an ID, from the top
	last     map[string]string // status printed last for an ID, when not on a terminal
	total    total
}

func (p *progress) show(m *jsonstream.Message) {
	id, status := Safe(m.ID), Safe(m.Status)
	if m.Stream != "" {
		fmt.Fprint(p.w, SafeText(m.Stream))
		return
	}
	if id == "" && status == "" {
		return // an aux message says nothing to people
	}
	if !p.terminal {
		if id != "" && p.last[id] == status {
			return // only the numbers moved
		}
		p.last[id] = status
		if id == "" {
			fmt.Fprintln(p.w, status)
		} else {
			fmt.Fprintf(p.w, "%s: %s\n", id, status)
		}
		return
	}
	text := status
	if id != "" {
		text = id + ": " + status
	}
	if m.Progress != nil {
		if bar := p.bar(m.Progress, len(text)); bar != "" {
			text += " " + bar
		}
	}
	if id == "" || len(p.lines) > maxIDs {
		fmt.Fprintln(p.w, text)
		p.lines = map[string]int{} // lines above no longer move
		return
	}
	p.put(id, text)
}

// put draws the line of an ID; the total's stays below all others.
func (p *progress) put(id, text string) {
	line, known := p.lines[id]
	if _, below := p.lines[totalID]; !known && below {
		fmt.Fprint(p.w, "\x1b[1A\r\x1b[2K")
		delete(p.lines, totalID)
	}
	if !known {
		p.lines[id] = len(p.lines)
		fmt.Fprintf(p.w, "%s\n", text)
		return
	}
	up := len(p.lines) - line
	fmt.Fprintf(p.w, "\x1b[%dA\r\x1b[2K%s\r\x1b[%dB", up, text, up)
}

// bar draws [====>    ]  3.1MB/9.9MB in what is left of the line.
func (p *progress) bar(g *jsonstream.Progress, used int) string {
	if g.Current <= 0 && g.Total <= 0 {
		return ""
	}
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	if g.Units != "" {
		size = func(n int64) string { return fmt.Sprintf("%d %s", n, Safe(g.Units)) }
	}
	if g.Total <= 0 || g.Current > g.Total {
		return fmt.Sprintf("%8s", size(g.Current))
	}
	counts := fmt.Sprintf("%8s/%s", size(g.Current), size(g.Total))
	if g.HideCounts {
		counts = ""
	}
	left := ""
	if g.Start > 0 && g.Current > 0 && g.Current < g.Total {
		spent := time.Since(time.Unix(g.Start, 0))
		left = " " + (spent / time.Duration(g.Current) * time.Duration(g.Total-g.Current)).Round(time.Second).String()
	}
	cells := 50
	if room := p.width - used - len(counts) - len(left) - 6; room < cells {
		cells = room
	}
	if cells < 5 {
		return strings.TrimSpace(counts + left)
	}
	full := int(int64(cells) * g.Current / g.Total)
	arrow := strings.Repeat("=", full)
	if full < cells {
		arrow += ">" + strings.Repeat(" ", cells-full-1)
	}
	return "[" + arrow + "]" + counts + left
}
