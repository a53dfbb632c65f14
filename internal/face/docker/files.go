package docker

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

const statHeader = "X-Docker-Container-Path-Stat"

func containerChanges(c *call) error {
	v, err := c.engine.Files.Changes(c.ctx, c.param("id"))
	return c.done(list(v), err)
}

// tellStat puts what a path is into the header.
func (c *call) tellStat(st container.PathStat) error {
	b, err := json.Marshal(st)
	if err != nil {
		return errdef.New(errdef.System, "encode answer: %w", err)
	}
	c.w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(b))
	return nil
}

func containerStatPath(c *call) error {
	st, err := c.engine.Files.Stat(c.ctx, c.param("id"), c.arg("path"))
	if err == nil {
		err = c.tellStat(st)
	}
	return c.empty(http.StatusOK, err)
}

func containerReadPath(c *call) error {
	var failed error
	err := c.engine.Files.Read(c.ctx, c.param("id"), c.arg("path"), func(st container.PathStat) io.Writer {
		failed = c.tellStat(st)
		c.w.Header().Set("Content-Type", "application/x-tar")
		c.w.WriteHeader(http.StatusOK)
		return c.w
	})
	if failed != nil {
		return failed
	}
	return err
}

func containerWritePath(c *call) error {
	o := api.WriteOptions{KeepKinds: c.flag("noOverwriteDirNonDir"), ToUser: c.flag("copyUIDGID")}
	return uploaded(c, c.empty(http.StatusOK, c.engine.Files.Write(c.ctx, c.param("id"), c.arg("path"), upload(c), o)))
}
