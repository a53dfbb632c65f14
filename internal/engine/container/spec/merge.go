package spec

import (
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// Merge lays what was asked over the image's configuration and names the parts that the image gave. The arguments stay as they are.
func Merge(asked *container.Config, image dockerspec.DockerOCIImageConfig) (*container.Config, []string, error) {
	c := *asked
	var from []string
	take := func(field string) { from = append(from, field) }
	if len(c.Entrypoint) == 0 {
		// A list of one empty string is Docker's way to say: without the image's entrypoint.
		switch {
		case len(c.Cmd) == 0 && len(image.Cmd) > 0:
			c.Cmd = slices.Clone(image.Cmd)
			take("Cmd")
		}
		if c.Entrypoint == nil && len(image.Entrypoint) > 0 {
			c.Entrypoint = slices.Clone(image.Entrypoint)
			take("Entrypoint")
		}
	} else if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if c.User == "" && image.User != "" {
		c.User = image.User
		take("User")
	}
	if c.WorkingDir == "" && image.WorkingDir != "" {
		c.WorkingDir = image.WorkingDir
		take("WorkingDir")
	}
	if c.StopSignal == "" && image.StopSignal != "" {
		c.StopSignal = image.StopSignal
		take("StopSignal")
	}
	if c.Healthcheck == nil && image.Healthcheck != nil && len(image.Healthcheck.Test) > 0 && image.Healthcheck.Test[0] != "NONE" {
		c.Healthcheck = image.Healthcheck
		take("Healthcheck")
	}
	if len(c.Shell) == 0 {
		c.Shell = image.Shell
	}
	c.Env = append([]string{}, c.Env...)
	var base []string
	for _, e := range image.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(asked.Env, func(a string) bool { n, _, _ := strings.Cut(a, "="); return n == name }) {
			base = append(base, e)
			take("Env " + name)
		}
	}
	c.Env = append(base, c.Env...)
	c.Labels = mergeLabels(asked.Labels, image.Labels)
	return &c, from, mergeSets(&c, asked, image, &from)
}

func mergeLabels(asked, image map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range image {
		out[k] = v
	}
	for k, v := range asked {
		out[k] = v
	}
	return out
}

// mergeSets joins exposed ports and volumes.
func mergeSets(c, asked *container.Config, image dockerspec.DockerOCIImageConfig, from *[]string) error {
	c.ExposedPorts = network.PortSet{}
	for p := range image.ExposedPorts {
		r, err := network.ParsePortRange(p)
		if err != nil {
			return errdef.New(errdef.InvalidArgument, "image field Config.ExposedPorts %q: %w", p, err)
		}
		for port := range r.All() {
			c.ExposedPorts[port] = struct{}{}
			*from = append(*from, "ExposedPorts "+port.String())
		}
	}
	for p := range asked.ExposedPorts {
		c.ExposedPorts[p] = struct{}{}
	}
	if len(c.ExposedPorts) == 0 {
		c.ExposedPorts = nil
	}
	c.Volumes = map[string]struct{}{}
	for v := range image.Volumes {
		if _, ok := asked.Volumes[v]; !ok {
			*from = append(*from, "Volumes "+v)
		}
		c.Volumes[v] = struct{}{}
	}
	for v := range asked.Volumes {
		c.Volumes[v] = struct{}{}
	}
	if len(c.Volumes) == 0 {
		c.Volumes = nil
	}
	slices.Sort(*from)
	return nil
}

// Command is the command line that entrypoint and cmd add up to.
func Command(c *container.Config) (path string, args []string, err error) {
	all := slices.Concat(c.Entrypoint, c.Cmd)
	if len(all) == 0 {
		return "", nil, errdef.New(errdef.InvalidArgument, "no command specified: neither the image nor the request gives one")
	}
	if all[0] == "" {
		return "", nil, errdef.New(errdef.InvalidArgument, "the command is an empty string")
	}
	for _, a := range all {
		if strings.ContainsRune(a, 0) {
			return "", nil, errdef.New(errdef.InvalidArgument, "the command contains a NUL byte")
		}
	}
	return all[0], slices.Clone(all[1:]), nil
}
