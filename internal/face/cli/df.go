package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func cmdDf(a *app) *cobra.Command {
	var fm string
	var verbose bool
	c := words("df [OPTIONS]", "Show how much disk the engine uses", "dhow system df\ndhow system df -v", maxArgs(0), func(c *cobra.Command, _ []string) error {
		if verbose && fm != "" && fm != "json" {
			return usage(c, exitError, errors.New("--verbose excludes a --format other than json"))
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		var u system.DiskUsage
		if err := api.Get(c.Context(), "/system/df", nil, &u); err != nil {
			return err
		}
		if u.ImageUsage == nil || u.ContainerUsage == nil || u.VolumeUsage == nil || u.BuildCacheUsage == nil {
			return errors.New("the engine answered in a form older than API 1.52")
		}
		if verbose {
			return printUsage(a, &u, fm)
		}
		var rows []any
		add := func(kind string, total, active, size, free int64) {
			r := dfRow{Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active), Size: units.HumanSize(float64(size)), Reclaimable: units.HumanSize(float64(free))}
			if size > 0 {
				r.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/size)
			}
			rows = append(rows, r)
		}
		add("Images", u.ImageUsage.TotalCount, u.ImageUsage.ActiveCount, u.ImageUsage.TotalSize, u.ImageUsage.Reclaimable)
		add("Containers", u.ContainerUsage.TotalCount, u.ContainerUsage.ActiveCount, u.ContainerUsage.TotalSize, u.ContainerUsage.Reclaimable)
		add("Local Volumes", u.VolumeUsage.TotalCount, u.VolumeUsage.ActiveCount, u.VolumeUsage.TotalSize, u.VolumeUsage.Reclaimable)
		add("Build Cache", u.BuildCacheUsage.TotalCount, u.BuildCacheUsage.ActiveCount, u.BuildCacheUsage.TotalSize, u.BuildCacheUsage.Reclaimable)
		t := format.Table{Header: dfRow{"ACTIVE", "RECLAIMABLE", "SIZE", "TOTAL", "TYPE"},
			Default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"}
		return t.Print(a.Stdout, fm, false, rows)
	})
	c.Flags().StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show every image, container and volume")
	return c
}

// printUsage lists everything that takes space.
func printUsage(a *app, u *system.DiskUsage, fm string) error {
	now, full := time.Now(), false
	var images, containers, volumes []any
	for i := range u.ImageUsage.Items {
		for _, r := range imageRows(&u.ImageUsage.Items[i], now, full) {
			images = append(images, r)
		}
	}
	for i := range u.ContainerUsage.Items {
		containers = append(containers, newContainerRow(&u.ContainerUsage.Items[i], now, full))
	}
	for i := range u.VolumeUsage.Items {
		volumes = append(volumes, newVolumeRow(&u.VolumeUsage.Items[i]))
	}
	if fm == "json" {
		return a.template(fm, map[string]any{"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []any{}})
	}
	tables := []struct {
		title string
		table format.Table
		rows  []any
	}{
		{"Images space usage:", format.Table{Header: newImageHeader(), Default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"}, images},
		{"Containers space usage:", format.Table{Header: newContainerHeader(), Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"}, containers},
		{"Local Volumes space usage:", format.Table{Header: newVolumeHeader(), Default: "{{.Name}}\t{{.Links}}\t{{.Size}}"}, volumes},
	}
	for _, t := range tables {
		a.out(t.title + "\n")
		if err := t.table.Print(a.Stdout, "", false, t.rows); err != nil {
			return err
		}
		a.out()
	}
	a.out("Build cache usage: " + units.HumanSize(float64(u.BuildCacheUsage.TotalSize)))
	return nil
}
