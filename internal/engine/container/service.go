// Package container owns the containers of one engine: their records, their runs, and everybody who waits for either.
//
// It promises that a record exists only when everything durable behind it does, that reads (List, Inspect) never wait for a
// change, that no two containers ever wait for each other, and that a failed start leaves nothing behind. It must never touch
// images, networks or mounts itself: it asks for them through the interfaces of Config.
package container

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"

	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/spec/bundle"
	"github.com/dhow-containers/dhow/internal/store/meta"
)

// Config is what the service stands on. All fields are required unless said otherwise.
type Config struct {
	DataRoot string // records' folders lie in DataRoot/containers
	RunRoot  string // runs lie in RunRoot/containers, the runtime's state in RunRoot/oci
	Shim     string // path of the dhow-shim program
	Storage  string // name of the storage driver, for inspect

	DB        *meta.DB
	Events    *event.Bus
	Images    Images
	Snapshots Snapshots
	Network   Network
	Volumes   Volumes
	Cgroups   Cgroups
	Degraded  bool      // records may be missing: what has none is left alone
	Host      spec.Host // Devices and AllDevices are filled in per container
	// LoadProfile has the kernel know the default AppArmor profile, where Host names one.
	LoadProfile func() error
	Log         *slog.Logger
	// Explain makes the report of Containers.Explain; nil answers NotImplemented.
	Explain func(ctx context.Context, c *api.Container, runDir string) ([]byte, error)
}

// Image is what a container needs to know of an image.
type Image struct {
	ID       string
	Platform string
	Layers   []digest.Digest // diff IDs, bottom first
	Config   dockerspec.DockerOCIImageConfig
}

// Images finds local images.
type Images interface {
	Local(ctx context.Context, ref, platform string) (Image, error)
	// Stands is NotFound for an image that is not here, or whose removal was decided before.
	Stands(id string) error
}

// Snapshots keeps writable layers, one per container, by container ID.
type Snapshots interface {
	Prepare(ctx context.Context, id string, layers []digest.Digest) (bundle.Rootfs, error)
	Rootfs(id string) (bundle.Rootfs, error)
	// Open is Rootfs for a start, which must be over when the file, nil at times, is closed.
	Open(id string) (bundle.Rootfs, *os.File, error)
	Mount(id string, readonly bool) (*os.File, error)
	Usage(id string) (int64, error)
	Remove(ctx context.Context, id string) error
	List() ([]string, error)
}

// Network gives a container its network for one run.
type Network interface {
	// Check refuses, at creation, what Connect could never do.
	Check(c *api.Container) error
	Connect(ctx context.Context, c *api.Container) (*Connection, error)
	// HostFiles makes /etc/hosts and /etc/resolv.conf of a container on the host's network.
	HostFiles(c *api.Container) (hosts, resolv []byte, err error)
	Disconnect(ctx context.Context, id string) error
}

// Connection is a container's network for one run. Netns is closed by the caller.
type Connection struct {
	Netns         *os.File
	Hosts, Resolv []byte
	Ports         network.PortMap
	Endpoints     map[string]*network.EndpointSettings
}

// Volumes makes and holds volumes.
type Volumes interface {
	Ensure(req volume.CreateRequest, holder string) (v volume.Volume, made bool, err error)
	Hold(name, holder string)
	Release(name, holder string, remove bool) error
	// Keep lets an anonymous volume outlive its container.
	Keep(name string) error
	// Sweep removes what was made for containers that are not known.
	Sweep(known func(container string) bool) error
}

// Cgroups acts on control groups by their path below each hierarchy's root.
type Cgroups interface {
	// Destroy kills what is in it and removes it; an absent one is no error.
	Destroy(ctx context.Context, path string) error
	Pids(path string) ([]int, error)
	Stats(path string) (Usage, error)
	// Children lists the names below path.
	Children(path string) ([]string, error)
}

// Usage is what a cgroup has used.
type Usage struct {
	CPU, CPUUser, CPUSystem              uint64 // nanoseconds
	Periods, Throttled, ThrottledTime    uint64
	Memory, MemoryPeak, MemoryLimit      uint64
	MemoryFailures                       uint64
	MemoryStat                           map[string]uint64
	Pids, PidsLimit                      uint64
	ReadBytes, WriteBytes, Reads, Writes uint64
}

// Service implements api.Containers.
type Service struct{ *core }

// core is what the service and the execs share.
type core struct {
	Config
	table table
	execs execTable
	fill  sync.Mutex // held while volumes get their first content: two containers may begin with the same
	// ctx ends with the engine; goroutines that watch shims end with it and leave the containers running.
	ctx  context.Context
	stop context.CancelFunc
}

// New returns a service without containers; Recover finds those of the last engine.
func New(c Config) *Service {
	ctx, stop := context.WithCancel(context.Background())
	s := &Service{&core{Config: c, ctx: ctx, stop: stop}}
	s.table.init()
	return s
}

// Close stops watching; containers go on.
func (s *Service) Close() { s.stop() }

// Execs returns the service for processes in running containers.
func (s *Service) Execs() *Execs { return &Execs{s.core} }

const bucket = "containers"

// opTimeout bounds one change of one container on the engine's side.
const opTimeout = 2 * time.Minute

// undoTimeout bounds what takes a failed start back.
const undoTimeout = 30 * time.Second

func (c *core) stateDir(id string) string { return c.DataRoot + "/containers/" + id }
func (c *core) runDir(id string) string   { return c.RunRoot + "/containers/" + id }
func (c *core) ociRoot() string           { return c.RunRoot + "/oci" }

// save makes a change of the record durable and then visible.
func (c *core) save(u *unit, rec *api.Container) error {
	if err := c.DB.Put(bucket, rec.ID, rec); err != nil {
		return err
	}
	u.rec.Store(rec)
	return nil
}

// note is save where the world has already changed: the memory must follow it even when the disk cannot.
func (c *core) note(u *unit, rec *api.Container) {
	u.rec.Store(rec)
	if err := c.DB.Put(bucket, rec.ID, rec); err != nil {
		c.Log.Error("record not saved", "container", rec.ID, "err", err)
	}
}
