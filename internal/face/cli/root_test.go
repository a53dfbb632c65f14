package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestUsageOnce: the page of every command shows one usage line, in our words.
func TestUsageOnce(t *testing.T) {
	pages := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		pages++
		_, rest, found := strings.Cut(c.UsageString(), "Usage:\n")
		lines, _, _ := strings.Cut(rest, "\n\n")
		if !found || strings.TrimSpace(lines) != c.UseLine() || strings.Contains(rest, "[command]") {
			t.Errorf("%s:\n%s", c.CommandPath(), c.UsageString())
		}
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(newRoot(&app{}, ""))
	if pages < 80 {
		t.Errorf("%d pages", pages)
	}
}
