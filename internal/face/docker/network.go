package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

func networkList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	l, err := c.engine.Networks.List(c.ctx, f)
	return c.done(list(l), err)
}

func networkInspect(c *call) error {
	if s := c.arg("scope"); s != "" && s != "local" {
		return errdef.New(errdef.NotFound, "network %s not found in scope %s", c.param("id"), s)
	}
	v, err := c.engine.Networks.Inspect(c.ctx, c.param("id"))
	if c.minor < 52 {
		v.Status = nil
	}
	return c.done(v, err)
}

func networkCreate(c *call) error {
	var req network.CreateRequest
	if err := c.decode(&req, false); err != nil {
		return err
	}
	v, err := c.engine.Networks.Create(c.ctx, req)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, v)
}

func networkRemove(c *call) error {
	return c.empty(http.StatusNoContent, c.engine.Networks.Remove(c.ctx, c.param("id")))
}

func networkConnect(c *call) error {
	var req network.ConnectRequest
	if err := c.decode(&req, false); err != nil {
		return err
	}
	if req.Container == "" {
		return errdef.New(errdef.InvalidArgument, "connect network: the field Container is empty")
	}
	if req.EndpointConfig == nil {
		req.EndpointConfig = &network.EndpointSettings{}
	}
	return c.empty(http.StatusOK, c.engine.Networks.Connect(c.ctx, c.param("id"), req))
}

func networkDisconnect(c *call) error {
	var req network.DisconnectRequest
	if err := c.decode(&req, false); err != nil {
		return err
	}
	if req.Container == "" {
		return errdef.New(errdef.InvalidArgument, "disconnect network: the field Container is empty")
	}
	return c.empty(http.StatusOK, c.engine.Networks.Disconnect(c.ctx, c.param("id"), req))
}

func networkPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	v, err := c.engine.Networks.Prune(c.ctx, f)
	return c.done(v, err)
}
