// Package engine owns the wiring of one engine: which store, network and services there are, and in which order they recover.
//
// It promises that once Open returns, what the last engine left behind is adopted or gone, and that Close disturbs no container.
// It must never hold logic of its own: that is in the packages below.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/archive"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/depot"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/engine/explainer"
	"github.com/dhow-containers/dhow/internal/engine/files"
	"github.com/dhow-containers/dhow/internal/engine/image"
	"github.com/dhow-containers/dhow/internal/engine/machine"
	engnet "github.com/dhow-containers/dhow/internal/engine/network"
	"github.com/dhow-containers/dhow/internal/engine/system"
	"github.com/dhow-containers/dhow/internal/engine/volume"
)

// Config says where an engine lives. DataRoot, RunRoot and Shim are required.
type Config struct {
	DataRoot, RunRoot string
	Shim              string // path of dhow-shim
	Version, Commit   string
	CgroupParent      string   // "" is /dhow/<engine ID>
	Bridge, Table     string   // "" are the network package's
	Layers            string   // the form of layers, see depot.Config
	Insecure, Mirrors []string // registries without TLS; URLs asked before Docker Hub
	CertDirs          []string // folders of HOST:PORT/{*.crt,*.cert,*.key}
	Proxy             func(*http.Request) (*url.URL, error)
	Lazy              bool // every pull returns when its image can be used
	Embedded          *image.Embedded
	ImageStoreSize    depot.Size // what images may take on disk; 0 is as much as they need
	Log               *slog.Logger
}

// Engine is an open engine.
type Engine struct {
	API        api.Engine
	ID         string
	depot      *depot.Depot
	nets       *engnet.Service
	containers *container.Service
	log        *slog.Logger
	tidy       func()                // removes the cgroup above all containers when there are none
	watch      func(context.Context) // keeps images small
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
	e := &Engine{log: c.Log}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.depot, err = depot.Open(depot.Config{
		Root: c.DataRoot, Layers: c.Layers, UserAgent: "dhow/" + c.Version, Insecure: c.Insecure, Mirrors: c.Mirrors, CertDirs: c.CertDirs, Proxy: c.Proxy}); err != nil {
		return nil, err
	}
	e.ID = e.depot.ID
	if c.CgroupParent == "" {
		c.CgroupParent = "/dhow/" + e.ID[:12]
	}
	if err := e.assemble(c); err != nil {
		return nil, err
	}
	return e, e.recover(ctx)
}

// assemble makes the services and ties them together.
func (e *Engine) assemble(c Config) error {
	st := e.depot
	tree, host, err := machine.Detect()
	if err != nil {
		return err
	}
	bus := &event.Bus{}
	volumes, err := volume.Open(filepath.Join(c.DataRoot, "volumes"), st.DB, bus)
	if err != nil {
		return err
	}
	host.CgroupParent = c.CgroupParent
	e.tidy = func() { tree.RemoveEmpty(c.CgroupParent) }
	images := &image.Service{Store: st.Images, Registry: st.Registry, Events: bus, Storage: st.Driver, Embedded: c.Embedded, Log: c.Log, Lazy: c.Lazy}
	nets, err := engnet.Open(engnet.Config{Records: st.Records("network"), Log: c.Log, Table: c.Table, Bridge: c.Bridge, Events: bus})
	if err != nil {
		return err
	}
	e.nets = nets
	why := &explainer.Service{Net: nets.Net, RunRoot: c.RunRoot, Table: c.Table}
	e.containers = container.New(container.Config{
		Degraded: st.Degraded() != "", DataRoot: c.DataRoot, RunRoot: c.RunRoot, Shim: c.Shim, Storage: st.Driver, DB: st.DB, Events: bus, Images: images,
		Snapshots: st.Snapshots, Network: nets, Volumes: volumes, Cgroups: tree, Host: host, LoadProfile: machine.LoadProfile(), Log: c.Log, Explain: why.Explain,
	})
	images.Users, nets.Find = e.containers.Users, e.containers.Record
	images.Running = func(id string) []string { return container.Running(e.containers, id) }
	why.Containers = container.NewInsight(e.containers)
	version := "1"
	if tree.V2() {
		version = "2"
	}
	keep := st.Upkeep(e.containers.Users, c.ImageStoreSize, bus, c.Log)
	e.watch = keep.Watch
	e.API = api.Engine{
		Containers: e.containers, Execs: e.containers.Execs(), Images: images,
		Files:    &files.Service{Containers: container.NewReach(e.containers), Snapshots: st.Snapshots, Spool: c.DataRoot, Jail: true},
		Archives: &archive.Service{Store: st.Images, Events: bus, Images: images, Containers: container.NewObserver(e.containers), Snapshots: st.Snapshots},
		Upkeep:   keep,
		Networks: engnet.Networks{Service: nets, Change: container.NewRewirer(e.containers).Change}, Volumes: volumes,
		System: &system.Service{
			ID: e.ID, Release: c.Version, Commit: c.Commit, DataRoot: c.DataRoot, Storage: st.Driver, StorageStatus: st.Status, CgroupVersion: version,
			SwapLimit: host.SwapLimit, AppArmor: host.AppArmor, AppArmorLacks: machine.AppArmorLacks(), Insecure: c.Insecure, Mirrors: c.Mirrors, Bus: bus, Containers: e.containers, Images: images, Volumes: volumes.Usage, ImageUse: keep.ImageUse, Degraded: st.Degraded,
		},
	}
	return nil
}

// recover brings records and kernel together: containers first, then the network of those that live, then what nobody owns.
func (e *Engine) recover(ctx context.Context) error {
	if err := e.containers.Recovery().Load(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	live, err := e.containers.Recovery().Adopt(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	pids := map[string]int{}
	for _, l := range live {
		if rec, err := e.containers.Record(l); err == nil {
			pids[l] = rec.State.Pid
		}
	}
	if err := e.nets.Reconcile(ctx, pids); err != nil {
		// What could be put right has been; a container that ended just now is among the likely reasons.
		e.log.Error("networks not all in order", "err", err)
	}
	if why := e.depot.Degraded(); why != "" {
		e.log.Error("degraded: the metadata is damaged; running on what could be saved, nothing is swept: dhow system check --repair", "err", why)
	}
	if err := e.depot.Sweep(); err != nil {
		// An image's record that cannot be read keeps everything: dhow system check --repair.
		e.log.Error("leftovers not swept", "err", err)
	}
	boot, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.boot.Go(func() { e.containers.Recovery().Boot(boot) })
	e.boot.Go(func() { e.watch(boot) })
	e.boot.Go(func() {
		if err := e.depot.Backup(); err != nil {
			e.log.Error("metadata not backed up", "err", err)
		}
	})
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
	if e.nets != nil {
		e.nets.Close()
	}
	if e.tidy != nil {
		e.tidy()
	}
	if e.depot == nil {
		return nil
	}
	return e.depot.Close()
}
