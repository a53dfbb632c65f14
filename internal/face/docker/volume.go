package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

func volumeList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	l, warnings, err := c.engine.Volumes.List(c.ctx, f)
	return c.done(volume.ListResponse{Volumes: list(l), Warnings: list(warnings)}, err)
}

func volumeCreate(c *call) error {
	var req volume.CreateRequest
	if err := c.decode(&req, false); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return errdef.New(errdef.Unavailable, "%s", notManager)
	}
	v, err := c.engine.Volumes.Create(c.ctx, req)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, v)
}

func volumeInspect(c *call) error {
	v, err := c.engine.Volumes.Inspect(c.ctx, c.param("name"))
	return c.done(v, err)
}

func volumeRemove(c *call) error {
	return c.empty(http.StatusNoContent, c.engine.Volumes.Remove(c.ctx, c.param("name"), c.flag("force")))
}

// volumePrune: before API 1.42 named volumes were pruned too; that is now the filter all=true.
func volumePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	if c.minor < 42 && len(f["all"]) == 0 {
		if f == nil {
			f = api.Filters{}
		}
		f["all"] = []string{"true"}
	}
	v, err := c.engine.Volumes.Prune(c.ctx, f)
	return c.done(v, err)
}
