// Package engine owns the wiring of one engine: which store, network and services there are, and in which order they recover.
//
// It promises that once Open returns, what the last engine left behind is adopted or gone, and that Close disturbs no container.
// It must hold no logic of its own: that is in the packages below.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/engine/group"
	"github.com/dhow-containers/dhow/internal/engine/image"
	engnet "github.com/dhow-containers/dhow/internal/engine/network"
	"github.com/dhow-containers/dhow/internal/engine/system"
	"github.com/dhow-containers/dhow/internal/engine/volume"
	"github.com/dhow-containers/dhow/internal/network"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Config says where an engine lives. DataRoot, RunRoot and Shim are required.
type Config struct {
	DataRoot, RunRoot string
	Shim              string // path of dhow-shim
	Version, Commit   string
	CgroupParent      string // "" is /dhow/<engine ID>
	Bridge, Table     string // "" are the network package's
	Insecure          []string
	Embedded          *image.Embedded
	Explain           func(ctx context.Context, c *api.Container, runDir string) ([]byte, error)
	Log               *slog.Logger
}

// Engine is an open engine.
type Engine struct {
	API        api.Engine
	ID         string
	db         *meta.DB
	net        *network.Service
	containers *container.Service
	boot       sync.WaitGroup
	cancel     context.CancelFunc
}

// Open takes the data root over, recovers, and begins to apply restart policies in the background.
func Open(ctx context.Context, c Config) (_ *Engine, err error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	for _, d := range []string{c.DataRoot, c.RunRoot} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
	}
	e := &Engine{}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.db, err = meta.Open(filepath.Join(c.DataRoot, "meta.db")); err != nil {
		return nil, err
	}
	if e.ID, err = identity(e.db); err != nil {
		return nil, err
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/dhow/" + id.Short(e.ID)
	}
	st, err := openStores(c, e.db)
	if err != nil {
		return nil, err
	}
	if e.net, err = network.Open(network.Config{Records: bucket{e.db, "network"}, Log: c.Log, Table: c.Table, Bridge: c.Bridge}); err != nil {
		return nil, err
	}
	if err := e.assemble(c, st); err != nil {
		return nil, err
	}
	return e, e.recover(ctx, st)
}

// assemble makes the services and ties them together.
func (e *Engine) assemble(c Config, st *stores) error {
	tree, err := group.Detect()
	if err != nil {
		return err
	}
	bus := &event.Bus{}
	volumes, err := volume.Open(filepath.Join(c.DataRoot, "volumes"), e.db, bus)
	if err != nil {
		return err
	}
	host, err := hostFacts(tree)
	if err != nil {
		return err
	}
	host.CgroupParent = c.CgroupParent
	images := &image.Service{Store: st.images, Registry: st.registry, Events: bus, Storage: st.driver, Embedded: c.Embedded}
	nets := &engnet.Service{Net: e.net, Events: bus}
	e.containers = container.New(container.Config{
		DataRoot: c.DataRoot, RunRoot: c.RunRoot, Shim: c.Shim, Storage: st.driver, DB: e.db, Events: bus, Images: images,
		Snapshots: snapshots{st.snapshots}, Network: nets, Volumes: volumes, Cgroups: tree, Host: host, Log: c.Log, Explain: c.Explain,
	})
	images.Users, nets.Find = e.containers.Users, e.containers.Record
	version := "1"
	if tree.V2() {
		version = "2"
	}
	e.API = api.Engine{
		Containers: e.containers, Execs: e.containers.Execs(), Images: images, Networks: engnet.Networks{Service: nets}, Volumes: volumes,
		System: &system.Service{
			ID: e.ID, Release: c.Version, Commit: c.Commit, DataRoot: c.DataRoot, Storage: st.driver, StorageStatus: st.status, CgroupVersion: version,
			SwapLimit: host.SwapLimit, Insecure: c.Insecure, Bus: bus, Containers: e.containers, Images: images, Volumes: volumes.Usage,
		},
	}
	return nil
}

// recover brings records and kernel together: containers first, then the network of those that live, then what nobody owns.
func (e *Engine) recover(ctx context.Context, st *stores) error {
	if err := e.containers.Load(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	live, err := e.containers.Adopt(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	var boxes []network.LiveContainer
	for _, l := range live {
		if rec, err := e.containers.Record(l); err == nil {
			boxes = append(boxes, network.LiveContainer{ID: l, Pid: rec.State.Pid})
		}
	}
	if err := e.net.Reconcile(ctx, boxes); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := st.sweep(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	boot, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.boot.Go(func() { e.containers.Boot(boot) })
	return nil
}

// Close lets everything go; containers and their networks go on.
func (e *Engine) Close() error {
	if e.cancel != nil {
		e.cancel()
	}
	if e.containers != nil {
		e.containers.Close()
	}
	e.boot.Wait()
	if e.net != nil {
		e.net.Close()
	}
	var err error
	if e.db != nil {
		err = e.db.Close()
	}
	return errors.Join(err)
}

// identity is the engine's own ID, made once per data root.
func identity(db *meta.DB) (string, error) {
	var s string
	found, err := db.Get("engine", "id", &s)
	if err != nil || found {
		return s, err
	}
	s = id.New()
	return s, db.Put("engine", "id", s)
}
