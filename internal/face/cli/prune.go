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

	"github.com/dhow-containers/dhow/internal/face/cli/client"
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

// confirm asks whoever is at standard input, a script too; anything but yes is an error.
func confirm(a *app, question string) error {
	fmt.Fprint(a.Stdout, question)
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil && !tty.IsTerminal(int(a.Stdin.Fd())) {
			fmt.Fprintln(a.Stdout)
			return exit(exitError, errors.New("nothing was removed: nobody answers on standard input; use --force"))
		}
	}
	return exit(exitError, errors.New("nothing was removed"))
}

func prune(a *app, ctx context.Context, kind string, q url.Values, o *pruneOptions) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	p := pruning{a: a, api: api, q: q}
	if kind == "container" || kind == "system" {
		var r container.PruneReport
		err = p.one(ctx, "/containers/prune", nil, &r)
		p.told("Containers", r.ContainersDeleted, r.SpaceReclaimed)
	}
	if err == nil && (kind == "network" || kind == "system") {
		var r network.PruneReport
		err = p.one(ctx, "/networks/prune", nil, &r)
		p.told("Networks", r.NetworksDeleted, 0)
	}
	if err == nil && (kind == "volume" || o.volumes) {
		var more []string
		if kind == "volume" && o.all {
			more = append(o.filter, "all=true")
		}
		var r volume.PruneReport
		err = p.one(ctx, "/volumes/prune", more, &r)
		p.told("Volumes", r.VolumesDeleted, r.SpaceReclaimed)
	}
	if err == nil && (kind == "image" || kind == "system") {
		var r image.PruneReport
		err = p.one(ctx, "/images/prune", append(o.filter, fmt.Sprintf("dangling=%t", !o.all)), &r)
		var names []string
		for _, d := range r.ImagesDeleted {
			if d.Untagged != "" {
				names = append(names, "untagged: "+d.Untagged)
			}
			if d.Deleted != "" {
				names = append(names, "deleted: "+d.Deleted)
			}
		}
		p.told("Images", names, r.SpaceReclaimed)
	}
	if err == nil && kind != "network" {
		a.out("Total reclaimed space: " + units.HumanSize(float64(p.freed)))
	}
	return err
}

// pruning is one prune under way.
type pruning struct {
	a     *app
	api   *client.Client
	q     url.Values
	freed uint64
}

// one posts to path with the filters given, or the command's own.
func (p *pruning) one(ctx context.Context, path string, filter []string, out any) error {
	q := p.q
	if filter != nil {
		var err error
		if q, err = filterQuery(filter); err != nil {
			return err
		}
	}
	return p.api.Post(ctx, path, q, nil, out)
}

func (p *pruning) told(title string, names []string, freed uint64) {
	p.freed += freed
	if len(names) == 0 {
		return
	}
	p.a.out("Deleted " + title + ":")
	for _, n := range names {
		p.a.out(format.Safe(n))
	}
	p.a.out()
}
