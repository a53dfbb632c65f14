// Package explainer owns what the engine tells package explain about a container: where its parts lie and who asked for them.
//
// It promises to change nothing, and to answer for containers that run, that have ended and that have never run. It must never
// compare anything itself.
package explainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/explain"
	"github.com/dhow-containers/dhow/internal/linux/cgroup"
	"github.com/dhow-containers/dhow/internal/network"
	"github.com/dhow-containers/dhow/internal/oci/state"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
)

// Service makes reports. Containers is set after it was made, since it needs Explain.
type Service struct {
	Containers *container.Insight
	Net        *network.Service
	RunRoot    string
	Table      string // nft table, "" is dhow
}

// Explain returns an explain.Report as JSON; runDir is the container's bundle while it has one.
func (s *Service) Explain(_ context.Context, c *api.Container, runDir string) ([]byte, error) {
	sub := explain.Subject{
		ID: c.ID, Name: c.Name, Image: c.Config.Image, Status: string(c.Status()), Table: s.Table, Now: time.Now(),
		Joined: map[string]string{},
		Usage:  func() (int64, error) { return s.Containers.Usage(c.ID) },
	}
	if sub.Table == "" {
		sub.Table = "dhow"
	}
	if c.State.Running {
		sub.Pid = c.State.Pid
	}
	var err error
	if sub.Layout, err = cgroup.Detect(); err != nil {
		return nil, err
	}
	if err := s.promise(c, runDir, &sub); err != nil {
		return nil, err
	}
	s.runtime(c, &sub)
	s.others(c, &sub)
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume {
			sub.Volumes = append(sub.Volumes, explain.Volume{Name: m.Name, Source: m.Source, Destination: m.Destination, Why: m.Why})
		}
	}
	sub.Published = published(c)
	b, err := json.Marshal(explain.Make(sub))
	if err != nil {
		return nil, fmt.Errorf("explain container %s: %w", c.Name, err)
	}
	return b, nil
}

// published lists -p as it was written, by container port.
func published(c *api.Container) []explain.Publication {
	var out []explain.Publication
	for port, bindings := range c.HostConfig.PortBindings {
		for _, b := range bindings {
			host := b.HostPort
			if host == "" {
				host = "of the engine's choice"
			}
			if b.HostIP.IsValid() && !b.HostIP.IsUnspecified() {
				host = b.HostIP.String() + " " + host
			}
			out = append(out, explain.Publication{Port: port.String(), Host: host, Why: "flag --publish"})
		}
	}
	slices.SortFunc(out, func(a, b explain.Publication) int { return strings.Compare(a.Port+" "+a.Host, b.Port+" "+b.Host) })
	return out
}

// promise finds the configuration: the bundle's while there is one, with limits as they were updated since; else what a start would build.
func (s *Service) promise(c *api.Container, runDir string, sub *explain.Subject) error {
	next, nextErr := s.Containers.Promise(c)
	spec, rootfs, err := bundle.Load(runDir)
	var why map[string]string
	if err == nil {
		// A container that ends just now takes its folder along, file by file.
		why, err = readWhy(filepath.Join(runDir, container.WhyFile))
	}
	switch {
	case err == nil:
		sub.Spec, sub.Rootfs, sub.Why = spec, rootfs, why
		if nextErr == nil && spec.Linux != nil {
			spec.Linux.Resources = next.Spec.Linux.Resources
			for k, v := range next.Why {
				if strings.HasPrefix(k, "linux.resources.") {
					why[k] = v
				}
			}
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist) && !errdef.Is(err, errdef.NotFound):
		return err
	case nextErr != nil:
		return nextErr
	}
	sub.Spec, sub.Why = next.Spec, next.Why
	if r, err := s.Containers.Rootfs(c.ID); err == nil {
		sub.Rootfs = &r
	}
	return nil
}

func readWhy(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	if err := json.NewDecoder(io.LimitReader(f, bundle.MaxConfig)).Decode(&out); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return out, nil
}

// runtime adds the runtime's state and the listing.
func (s *Service) runtime(c *api.Container, sub *explain.Subject) {
	root := filepath.Join(s.RunRoot, "oci")
	if st, err := state.Load(root, c.ID); err == nil {
		sub.State = st
	}
	program := filepath.Join(root, c.ID, state.Program)
	if _, err := os.Stat(program); err == nil {
		sub.ProgramFile = program
	}
}

// others adds whose namespaces are shared, and the plan of the network that the container is on.
func (s *Service) others(c *api.Container, sub *explain.Subject) {
	owner := c.ID
	if m := c.HostConfig.NetworkMode; m.IsContainer() {
		if o, err := s.Containers.Record(m.ConnectedContainer()); err == nil {
			sub.Joined["network"] = "container " + o.Name
			owner = o.ID
		}
	}
	if m := c.HostConfig.PidMode; m.IsContainer() {
		if o, err := s.Containers.Record(m.Container()); err == nil {
			sub.Joined["pid"] = "container " + o.Name
		}
	}
	if p, err := s.Net.Plan(owner); err == nil {
		sub.Network = &p
	}
	for _, o := range s.Containers.Records() {
		if o.ID != c.ID && o.State.Running && o.State.Pid > 0 {
			sub.Peers = append(sub.Peers, explain.Peer{Name: o.Name, Pid: o.State.Pid})
		}
	}
}
