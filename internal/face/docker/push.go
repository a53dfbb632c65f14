package docker

import (
	"encoding/json"
	"strings"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// imagePush pushes one tag; without the parameter tag, and with a name that has none, every tag of the name.
func imagePush(c *call) error {
	name, tag := c.param("name"), c.arg("tag")
	o := api.PushOptions{Compression: c.arg("compression")}
	tagged := strings.Contains(name[strings.LastIndex(name, "/")+1:], ":")
	switch {
	case strings.Contains(name, "@"):
		return errdef.New(errdef.InvalidArgument, "cannot push a digest reference: %s", name)
	case tag != "" && tagged:
		return errdef.New(errdef.InvalidArgument, "push image: the name has a tag and the parameter tag is %q: give one", tag)
	case tag != "":
		name += ":" + tag
	default:
		o.All = !tagged
	}
	var err error
	if o.Platform, err = platformOf(c.arg("platform")); err != nil {
		return err
	}
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	p := &progress{c: c}
	return p.end(c.engine.Images.Push(c.ctx, name, o, auth, p.send))
}

// platformOf reads the JSON in which newer operations want a platform.
func platformOf(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(s), &p); err != nil || p.OS == "" || p.Architecture == "" {
		return "", errdef.New(errdef.InvalidArgument, "invalid platform: want JSON with os and architecture")
	}
	out := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		out += "/" + p.Variant
	}
	return out, nil
}

func distribution(c *call) error {
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	v, err := c.engine.Images.Distribution(c.ctx, c.param("name"), auth)
	return c.done(v, err)
}

func imageSearch(c *call) error {
	limit, err := c.integer("limit", 0)
	if err != nil {
		return err
	}
	f, err := c.filters()
	if err != nil {
		return err
	}
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	l, err := c.engine.Images.Search(c.ctx, c.arg("term"), limit, f, auth)
	return c.done(list(l), err)
}

func remoteManifest(c *call) error {
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	v, err := c.engine.Images.Manifest(c.ctx, c.param("name"), c.flag("insecure"), auth)
	return c.done(v, err)
}

func pushManifests(c *call) error {
	auth, err := decodeAuth(c.r.Header.Values(registry.AuthHeader))
	if err != nil {
		return err
	}
	var all []api.Manifest
	if err := c.decode(&all, false); err != nil {
		return err
	}
	digest, err := c.engine.Images.PushManifests(c.ctx, c.param("name"), all, c.flag("insecure"), auth)
	return c.done(struct{ Digest string }{digest}, err)
}
