package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func execCreate(c *call) error {
	var req container.ExecCreateRequest
	if err := c.decode(&req, false); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return errdef.New(errdef.InvalidArgument, "no exec command specified")
	}
	if c.minor < 42 {
		req.ConsoleSize = nil
	}
	id, err := c.engine.Execs.Create(c.ctx, c.param("id"), req)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, common.IDResponse{ID: id})
}

func execStart(c *call) error {
	var req container.ExecStartRequest
	if err := c.decode(&req, true); err != nil {
		return err
	}
	var size [2]uint
	if req.ConsoleSize != nil && req.Tty && c.minor >= 42 {
		size = *req.ConsoleSize
	}
	// A detached exec outlives this request.
	sess, err := c.engine.Execs.Start(c.ctx, c.param("id"), req.Detach, req.Tty, size)
	if err != nil {
		return err
	}
	if req.Detach || sess == nil {
		return c.empty(http.StatusOK, nil)
	}
	return c.hijack(sess, true)
}

func execInspect(c *call) error {
	v, err := c.engine.Execs.Inspect(c.ctx, c.param("id"))
	return c.done(v, err)
}

func execResize(c *call) error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	return c.empty(http.StatusOK, c.engine.Execs.Resize(c.ctx, c.param("id"), h, w))
}
