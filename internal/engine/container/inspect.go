package container

import (
	"context"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
)

// Inspect implements api.Containers. Like List it waits for nobody.
func (s *Service) Inspect(_ context.Context, ref string, size bool) (container.InspectResponse, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	rec := u.rec.Load()
	dir := s.stateDir(rec.ID)
	out := container.InspectResponse{
		ID: rec.ID, Created: rec.Created.Format(time.RFC3339Nano), Path: rec.Path, Args: rec.Args, State: state(rec), Image: rec.ImageID,
		ResolvConfPath: filepath.Join(dir, "resolv.conf"), HostnamePath: filepath.Join(dir, "hostname"), HostsPath: filepath.Join(dir, hostsFile),
		Name: "/" + rec.Name, RestartCount: rec.RestartCount, Driver: s.Storage, Platform: "linux", ExecIDs: s.execs.live(rec.ID),
		HostConfig: hostConfig(rec), Mounts: mountList(rec), Config: rec.Config, NetworkSettings: s.networkSettings(rec),
		GraphDriver: &storage.DriverData{Name: s.Storage, Data: s.layers(rec)},
		Storage:     &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: rec.ID}}},
	}
	if conf, err := s.shimConfig(rec); err == nil && conf.Log.Driver != "none" {
		out.LogPath = conf.Log.Path
	}
	if out.Args == nil {
		out.Args = []string{}
	}
	out.AppArmorProfile, _ = spec.AppArmorProfile(rec.HostConfig, &s.Host)
	if size {
		n, err := s.Snapshots.Usage(rec.ID)
		if err != nil {
			return out, err
		}
		out.SizeRw, out.SizeRootFs = &n, &n
	}
	return out, nil
}

// layers tells where the root file system lies, as Docker's GraphDriver.Data does.
func (c *core) layers(rec *api.Container) map[string]string {
	r, err := c.Snapshots.Rootfs(rec.ID)
	if err != nil {
		return nil
	}
	if r.Folder != "" {
		return map[string]string{"Dir": r.Folder, "ID": rec.ID}
	}
	lower := ""
	for _, l := range r.Lower {
		if lower != "" {
			lower += ":"
		}
		lower += l.Source
	}
	return map[string]string{"LowerDir": lower, "UpperDir": r.Upper, "WorkDir": r.Work, "ID": rec.ID}
}

func state(rec *api.Container) *container.State {
	s := &rec.State
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	return &container.State{
		Status: rec.Status(), Running: s.Running || s.Restarting, Paused: s.Paused, Restarting: s.Restarting, OOMKilled: s.OOMKilled, Dead: s.Dead,
		Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error, StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
}

// hostConfig is what was asked with no list or map missing, since clients' templates walk them.
func hostConfig(rec *api.Container) *container.HostConfig {
	h := *rec.HostConfig
	if h.PortBindings == nil {
		h.PortBindings = network.PortMap{}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	return &h
}

func (c *core) networkSettings(rec *api.Container) *container.NetworkSettings {
	out := &container.NetworkSettings{Ports: network.PortMap{}, Networks: endpoints(rec)}
	if !rec.State.Running {
		return out
	}
	out.SandboxID = rec.ID
	if rec.State.Pid > 0 {
		out.SandboxKey = filepath.Join("/proc", itoa(rec.State.Pid), "ns/net")
	}
	for p := range rec.Config.ExposedPorts {
		out.Ports[p] = nil
	}
	for p, b := range rec.State.Ports {
		out.Ports[p] = b
	}
	return out
}

// Explain implements api.Containers.
func (s *Service) Explain(ctx context.Context, ref string) ([]byte, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return nil, err
	}
	if s.Config.Explain == nil {
		return nil, errdef.New(errdef.NotImplemented, "explain is not implemented by this engine")
	}
	return s.Config.Explain(ctx, u.rec.Load(), s.runDir(u.id))
}
