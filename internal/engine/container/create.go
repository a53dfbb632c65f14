package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/rootfs"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
)

// Create implements api.Containers.
func (s *Service) Create(ctx context.Context, name, platform string, req container.CreateRequest) (container.CreateResponse, error) {
	m := maker{s.core}
	rec, img, err := m.draft(ctx, platform, req)
	if err != nil {
		return container.CreateResponse{}, err
	}
	defer s.table.hold(img.ID)()
	if err := s.Images.Stands(img.ID); err != nil { // it may have been removed just before it was held
		return container.CreateResponse{}, err
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		name = s.table.reserveRandom(rec.ID)
	} else {
		if err := id.ValidName(name); err != nil {
			return container.CreateResponse{}, errdef.New(errdef.InvalidArgument, "%w", err)
		}
		if err := s.table.reserve(name, rec.ID); err != nil {
			return container.CreateResponse{}, err
		}
	}
	rec.Name = name
	warnings, err := m.make(ctx, rec, img)
	if err != nil {
		s.table.release(name)
		return container.CreateResponse{}, err
	}
	s.event(rec, events.ActionCreate, nil)
	s.Log.Info("container created", "container", rec.ID, "name", name, "image", rec.Config.Image)
	return container.CreateResponse{ID: rec.ID, Warnings: warnings}, nil
}

// maker makes new containers.
type maker struct{ *core }

// draft turns the request into a record that is not yet anywhere.
func (c maker) draft(ctx context.Context, platform string, req container.CreateRequest) (*api.Container, Image, error) {
	if req.Config == nil {
		return nil, Image{}, errdef.New(errdef.InvalidArgument, "config cannot be empty in order to create a container")
	}
	img, err := c.Images.Local(ctx, req.Config.Image, platform)
	if err != nil {
		return nil, Image{}, err
	}
	h := container.HostConfig{}
	if req.HostConfig != nil {
		h = *req.HostConfig
	}
	config, from, err := spec.Merge(req.Config, img.Config)
	if err != nil {
		return nil, Image{}, err
	}
	path, args, err := spec.Command(config)
	if err != nil {
		return nil, Image{}, err
	}
	rec := &api.Container{
		ID: id.New(), Created: time.Now().UTC(), ImageID: img.ID, Platform: img.Platform, Path: path, Args: args,
		Config: config, HostConfig: &h, FromImage: from,
	}
	if err := c.defaults(rec, req.NetworkingConfig); err != nil {
		return nil, Image{}, err
	}
	return rec, img, nil
}

// defaults fills in what Docker's clients expect to find filled in, and checks what only the engine can check.
func (c maker) defaults(rec *api.Container, nets *network.NetworkingConfig) error {
	h, conf := rec.HostConfig, rec.Config
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if conf.NetworkDisabled {
		h.NetworkMode = network.NetworkNone
	}
	if h.IpcMode == "" {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsModePrivate
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if h.ShmSize < 0 {
		return errdef.New(errdef.InvalidArgument, "HostConfig.ShmSize: %d: the size of /dev/shm can't be less than 0", h.ShmSize)
	}
	if slices.Contains(strings.Split(h.CgroupParent, "/"), "..") {
		return errdef.New(errdef.InvalidArgument, "HostConfig.CgroupParent: %q contains \"..\"", h.CgroupParent)
	}
	if h.Runtime == "" {
		h.Runtime = "dhow"
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if conf.Hostname == "" && !h.UTSMode.IsHost() && !h.NetworkMode.IsHost() {
		conf.Hostname = rec.ID[:12]
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return errdef.As(errdef.InvalidArgument, err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return errdef.New(errdef.InvalidArgument, "can't create 'AutoRemove' container with restart policy")
	}
	if conf.StopSignal != "" {
		if _, err := signal.ParseSignal(conf.StopSignal); err != nil {
			return errdef.New(errdef.InvalidArgument, "Config.StopSignal: %w", err)
		}
	}
	if _, err := logConfig(h.LogConfig, "x"); err != nil {
		return err
	}
	for i, e := range conf.Env {
		if strings.HasPrefix(e, "=") || e == "" || strings.ContainsRune(e, 0) {
			return errdef.New(errdef.InvalidArgument, "Config.Env[%d]: invalid environment variable: %q", i, e)
		}
	}
	if strings.ContainsAny(conf.Hostname+conf.Domainname, "\x00\n/ ") || len(conf.Hostname) > 63 {
		return errdef.New(errdef.InvalidArgument, "Config.Hostname %q: not a host name", conf.Hostname)
	}
	rec.Networks = map[string]*network.EndpointSettings{}
	if nets != nil {
		for n, e := range nets.EndpointsConfig {
			rec.Networks[n] = e.Copy()
		}
	}
	return c.Network.Check(rec)
}

// make puts everything durable in place and the record last; on error nothing stays.
func (c maker) make(ctx context.Context, rec *api.Container, img Image) (warnings []string, err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	mounts, fresh, err := c.mountpoints(rec)
	undo = append(undo, func() { c.dropVolumes(rec, mounts, true) })
	rec.Mounts = mounts
	if err != nil {
		return nil, err
	}
	if warnings, err = c.rehearse(rec); err != nil {
		return nil, err
	}
	dir := c.stateDir(rec.ID)
	undo = append(undo, func() { os.RemoveAll(dir) })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the container's folder: %w", err)
	}
	undo = append(undo, func() { c.Snapshots.Remove(context.WithoutCancel(ctx), rec.ID) })
	if _, err := c.Snapshots.Prepare(ctx, rec.ID, img.Layers); err != nil {
		return nil, err
	}
	if err := c.furnish(ctx, rec, fresh); err != nil {
		return nil, err
	}
	if err := atomicfile.SyncDir(c.DataRoot + "/containers"); err != nil {
		return nil, err
	}
	u := newUnit(rec)
	if err := c.save(u, rec); err != nil {
		return nil, err
	}
	c.table.add(u)
	return warnings, nil
}

// rehearse builds the specification once, so that what cannot work is refused before anything exists.
func (c *core) rehearse(rec *api.Container) ([]string, error) {
	host, err := c.host(rec)
	if err != nil {
		return nil, err
	}
	out, err := spec.Build(spec.Input{Container: rec, Host: host, Hostname: rec.Config.Hostname})
	return out.Warnings, err
}

// furnish makes the working folder and gives fresh volumes their first content.
func (c maker) furnish(ctx context.Context, rec *api.Container, fresh []api.Mount) error {
	if wd := rec.Config.WorkingDir; wd != "" && wd != "/" {
		f, err := c.Snapshots.Mount(rec.ID, false)
		if err != nil {
			return err
		}
		root := rootfs.New(f)
		err = root.MakeDir(wd)
		root.Close()
		if err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	f, err := c.Snapshots.Mount(rec.ID, true)
	if err != nil {
		return err
	}
	root := rootfs.New(f)
	defer root.Close()
	c.fill.Lock()
	defer c.fill.Unlock()
	for _, m := range fresh { // to the end, although the client goes: what has content is not filled again
		if err := root.Fill(context.WithoutCancel(ctx), m.Destination, m.Source, true); err != nil {
			return err
		}
	}
	return nil
}

// Rename implements api.Containers.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	name = strings.TrimPrefix(name, "/")
	if err := id.ValidName(name); err != nil {
		return errdef.New(errdef.InvalidArgument, "%w", err)
	}
	u, err := s.table.find(ref)
	if err != nil {
		return err
	}
	if err := u.lock(ctx); err != nil {
		return err
	}
	defer u.unlock()
	rec := u.change()
	old := rec.Name
	if old == name {
		return errdef.New(errdef.InvalidArgument, "rename a container with the same name as its current name")
	}
	if err := s.table.reserve(name, u.id); err != nil {
		return err
	}
	rec.Name = name
	if err := s.save(u, rec); err != nil {
		s.table.release(name)
		return err
	}
	s.table.rename(u, old, name)
	s.event(rec, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// event tells what happened to a container, with the attributes that Docker gives.
func (c *core) event(rec *api.Container, a events.Action, more map[string]string) {
	attr := map[string]string{}
	for k, v := range rec.Config.Labels {
		attr[k] = v
	}
	attr["image"], attr["name"] = rec.Config.Image, rec.Name
	for k, v := range more {
		attr[k] = v
	}
	c.Events.Publish(events.ContainerEventType, a, rec.ID, attr)
}

// dropVolumes ends the container's hold on its volumes.
func (c *core) dropVolumes(rec *api.Container, mounts []api.Mount, remove bool) error {
	var errs []error
	for _, m := range mounts {
		if m.Name != "" {
			errs = append(errs, c.Volumes.Release(m.Name, rec.ID, remove && m.Anonymous))
		}
	}
	return errors.Join(errs...)
}
