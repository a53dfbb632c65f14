package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/client"
	"github.com/dhow-containers/dhow/internal/face/cli/create"
	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func groupVolume(a *app) *cobra.Command {
	return group("volume", "Manage volumes", volumeLs(a), volumeCreate(a), volumeRm(a), inspectCommand(a, "volume"), cmdPrune(a, "volume"))
}

func isMissing(err error) bool { return client.StatusOf(err) == http.StatusNotFound }

type volumeRow struct {
	labelled
	Driver, Labels, Links, Mountpoint, Name, Scope, Size string
}

func newVolumeHeader() volumeRow {
	return volumeRow{labelled{header: true}, "DRIVER", "LABELS", "LINKS", "MOUNTPOINT", "VOLUME NAME", "SCOPE", "SIZE"}
}

// newVolumeRow shows a volume; links and size are known to system df only.
func newVolumeRow(v *volume.Volume) volumeRow {
	r := volumeRow{labelled: labelled{labels: v.Labels}, Driver: format.Safe(v.Driver), Labels: joinLabels(v.Labels), Links: "N/A",
		Mountpoint: format.Safe(v.Mountpoint), Name: format.Safe(v.Name), Scope: format.Safe(v.Scope), Size: "N/A"}
	if u := v.UsageData; u != nil {
		r.Links, r.Size = fmt.Sprint(u.RefCount), units.HumanSize(float64(u.Size))
	}
	return r
}

func volumeLs(a *app) *cobra.Command {
	var fm string
	var quiet bool
	var filter []string
	c := words("ls", "List volumes", "dhow volume ls --filter dangling=true", maxArgs(0), func(c *cobra.Command, _ []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		q, err := filterQuery(filter)
		if err != nil {
			return usage(c, exitError, err)
		}
		var list volume.ListResponse
		if err := api.Get(c.Context(), "/volumes", q, &list); err != nil {
			return err
		}
		for _, w := range list.Warnings {
			fmt.Fprintln(a.Stderr, "WARNING: "+format.Safe(w))
		}
		slices.SortFunc(list.Volumes, func(a, b volume.Volume) int { return format.Natural(a.Name, b.Name) })
		rows := make([]any, len(list.Volumes))
		for i, v := range list.Volumes {
			rows[i] = newVolumeRow(&v)
		}
		t := format.Table{Quiet: "{{.Name}}", Default: "{{.Driver}}\t{{.Name}}",
			Header: newVolumeHeader()}
		return t.Print(a.Stdout, a.listFormat("volumesFormat", fm, quiet), quiet, rows)
	})
	c.Aliases = []string{"list"}
	f := c.Flags()
	f.StringArrayVarP(&filter, "filter", "f", nil, "Show only what matches (key=value)")
	f.StringVar(&fm, "format", "", "Format of the output: table, json, or a Go template")
	f.BoolVarP(&quiet, "quiet", "q", false, "Show names only")
	return c
}

func volumeCreate(a *app) *cobra.Command {
	var driver, name string
	var labels, opts []string
	c := words("create [OPTIONS] [VOLUME]", "Create a volume", "dhow volume create --label keep=yes data", maxArgs(1), func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			name = args[0]
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		var v volume.Volume
		req := volume.CreateRequest{Name: name, Driver: driver, DriverOpts: create.Pairs(opts), Labels: create.Pairs(labels)}
		if err := api.Post(c.Context(), "/volumes/create", nil, req, &v); err != nil {
			return err
		}
		a.out(format.Safe(v.Name))
		return nil
	})
	f := c.Flags()
	f.StringVarP(&driver, "driver", "d", "local", "Driver of the volume")
	f.StringVar(&name, "name", "", "Name of the volume")
	f.MarkHidden("name")
	f.StringArrayVar(&labels, "label", nil, "Labels of the volume (K=V)")
	f.StringArrayVarP(&opts, "opt", "o", nil, "Options of the driver (K=V)")
	return c
}

func volumeRm(a *app) *cobra.Command {
	var force bool
	c := words("rm [OPTIONS] VOLUME [VOLUME...]", "Remove volumes", "dhow volume rm data", minArgs(1), func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if force {
			q.Set("force", "1")
		}
		return a.forEach(args, func(n string) error { return api.Delete(c.Context(), "/volumes/"+url.PathEscape(n), q, nil) })
	})
	c.Aliases = []string{"remove"}
	c.Flags().BoolVarP(&force, "force", "f", false, "No error when the volume does not exist")
	return c
}
