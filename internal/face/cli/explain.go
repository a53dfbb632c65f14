package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// report is the engine's answer, as far as the page shows it.
type report struct {
	ID, Name, Image, Status string
	Pid, Differences        int
	Notes                   []string
	Sections                []section
	Program                 listing
}

type section struct {
	Name, Title string
	Rows        []row
}

type row struct {
	What, Asked, Planned, Kernel, Note string
	Differs                            bool
}

type listing struct {
	Host  int `json:"host_lane"`
	Child int `json:"child_lane"`
	Lines []string
	Note  string
}

func cmdExplain(a *app) *cobra.Command {
	var asJSON, program bool
	c := words("explain [OPTIONS] CONTAINER", "Show what a container is made of, who asked for each part, and what the kernel says now",
		"dhow explain web\ndhow explain --json web | jq '.sections[].rows[] | select(.differs)'\ndhow explain --program web", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			if asJSON && program {
				return usage(c, exitError, errors.New("--json and --program exclude each other: the JSON report contains the program"))
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			var raw []byte
			if err := api.Get(c.Context(), "/dhow/containers/"+url.PathEscape(args[0])+"/explain", nil, &raw); err != nil {
				return err
			}
			return a.explained(raw, asJSON, program)
		})
	c.Flags().BoolVar(&asJSON, "json", false, "Print the report as JSON")
	c.Flags().BoolVar(&program, "program", false, "Print the program that made the container, one instruction a line")
	return c
}

// explained prints the answer in the form that was asked for.
func (a *app) explained(raw []byte, asJSON, program bool) error {
	if asJSON {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("the engine's answer is not JSON: %w", err)
		}
		a.out(strings.TrimSpace(b.String()))
		return nil
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("the engine's answer is not a report: %w", err)
	}
	if program {
		if len(r.Program.Lines) == 0 {
			return fmt.Errorf("container %s has no program: %s", r.Name, r.Program.Note)
		}
		for _, l := range r.Program.Lines {
			a.out(format.Safe(l))
		}
		return nil
	}
	width, colour := 100, false
	if fd := int(a.Stdout.Fd()); tty.IsTerminal(fd) {
		if _, cols, err := tty.Size(fd); err == nil && cols > 0 {
			width = int(cols)
		}
		colour = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	fmt.Fprint(a.Stdout, explainPage(&r, width, colour))
	return nil
}
