package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

func containerList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	limit, err := c.integer("limit", 0)
	if err != nil {
		return err
	}
	o := api.ListOptions{All: c.flag("all") || limit > 0 || len(f["status"]) > 0, Limit: max(limit, 0), Size: c.flag("size"), Filters: f}
	l, err := c.engine.Containers.List(c.ctx, o)
	return c.done(list(l), err)
}

func containerCreate(c *call) error {
	req, err := decodeCreate(c)
	if err != nil {
		return err
	}
	resp, err := c.engine.Containers.Create(c.ctx, c.arg("name"), c.arg("platform"), req)
	if err != nil {
		return err
	}
	resp.Warnings = list(resp.Warnings)
	return c.json(http.StatusCreated, resp)
}

func containerInspect(c *call) error {
	v, err := c.engine.Containers.Inspect(c.ctx, c.param("id"), c.flag("size"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, shapeContainer(v, c.minor))
}

func containerStart(c *call) error {
	if err := c.refuse("checkpoint", "checkpoint-dir"); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent, c.engine.Containers.Start(c.ctx, c.param("id")))
}

// timeout reads t: seconds, absent means the container's own.
func (c *call) timeout() (*int, error) {
	if c.arg("t") == "" {
		return nil, nil
	}
	n, err := c.integer("t", 0)
	return &n, err
}

func containerStop(c *call) error {
	t, err := c.timeout()
	if err != nil {
		return err
	}
	return c.empty(http.StatusNoContent, c.engine.Containers.Stop(c.ctx, c.param("id"), c.arg("signal"), t))
}

func containerRestart(c *call) error {
	t, err := c.timeout()
	if err != nil {
		return err
	}
	return c.empty(http.StatusNoContent, c.engine.Containers.Restart(c.ctx, c.param("id"), c.arg("signal"), t))
}

func containerKill(c *call) error {
	return c.empty(http.StatusNoContent, c.engine.Containers.Kill(c.ctx, c.param("id"), c.arg("signal")))
}

func containerPause(c *call) error {
	return c.empty(http.StatusNoContent, c.engine.Containers.Pause(c.ctx, c.param("id")))
}

func containerUnpause(c *call) error {
	return c.empty(http.StatusNoContent, c.engine.Containers.Unpause(c.ctx, c.param("id")))
}

func containerRename(c *call) error {
	name := c.arg("name")
	if name == "" {
		return errdef.New(errdef.InvalidArgument, "rename container: the parameter name is empty")
	}
	return c.empty(http.StatusNoContent, c.engine.Containers.Rename(c.ctx, c.param("id"), name))
}

func containerRemove(c *call) error {
	o := api.RemoveOptions{Force: c.flag("force"), Volumes: c.flag("v"), Link: c.flag("link")}
	return c.empty(http.StatusNoContent, c.engine.Containers.Remove(c.ctx, c.param("id"), o))
}

func containerResize(c *call) error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	return c.empty(http.StatusOK, c.engine.Containers.Resize(c.ctx, c.param("id"), h, w))
}

func containerTop(c *call) error {
	args := c.arg("ps_args")
	if args == "" {
		args = "-ef"
	}
	v, err := c.engine.Containers.Top(c.ctx, c.param("id"), args)
	return c.done(v, err)
}

func containerUpdate(c *call) error {
	var u container.UpdateConfig
	if err := c.decode(&u, false); err != nil {
		return err
	}
	if err := checkResources(&u.Resources); err != nil {
		return err
	}
	v, err := c.engine.Containers.Update(c.ctx, c.param("id"), u)
	v.Warnings = list(v.Warnings)
	return c.done(v, err)
}

func containerPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	v, err := c.engine.Containers.Prune(c.ctx, f)
	return c.done(v, err)
}

func containerExplain(c *call) error {
	b, err := c.engine.Containers.Explain(c.ctx, c.param("id"))
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	c.w.Write(b)
	return nil
}
