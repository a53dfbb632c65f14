package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

func cmdStats(a *app) *cobra.Command {
	var all, once, noTrunc bool
	var fm string
	c := words("stats [OPTIONS] [CONTAINER...]", "Show the resources containers use", "dhow stats --no-stream web", minArgs(0),
		func(c *cobra.Command, args []string) error {
			for {
				rows, err := statsRows(a, c.Context(), args, all, noTrunc)
				if err != nil {
					return err
				}
				t := format.Table{Header: statsRow{"BLOCK I/O", "CPU %", "CONTAINER", "CONTAINER ID", "MEM %", "MEM USAGE / LIMIT", "NAME", "NET I/O", "PIDS"},
					Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"}
				if !once && tty.IsTerminal(int(a.Stdout.Fd())) {
					fmt.Fprint(a.Stdout, "\x1b[H\x1b[2J")
				}
				if err := t.Print(a.Stdout, fm, false, rows); err != nil || once {
					return err
				}
				select {
				case <-c.Context().Done():
					return nil
				case <-time.After(100 * time.Millisecond): // each sample took a second already
				}
			}
		})
	c.Flags().BoolVarP(&all, "all", "a", false, "Show stopped containers as well")
	c.Flags().StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	c.Flags().BoolVar(&once, "no-stream", false, "Show one sample and end")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "Do not shorten")
	return c
}

func statsRows(a *app, ctx context.Context, refs []string, all, full bool) ([]any, error) {
	api, err := a.client()
	if err != nil {
		return nil, err
	}
	named := len(refs) > 0
	if !named {
		q := url.Values{}
		if all {
			q.Set("all", "1")
		}
		var list []container.Summary
		if err := api.Get(ctx, "/containers/json", q, &list); err != nil {
			return nil, err
		}
		for _, s := range list {
			refs = append(refs, s.ID)
		}
	}
	rows, errs := make([]any, len(refs)), make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Add(1)
		go func() { // ends with the engine's answer, which takes a second
			defer wg.Done()
			var s container.StatsResponse
			if errs[i] = api.Get(ctx, containerPath(ref, "/stats"), url.Values{"stream": {"0"}}, &s); errs[i] == nil {
				rows[i] = newStatsRow(ref, &s, full)
			}
		}()
	}
	wg.Wait()
	kept := rows[:0]
	for i, r := range rows {
		if errs[i] != nil && (named || !isMissing(errs[i])) {
			return nil, errs[i]
		}
		if r != nil {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

func newStatsRow(ref string, s *container.StatsResponse, full bool) statsRow {
	r := statsRow{Container: format.Safe(ref), ID: format.Safe(s.ID), Name: format.Safe(strings.TrimPrefix(s.Name, "/"))}
	if !full {
		r.ID = id.Short(r.ID)
	}
	cpu := 0.0
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	span := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if span > 0 && used > 0 {
		cpu = used / span * cpus * 100
	}
	mem := memoryInUse(&s.MemoryStats)
	perc := 0.0
	if s.MemoryStats.Limit > 0 {
		perc = float64(mem) / float64(s.MemoryStats.Limit) * 100
	}
	var rx, tx, rd, wr uint64
	for _, n := range s.Networks {
		rx, tx = rx+n.RxBytes, tx+n.TxBytes
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			rd += e.Value
		case "write":
			wr += e.Value
		}
	}
	r.CPUPerc, r.MemPerc = fmt.Sprintf("%.2f%%", cpu), fmt.Sprintf("%.2f%%", perc)
	r.MemUsage = units.BytesSize(float64(mem)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit))
	r.NetIO = units.HumanSizeWithPrecision(float64(rx), 3) + " / " + units.HumanSizeWithPrecision(float64(tx), 3)
	r.BlockIO = units.HumanSizeWithPrecision(float64(rd), 3) + " / " + units.HumanSizeWithPrecision(float64(wr), 3)
	r.PIDs = fmt.Sprint(s.PidsStats.Current)
	return r
}

// memoryInUse leaves out the page cache that could go at once: total_inactive_file of cgroup v1, inactive_file of v2.
func memoryInUse(m *container.MemoryStats) uint64 {
	for _, k := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[k]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}
