package docker

import (
	"encoding/json"
	"net/http"

	"github.com/dhow-containers/dhow/internal/engine/api"
)

// lines answers JSON values, one a line, as they come. An error after the first is a line as well.
type lines struct {
	c   *call
	err error
}

func (l *lines) send(v any) {
	if !l.c.w.wrote {
		l.c.w.Header().Set("Content-Type", "application/x-ndjson")
		l.c.w.WriteHeader(http.StatusOK)
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = l.c.w.Write(append(b, '\n')) // a client that is gone cancels the operation by its context
	}
	if l.err == nil {
		l.err = err
	}
}

// end answers err, or last behind the lines.
func (l *lines) end(err error, last any) error {
	switch {
	case err != nil && !l.c.w.wrote:
		return err
	case err != nil:
		l.send(struct{ Error string }{err.Error()})
	case last != nil:
		l.send(last)
	case !l.c.w.wrote:
		l.c.w.Header().Set("Content-Type", "application/x-ndjson")
		l.c.w.WriteHeader(http.StatusOK)
	}
	return nil
}

func systemCheck(c *call) error {
	auths, err := decodeAuths(c.r.Header.Values("X-Registry-Config"))
	if err != nil {
		return err
	}
	out := &lines{c: c}
	sum, err := c.engine.Upkeep.Check(c.ctx, c.flag("repair"), auths, func(f api.Finding) {
		out.send(f)
		c.w.flush()
	})
	return out.end(err, struct{ Summary api.CheckSummary }{sum})
}

func systemLayout(c *call) error {
	dir := c.arg("dir")
	tags, err := c.engine.Upkeep.Layout(c.ctx, dir, c.query["name"])
	return c.done(list(tags), err)
}

func imageLayers(c *call) error {
	l, err := c.engine.Upkeep.Layers(c.ctx, c.param("name"))
	return c.done(list(l), err)
}

func imageFiles(c *call) error {
	n, err := c.integer("layer", -1)
	if err != nil {
		return err
	}
	out := &lines{c: c}
	return out.end(c.engine.Upkeep.Files(c.ctx, c.param("name"), n, func(f api.LayerFile) { out.send(f) }), nil)
}
