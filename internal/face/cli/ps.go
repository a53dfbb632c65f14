package cli

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

// labelled adds the .Label method to a row.
type labelled struct {
	labels map[string]string
	header bool
}

// Label returns the value of one label.
func (l labelled) Label(name string) string {
	if l.header {
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			name = name[i+1:]
		}
		return strings.NewReplacer("-", " ", "_", " ").Replace(name)
	}
	return format.Safe(l.labels[name])
}

// containerRow is one line of ps; the fields are what templates may name.
type containerRow struct {
	labelled
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform, Ports, RunningFor, Size, State, Status                             string
}

func newContainerHeader() containerRow {
	return containerRow{labelled: labelled{header: true}, Command: "COMMAND", CreatedAt: "CREATED AT", ID: "CONTAINER ID", Image: "IMAGE",
		Labels: "LABELS", LocalVolumes: "LOCAL VOLUMES", Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Platform: "PLATFORM",
		Ports: "PORTS", RunningFor: "CREATED", Size: "SIZE", State: "STATE", Status: "STATUS"}
}

func newContainerRow(c *container.Summary, now time.Time, full bool) containerRow {
	r := containerRow{labelled: labelled{labels: c.Labels}, ID: c.ID, Image: c.Image, Ports: Ports(c.Ports),
		State: string(c.State), Status: c.Status, Labels: joinLabels(c.Labels)}
	if r.Image == "" {
		r.Image = "<no image>"
	}
	cmd, mounts := c.Command, []string{}
	local := 0
	for _, m := range c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !full {
			name = format.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
		if m.Driver == "local" {
			local++
		}
	}
	names := make([]string, 0, len(c.Names))
	for _, n := range c.Names {
		n = strings.TrimPrefix(n, "/")
		if full || !strings.Contains(n, "/") { // links show as parent/alias
			names = append(names, n)
		}
	}
	if !full {
		r.ID, cmd = id.Short(c.ID), format.Ellipsis(cmd, 20)
	}
	created := time.Unix(c.Created, 0)
	r.Command = strconv.Quote(cmd)
	if format.Safe(cmd) == cmd {
		r.Command = `"` + strings.ReplaceAll(cmd, `"`, `\"`) + `"`
	}
	r.CreatedAt, r.RunningFor = created.String(), format.Ago(now, created)
	r.LocalVolumes, r.Mounts, r.Names = strconv.Itoa(local), strings.Join(mounts, ","), strings.Join(names, ",")
	if c.NetworkSettings != nil {
		nets := make([]string, 0, len(c.NetworkSettings.Networks))
		for n := range c.NetworkSettings.Networks {
			nets = append(nets, n)
		}
		sort.Strings(nets)
		r.Networks = strings.Join(nets, ",")
	}
	r.Size = units.HumanSizeWithPrecision(float64(c.SizeRw), 3)
	if c.SizeRootFs > 0 {
		r.Size += fmt.Sprintf(" (virtual %s)", units.HumanSizeWithPrecision(float64(c.SizeRootFs), 3))
	}
	for _, s := range []*string{&r.ID, &r.Image, &r.Ports, &r.State, &r.Status, &r.Mounts, &r.Names, &r.Networks} {
		*s = format.Safe(*s)
	}
	return r
}

func joinLabels(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, format.Safe(k)+"="+format.Safe(v))
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Ports writes published ports the way docker ps does: runs of ports first, then every mapping to another port by itself.
func Ports(list []container.PortSummary) string {
	slices.SortFunc(list, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	type key struct{ ip, proto string }
	type run struct{ first, last uint16 }
	runs := map[key]run{}
	var order []key
	var out, mapped []string
	write := func(k key, r run) string {
		span := strconv.Itoa(int(r.first))
		if r.last != r.first {
			span += "-" + strconv.Itoa(int(r.last))
		}
		if k.ip != "" {
			span = k.ip + ":" + span + "->" + span
		}
		return span + "/" + k.proto
	}
	for _, p := range list {
		k := key{proto: p.Type}
		if p.IP.IsValid() {
			k.ip = p.IP.String()
			if p.IP.Is6() {
				k.ip = "[" + k.ip + "]"
			}
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s:%d->%d/%s", k.ip, p.PublicPort, p.PrivatePort, p.Type))
				continue
			}
		}
		r, known := runs[k]
		switch {
		case !known:
			order = append(order, k)
			r = run{p.PrivatePort, p.PrivatePort}
		case p.PrivatePort == r.last || p.PrivatePort == r.last+1:
			r.last = p.PrivatePort
		default:
			out = append(out, write(k, r))
			r = run{p.PrivatePort, p.PrivatePort}
		}
		runs[k] = r
	}
	for _, k := range order {
		out = append(out, write(k, runs[k]))
	}
	return strings.Join(append(out, mapped...), ", ")
}

func cmdPs(a *app) *cobra.Command { return psCommand(a, "ps") }

func psCommand(a *app, name string) *cobra.Command {
	var o struct {
		all, latest, noTrunc, quiet, size bool
		last                              int
		filter                            []string
		format                            string
	}
	c := words(name, "List containers", "dhow ps -a\ndhow ps --filter label=tier=web --format '{{.Names}} {{.Status}}'", maxArgs(0),
		func(c *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			q, err := filterQuery(o.filter)
			if err != nil {
				return usage(c, exitError, err)
			}
			if o.latest {
				o.last = 1
			}
			if o.last > 0 {
				q.Set("limit", strconv.Itoa(o.last))
			}
			if o.all {
				q.Set("all", "1")
			}
			f := a.listFormat("psFormat", o.format, o.quiet)
			if o.size || strings.Contains(f, ".Size") || strings.Contains(f, "{{json .") {
				q.Set("size", "1")
			}
			var list []container.Summary
			if err := api.Get(c.Context(), "/containers/json", q, &list); err != nil {
				return err
			}
			t := format.Table{Header: newContainerHeader(), Quiet: "{{.ID}}",
				Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"}
			if o.size {
				t.Default += "\t{{.Size}}"
			}
			rows := make([]any, len(list))
			for i := range list {
				rows[i] = newContainerRow(&list[i], time.Now(), o.noTrunc)
			}
			return t.Print(a.Stdout, f, o.quiet, rows)
		})
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show stopped containers as well")
	f.StringArrayVarP(&o.filter, "filter", "f", nil, "Show only what matches (key=value)")
	f.StringVar(&o.format, "format", "", "Format of the output: table, json, or a Go template")
	f.IntVarP(&o.last, "last", "n", -1, "Show the n containers made last")
	f.BoolVarP(&o.latest, "latest", "l", false, "Show the container made last")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Show IDs only")
	f.BoolVarP(&o.size, "size", "s", false, "Show sizes")
	return c
}

// listFormat is the format asked for, or the one config.json names for this kind of list.
func (a *app) listFormat(key, asked string, quiet bool) string {
	if quiet {
		return asked
	}
	return a.preference(key, asked)
}

// preference is what was asked for, or else what config.json says under key.
func (a *app) preference(key, asked string) string {
	if asked != "" {
		return asked
	}
	c, err := a.config()
	if err != nil {
		return ""
	}
	var f string
	if c.get(key, &f) != nil {
		return ""
	}
	return f
}

// filterQuery makes the filters parameter of key=value words.
func filterQuery(words []string) (url.Values, error) {
	q := url.Values{}
	if len(words) == 0 {
		return q, nil
	}
	f := map[string]map[string]bool{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("--filter %q: want key=value", w)
		}
		k, v = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v)
		if f[k] == nil {
			f[k] = map[string]bool{}
		}
		f[k][v] = true
	}
	q.Set("filters", mustJSON(f))
	return q, nil
}
