package docker

import (
	"net/http"
	"runtime"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

// ping answers OK, and tells in headers what a client wants to know before anything else. Builder-Version 1 makes clients use
// the classic builder: BuildKit's session is not here yet.
func ping(c *call) error {
	h := c.w.Header()
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return c.empty(http.StatusOK, nil)
	}
	c.w.WriteHeader(http.StatusOK)
	c.w.Write([]byte("OK"))
	return nil
}

func versionOf(c *call) error {
	v, err := c.engine.System.Version(c.ctx)
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = apiVersion(maxMinor), apiVersion(minMinor)
	for _, p := range v.Components {
		if p.Name == "Engine" && p.Details != nil { // what the CLI prints
			p.Details["ApiVersion"], p.Details["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	if v.Version == "" {
		v.Version = c.version
	}
	if v.GitCommit == "" {
		v.GitCommit = c.commit
	}
	if v.Os == "" {
		v.Os, v.Arch, v.GoVersion = runtime.GOOS, runtime.GOARCH, runtime.Version()
	}
	return c.json(http.StatusOK, v)
}

// ownVersion is what dhow's own clients ask: no engine service is needed to answer it.
func ownVersion(c *call) error {
	return c.json(http.StatusOK, struct {
		Name, Version, Commit, Go, ApiVersion, MinApiVersion string
	}{"dhow", c.version, c.commit, runtime.Version(), apiVersion(maxMinor), apiVersion(minMinor)})
}

func info(c *call) error {
	v, err := c.engine.System.Info(c.ctx)
	if err != nil {
		return err
	}
	if v.Swarm.LocalNodeState == "" {
		v.Swarm.LocalNodeState = swarm.LocalNodeStateInactive
	}
	if v.ServerVersion == "" {
		v.ServerVersion = c.version
	}
	v.Labels, v.Warnings, v.SecurityOptions = list(v.Labels), list(v.Warnings), list(v.SecurityOptions)
	if v.Runtimes == nil {
		v.Runtimes = map[string]system.RuntimeWithStatus{}
	}
	return c.json(http.StatusOK, v)
}

func diskUsage(c *call) error {
	v, err := c.engine.System.DiskUsage(c.ctx)
	if err != nil {
		return err
	}
	return shapeUsage(c, v)
}
