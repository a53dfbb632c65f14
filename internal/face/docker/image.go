package docker

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// imageList answers with shared sizes and the manifests of each image where that is asked for.
func imageList(c *call) error {
	if err := c.refuse("identity"); err != nil {
		return err
	}
	f, err := c.filters()
	if err != nil {
		return err
	}
	l, err := c.engine.Images.List(c.ctx, c.flag("all"), f)
	for i := range l {
		if !c.flag("shared-size") {
			l[i].SharedSize = -1
		}
		if !c.flag("manifests") || c.minor < 47 {
			l[i].Manifests = nil
		}
	}
	return c.done(shapeImages(l, c.minor), err)
}

// imageCreate imports (fromSrc) or pulls. An error before the first line of progress has a real status; later it is a line of the stream.
func imageCreate(c *call) error {
	if c.has("fromSrc") {
		return imageImport(c)
	}
	ref, all, err := c.pullRef()
	if err != nil {
		return err
	}
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	p := &progress{c: c}
	o := api.PullOptions{Platform: c.arg("platform"), Lazy: c.flag("lazy")}
	if all {
		return p.end(c.engine.Images.PullAll(c.ctx, ref, o, auth, p.send))
	}
	return p.end(c.engine.Images.Pull(c.ctx, ref, o, auth, p.send))
}

// pullRef joins fromImage and tag; all says that there is none, which means every tag.
func (c *call) pullRef() (ref string, all bool, err error) {
	name, tag := c.arg("fromImage"), c.arg("tag")
	switch {
	case name == "":
		return "", false, errdef.New(errdef.InvalidArgument, "pull image: the parameter fromImage is empty")
	case strings.HasPrefix(tag, "sha256:"), strings.HasPrefix(tag, "sha512:"):
		return name + "@" + tag, false, nil
	case tag != "":
		return name + ":" + tag, false, nil
	}
	return name, !strings.Contains(name, "@") && !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":"), nil
}

// progress streams the lines of a long operation.
type progress struct {
	c  *call
	mu sync.Mutex
}

// line is a message with the error text where old clients look for it.
type line struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

func (p *progress) send(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := line{Message: m}
	if m.Error != nil {
		l.ErrorText = m.Error.Message
	}
	if !p.c.w.wrote {
		p.c.w.Header().Set("Content-Type", "application/json")
		p.c.w.WriteHeader(http.StatusOK)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return // aux that is no JSON
	}
	flusher{p.c.w}.Write(append(b, '\r', '\n')) // a client that is gone cancels the operation by its context
}

func (p *progress) end(err error) error {
	if err == nil {
		if !p.c.w.wrote {
			p.c.w.Header().Set("Content-Type", "application/json")
			p.c.w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	if !p.c.w.wrote {
		return err
	}
	p.send(jsonstream.Message{Error: &jsonstream.Error{Code: statusOf(err), Message: err.Error()}})
	return nil
}

func imageInspect(c *call) error {
	platform, err := platformOf(c.arg("platform"))
	if err != nil {
		return err
	}
	if platform != "" && c.flag("manifests") {
		return errdef.New(errdef.InvalidArgument, "conflicting options: manifests and platform options cannot both be specified")
	}
	v, err := c.engine.Images.Inspect(c.ctx, c.param("name"), platform)
	if err != nil {
		return err
	}
	if !c.flag("manifests") || c.minor < 48 {
		v.Manifests = nil
	}
	return c.json(http.StatusOK, shapeImage(v, c.minor))
}

func imageHistory(c *call) error {
	platform, err := platformOf(c.arg("platform"))
	if err != nil {
		return err
	}
	l, err := c.engine.Images.History(c.ctx, c.param("name"), platform)
	return c.done(list(l), err)
}

func imageTag(c *call) error {
	repo, tag := c.arg("repo"), c.arg("tag")
	if repo == "" {
		return errdef.New(errdef.InvalidArgument, "tag image: the parameter repo is empty")
	}
	if tag != "" {
		repo += ":" + tag
	}
	return c.empty(http.StatusCreated, c.engine.Images.Tag(c.ctx, c.param("name"), repo))
}

func imageRemove(c *call) error {
	p, err := platforms(c, "platforms")
	if err != nil {
		return err
	}
	l, err := c.engine.Images.Remove(c.ctx, c.param("name"), p, c.flag("force"), c.flag("noprune"))
	return c.done(list(l), err)
}

func imagePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	v, err := c.engine.Images.Prune(c.ctx, f)
	return c.done(v, err)
}

func login(c *call) error {
	var a registry.AuthConfig
	if err := c.decode(&a, false); err != nil {
		return err
	}
	v, err := c.engine.Images.Login(c.ctx, &a)
	return c.done(v, err)
}
