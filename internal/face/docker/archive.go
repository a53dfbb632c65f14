package docker

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// platforms reads JSON objects that a parameter has.
func platforms(c *call, name string) ([]ocispec.Platform, error) {
	c.arg(name)
	var out []ocispec.Platform
	for _, s := range c.query[name] {
		if s == "" {
			continue
		}
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil || p.OS == "" || p.Architecture == "" {
			return nil, errdef.New(errdef.InvalidArgument, "invalid platform %.100q: want JSON with os and architecture", s)
		}
		out = append(out, p)
	}
	if name == "platform" && len(out) > 1 && c.minor < 52 {
		return nil, errdef.New(errdef.InvalidArgument, "multiple platform parameters need API version 1.52")
	}
	return out, nil
}

// imageSave writes one archive of all names.
func imageSave(c *call) error {
	c.arg("names")
	return saveNames(c, c.query["names"])
}

func imageSaveOne(c *call) error { return saveNames(c, []string{c.param("name")}) }

func saveNames(c *call, names []string) error {
	p, err := platforms(c, "platform")
	if err != nil {
		return err
	}
	write, err := c.engine.Archives.Save(c.ctx, names, p)
	if err != nil {
		return err
	}
	return sendTar(c, write)
}

// sendTar answers a tar; one that breaks off breaks the connection off.
func sendTar(c *call, write func(io.Writer) error) error {
	c.w.Header().Set("Content-Type", "application/x-tar")
	c.w.WriteHeader(http.StatusOK)
	return write(c.w)
}

// upload lets the body be read while the answer is written.
func upload(c *call) io.Reader {
	http.NewResponseController(c.w.ResponseWriter).EnableFullDuplex() // test recorders have no connection to speak of
	return c.r.Body
}

func imageLoad(c *call) error {
	p, err := platforms(c, "platform")
	if err != nil {
		return err
	}
	out := &progress{c: c}
	return uploaded(c, out.end(c.engine.Archives.Load(c.ctx, upload(c), p, c.flag("quiet"), out.send)))
}

// The most that is read of a body which nobody wants any more.
const (
	drainTime = 5 * time.Second
	drainSize = 1 << 30
)

// uploaded answers an error while the client still sends, and reads on until it has heard: a connection that is closed with bytes unread
// is reset, and the client would be told that instead of the reason.
func uploaded(c *call, err error) error {
	if err != nil && !c.w.wrote {
		c.fail(err)
		err = nil
	}
	if c.w.wrote {
		c.w.flush()
	}
	http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(time.Now().Add(drainTime))
	io.Copy(io.Discard, io.LimitReader(c.r.Body, drainSize)) // a client that has heard hangs up
	return err
}

// imageImport is the other half of POST /images/create.
func imageImport(c *call) error {
	c.arg("changes")
	o := api.ImportOptions{Ref: named(c), Message: c.arg("message"), Platform: c.arg("platform"), Changes: c.query["changes"]}
	if src := c.arg("fromSrc"); src != "-" {
		if o.URL = src; src == "" {
			return errdef.New(errdef.InvalidArgument, "import image: the parameter fromSrc is empty")
		}
	}
	p := &progress{c: c}
	return uploaded(c, p.end(c.engine.Archives.Import(c.ctx, o, upload(c), p.send)))
}

// named joins repo and tag.
func named(c *call) string {
	repo, tag := c.arg("repo"), c.arg("tag")
	if repo != "" && tag != "" {
		return repo + ":" + tag
	}
	return repo
}

func containerExport(c *call) error {
	write, err := c.engine.Archives.Export(c.ctx, c.param("id"))
	if err != nil {
		return err
	}
	return sendTar(c, write)
}

func commit(c *call) error {
	c.arg("changes")
	o := api.CommitOptions{Container: c.arg("container"), Ref: named(c), Author: c.arg("author"), Comment: c.arg("comment"), Pause: true, Changes: c.query["changes"]}
	if c.has("pause") {
		o.Pause = c.flag("pause")
	}
	if o.Container == "" {
		return errdef.New(errdef.InvalidArgument, "commit: the parameter container is empty")
	}
	var config *container.Config
	if err := c.decode(&config, true); err != nil {
		return err
	}
	o.Config = config
	id, err := c.engine.Archives.Commit(c.ctx, o)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, container.CommitResponse{ID: id})
}
