package cli

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

type hitRow struct {
	Name, Description, StarCount, IsOfficial string
}

func cmdSearch(a *app) *cobra.Command {
	var o struct {
		limit   int
		noTrunc bool
		format  string
		filter  []string
	}
	c := words("search [OPTIONS] TERM", "Search Docker Hub, or the registry that TERM begins with", "dhow search --filter is-official=true debian", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			q, err := filterQuery(o.filter)
			if err != nil {
				return usage(c, exitError, err)
			}
			q.Set("term", args[0])
			if o.limit != 0 {
				q.Set("limit", fmt.Sprint(o.limit))
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			head := http.Header{}
			if err := a.authHeader(c.Context(), head, registryOf(args[0])); err != nil {
				return err
			}
			resp, err := api.Open(c.Context(), http.MethodGet, "/images/search", q, nil, head)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var hits []registry.SearchResult
			if err := json.NewDecoder(resp.Body).Decode(&hits); err != nil {
				return err
			}
			return printHits(a, hits, o.format, o.noTrunc)
		})
	f := c.Flags()
	f.StringArrayVarP(&o.filter, "filter", "f", nil, "Show only what matches: is-official=true, stars=3")
	f.StringVar(&o.format, "format", "", "Format of the output: table, json, or a Go template")
	f.IntVar(&o.limit, "limit", 0, "Show at most so many (25 by default)")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten")
	return c
}

func printHits(a *app, hits []registry.SearchResult, text string, full bool) error {
	var rows []any
	for _, h := range hits {
		r := hitRow{Name: format.Safe(h.Name), Description: format.Safe(h.Description), StarCount: fmt.Sprint(h.StarCount)}
		if !full {
			r.Description = format.Ellipsis(r.Description, 45)
		}
		if h.IsOfficial {
			r.IsOfficial = "[OK]"
		}
		rows = append(rows, r)
	}
	t := format.Table{Header: hitRow{"NAME", "DESCRIPTION", "STARS", "OFFICIAL"}, Default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"}
	return t.Print(a.Stdout, text, false, rows)
}
