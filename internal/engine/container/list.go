package container

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// List implements api.Containers. It reads one view of the table and waits for nobody.
func (s *Service) List(ctx context.Context, o api.ListOptions) ([]container.Summary, error) {
	keep, all, err := filters{s.core}.read(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	out := []container.Summary{}
	now := time.Now()
	for _, u := range s.table.all() {
		rec := u.rec.Load()
		if st := rec.Status(); !o.All && !all && o.Limit <= 0 && st != container.StateRunning && st != container.StatePaused && st != container.StateRestarting {
			continue
		}
		if !keep(rec) {
			continue
		}
		sum := summary(rec, now)
		if o.Size {
			sum.SizeRw, _ = s.Snapshots.Usage(rec.ID)
		}
		out = append(out, sum)
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

func summary(rec *api.Container, now time.Time) container.Summary {
	out := container.Summary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, Image: rec.Config.Image, ImageID: rec.ImageID, Command: command(rec),
		Created: rec.Created.Unix(), Labels: rec.Config.Labels, State: rec.Status(), Status: StatusText(rec, now),
		Ports: portList(rec), Mounts: mountList(rec), NetworkSettings: &container.NetworkSettingsSummary{Networks: endpoints(rec)},
	}
	out.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	out.HostConfig.Annotations = rec.HostConfig.Annotations
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	return out
}

// command is the command line as Docker shows it.
func command(rec *api.Container) string {
	var b strings.Builder
	b.WriteString(rec.Path)
	for _, a := range rec.Args {
		b.WriteByte(' ')
		if strings.Contains(a, " ") {
			b.WriteString("'" + a + "'")
		} else {
			b.WriteString(a)
		}
	}
	return b.String()
}

// StatusText is the state in words, such as "Up 5 minutes" or "Exited (1) 2 hours ago".
func StatusText(rec *api.Container, now time.Time) string {
	s := &rec.State
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch rec.Status() {
	case container.StateRunning:
		return "Up " + since(s.StartedAt)
	case container.StatePaused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case container.StateCreated:
		return "Created"
	case container.StateDead:
		return "Dead"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
}

func portList(rec *api.Container) []container.PortSummary {
	out := []container.PortSummary{}
	if rec.State.Running {
		for p, bindings := range rec.State.Ports {
			for _, b := range bindings {
				host, _ := strconv.ParseUint(b.HostPort, 10, 16)
				out = append(out, container.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(host), Type: string(p.Proto())})
			}
			if len(bindings) == 0 {
				out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.PrivatePort != b.PrivatePort {
			return a.PrivatePort < b.PrivatePort
		}
		if a.Type != b.Type {
			return a.Type < b.Type
		}
		return a.IP.Less(b.IP)
	})
	return out
}

func mountList(rec *api.Container) []container.MountPoint {
	out := []container.MountPoint{}
	for _, m := range rec.Mounts {
		mode := m.Mode
		if mode == "" && m.Type == "volume" {
			mode = "z"
		}
		out = append(out, container.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver, Mode: mode, RW: !m.ReadOnly, Propagation: m.Propagation,
		})
	}
	return out
}

// endpoints are the networks as they are, or as they were asked for while the container does not run.
func endpoints(rec *api.Container) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for n, e := range rec.Networks {
		if e == nil {
			e = &network.EndpointSettings{}
		}
		out[n] = e
	}
	if len(out) == 0 && !rec.NetworksSettled && !rec.HostConfig.NetworkMode.IsContainer() {
		out[rec.HostConfig.NetworkMode.NetworkName()] = &network.EndpointSettings{}
	}
	if rec.State.Running {
		for n, e := range rec.State.Endpoints {
			if n != "default" {
				delete(out, "default")
			}
			out[n] = e
		}
	}
	return out
}

// filters reads the filters of a list request.
type filters struct{ *core }

type test func(rec *api.Container) bool

// anyOf holds when one of the values does.
func anyOf(values []string, ok func(rec *api.Container, v string) bool) test {
	return func(rec *api.Container) bool {
		return slices.ContainsFunc(values, func(v string) bool { return ok(rec, v) })
	}
}

// read returns the test that all filters make together. all tells that one asks for containers that do not run.
func (f filters) read(ctx context.Context, in api.Filters) (keep test, all bool, err error) {
	var tests []test
	for key, values := range in {
		if len(values) == 0 {
			continue
		}
		t, err := f.one(ctx, key, values)
		if err != nil {
			return nil, false, err
		}
		tests = append(tests, t)
		all = all || key == "status" || key == "exited"
	}
	return func(rec *api.Container) bool {
		return !slices.ContainsFunc(tests, func(t test) bool { return !t(rec) })
	}, all, nil
}

func (f filters) one(ctx context.Context, key string, values []string) (test, error) {
	switch key {
	case "id":
		return anyOf(values, func(r *api.Container, v string) bool { return strings.HasPrefix(r.ID, v) }), nil
	case "name":
		return byName(values)
	case "status":
		return byStatus(values)
	case "exited":
		return byExitCode(values)
	case "label":
		return func(r *api.Container) bool {
			return api.Filters{"label": values}.Labelled(r.Config.Labels)
		}, nil
	case "ancestor":
		ids := f.imageIDs(ctx, values)
		return func(r *api.Container) bool { return ids[r.ImageID] || slices.Contains(values, r.Config.Image) }, nil
	case "volume":
		return anyOf(values, func(r *api.Container, v string) bool {
			return slices.ContainsFunc(r.Mounts, func(m api.Mount) bool { return m.Name == v || m.Destination == path.Clean(v) || m.Source == v })
		}), nil
	case "network":
		return anyOf(values, onNetwork), nil
	case "publish", "expose":
		return anyOf(values, func(r *api.Container, v string) bool { return portMatch(r, v, key == "publish") }), nil
	case "before", "since":
		u, err := f.table.find(values[0])
		if err != nil {
			return nil, err
		}
		at := u.rec.Load().Created
		return func(r *api.Container) bool {
			return key == "before" && r.Created.Before(at) || key == "since" && r.Created.After(at)
		}, nil
	case "health":
		return anyOf(values, func(_ *api.Container, v string) bool { return v == string(container.NoHealthcheck) }), nil
	case "isolation", "is-task":
		return anyOf(values, func(_ *api.Container, v string) bool { return v == "default" || v == "false" || v == "0" }), nil
	}
	return nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", key)
}

func onNetwork(r *api.Container, v string) bool {
	for n, e := range endpoints(r) {
		if n == v || e.NetworkID != "" && strings.HasPrefix(e.NetworkID, v) {
			return true
		}
	}
	return false
}

func byStatus(values []string) (test, error) {
	for _, v := range values {
		if err := container.ValidateContainerState(container.ContainerState(v)); err != nil {
			return nil, errdef.As(errdef.InvalidArgument, err)
		}
	}
	return anyOf(values, func(r *api.Container, v string) bool { return string(r.Status()) == v }), nil
}

func byExitCode(values []string) (test, error) {
	for _, v := range values {
		if _, err := strconv.Atoi(v); err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter 'exited=%s': not a number", v)
		}
	}
	return anyOf(values, func(r *api.Container, v string) bool {
		return r.Status() == container.StateExited && strconv.Itoa(r.State.ExitCode) == v
	}), nil
}

func byName(values []string) (test, error) {
	res := map[string]*regexp.Regexp{}
	for _, v := range values {
		re, err := regexp.Compile(v)
		if err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter 'name=%s': %w", v, err)
		}
		res[v] = re
	}
	return anyOf(values, func(r *api.Container, v string) bool {
		return res[v].MatchString(r.Name) || res[v].MatchString("/"+r.Name)
	}), nil
}

func (c *core) imageIDs(ctx context.Context, refs []string) map[string]bool {
	out := map[string]bool{}
	for _, r := range refs {
		if img, err := c.Images.Local(ctx, r, ""); err == nil {
			out[img.ID] = true
		}
	}
	return out
}

func portMatch(rec *api.Container, v string, published bool) bool {
	r, err := network.ParsePortRange(v)
	if err != nil {
		return false
	}
	in := func(n uint16, proto network.IPProtocol) bool {
		return n >= r.Start() && n <= r.End() && proto == r.Proto()
	}
	if !published {
		for p := range rec.Config.ExposedPorts {
			if in(p.Num(), p.Proto()) {
				return true
			}
		}
		return false
	}
	for p, list := range rec.HostConfig.PortBindings {
		for _, b := range list {
			if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil && in(uint16(n), p.Proto()) {
				return true
			}
		}
	}
	return false
}
