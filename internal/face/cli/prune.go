package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
	"github.com/dhow-containers/dhow/internal/linux/tty"
)

// cmdPrune removes what is not in use: of one kind, or of all (system).
func cmdPrune(a *app, kind string) *cobra.Command {
	var o pruneOptions
	what := map[string]string{"container": "all stopped containers", "image": "all dangling images",
		"network": "all networks not used by at least one container", "volume": "all anonymous volumes not used by at least one container",
		"system": "all stopped containers, all networks not used by a container, and all dangling images"}[kind]
	c := words("prune", "Remove "+what, "dhow "+kind+" prune -f", maxArgs(0), func(c *cobra.Command, _ []string) error {
		q, err := filterQuery(o.filter)
		if err != nil {
			return usage(c, exitError, err)
		}
		if o.all && kind == "image" || kind == "system" && o.all {
			what = strings.Replace(what, "all dangling images", "all images without a container", 1)
		}
		if o.all && kind == "volume" {
			what = "all volumes not used by at least one container"
		}
		if o.volumes {
			what += ", and all anonymous volumes not used by a container"
		}
		if !o.force {
			if err := confirm(a, "WARNING! This will remove "+what+".\nAre you sure you want to continue? [y/N] "); err != nil {
				return err
			}
		}
		return prune(a, c.Context(), kind, q, &o)
	})
	f := c.Flags()
	f.BoolVarP(&o.force, "force", "f", false, "Do not ask")
	f.StringArrayVar(&o.filter, "filter", nil, "Remove only what matches (e.g. until=24h, label=key)")
	if kind != "container" && kind != "network" {
		f.BoolVarP(&o.all, "all", "a", false, "Remove all that is not in use, not only what is dangling or anonymous")
	}
	if kind == "system" {
		f.BoolVar(&o.volumes, "volumes", false, "Remove anonymous volumes as well")
	}
	return c
}

type pruneOptions struct {
	force, all, volumes bool
	filter              []string
}

// confirm asks on the terminal; anything but yes is an error.
func confirm(a *app, question string) error {
	if !tty.IsTerminal(int(a.Stdin.Fd())) {
		return errors.New("standard input is not a terminal, so nobody can be asked; use --force")
	}
	fmt.Fprint(a.Stdout, question)
	line, _ := bufio.NewReader(a.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return exit(exitError, errors.New("nothing was removed"))
}

func prune(a *app, ctx context.Context, kind string, q url.Values, o *pruneOptions) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	list := func(title string, names []string) {
		if len(names) > 0 {
			a.out("Deleted " + title + ":")
			for _, n := range names {
				a.out(format.Safe(n))
			}
			a.out()
		}
	}
	var freed uint64
	if kind == "container" || kind == "system" {
		var r container.PruneReport
		if err := api.Post(ctx, "/containers/prune", q, nil, &r); err != nil {
			return err
		}
		list("Containers", r.ContainersDeleted)
		freed += r.SpaceReclaimed
	}
	if kind == "network" || kind == "system" {
		var r network.PruneReport
		if err := api.Post(ctx, "/networks/prune", q, nil, &r); err != nil {
			return err
		}
		list("Networks", r.NetworksDeleted)
	}
	if kind == "volume" || o.volumes {
		qv, err := filterQuery(o.filter)
		if kind == "volume" && o.all {
			qv, err = filterQuery(append(o.filter, "all=true"))
		}
		if err != nil {
			return err
		}
		var r volume.PruneReport
		if err := api.Post(ctx, "/volumes/prune", qv, nil, &r); err != nil {
			return err
		}
		list("Volumes", r.VolumesDeleted)
		freed += r.SpaceReclaimed
	}
	if kind == "image" || kind == "system" {
		qi, err := filterQuery(append(o.filter, fmt.Sprintf("dangling=%t", !o.all)))
		if err != nil {
			return err
		}
		var r image.PruneReport
		if err := api.Post(ctx, "/images/prune", qi, nil, &r); err != nil {
			return err
		}
		var names []string
		for _, d := range r.ImagesDeleted {
			if d.Untagged != "" {
				names = append(names, "untagged: "+d.Untagged)
			}
			if d.Deleted != "" {
				names = append(names, "deleted: "+d.Deleted)
			}
		}
		list("Images", names)
		freed += r.SpaceReclaimed
	}
	if kind != "network" {
		a.out("Total reclaimed space: " + units.HumanSize(float64(freed)))
	}
	return nil
}
