// Package api is what the engine offers its faces: one interface per kind of object, in the wire types of the Docker Engine
// API (github.com/moby/moby/api), so that nothing is translated twice.
//
// It promises that every error carries an errdef kind. It must never mention HTTP, gRPC or a terminal.
package api

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Engine is everything a face can reach.
type Engine struct {
	Containers Containers
	Execs      Execs
	Files      Files
	Images     Images
	Archives   Archives
	Upkeep     Upkeep
	Networks   Networks
	Volumes    Volumes
	System     System
}

// Filters are the filters of a list request: key to accepted values.
type Filters map[string][]string

// Containers are the operations on containers. ref is a name, an ID or an unambiguous prefix of one.
type Containers interface {
	Create(ctx context.Context, name, platform string, req container.CreateRequest) (container.CreateResponse, error)
	List(ctx context.Context, o ListOptions) ([]container.Summary, error)
	Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	// Start returns errdef.NotModified when it already runs.
	Start(ctx context.Context, ref string) error
	// Stop returns errdef.NotModified when it does not run. A nil timeout means the container's own (10 s by default); -1 waits for ever.
	Stop(ctx context.Context, ref, signal string, timeout *int) error
	Restart(ctx context.Context, ref, signal string, timeout *int) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Remove(ctx context.Context, ref string, o RemoveOptions) error
	// Wait registers before it returns; exactly one response is sent, then the channel is closed.
	Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error)
	// Attach may be called before Start; the session then begins with the first byte.
	Attach(ctx context.Context, ref string, o AttachOptions) (Session, error)
	Logs(ctx context.Context, ref string, o LogOptions) (LogStream, error)
	Resize(ctx context.Context, ref string, height, width uint) error
	Top(ctx context.Context, ref string, psArgs string) (container.TopResponse, error)
	Stats(ctx context.Context, ref string) (container.StatsResponse, error)
	Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error)
	Prune(ctx context.Context, f Filters) (container.PruneReport, error)
	// Explain returns an explain.Report as JSON.
	Explain(ctx context.Context, ref string) ([]byte, error)
}

// Execs are processes started in running containers.
type Execs interface {
	Create(ctx context.Context, container string, req container.ExecCreateRequest) (id string, err error)
	// Start prepares an exec; it runs as soon as Session.Run is called. detach starts it at once and returns a nil Session.
	Start(ctx context.Context, id string, detach, tty bool, size [2]uint) (Session, error)
	Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	Resize(ctx context.Context, id string, height, width uint) error
}

// Files are the files in containers, running or not.
type Files interface {
	// Changes tells what differs from the image, sorted by path.
	Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error)
	Stat(ctx context.Context, ref, path string) (container.PathStat, error)
	// Read writes a tar of path to what begin returns, which is called once path is known to be there.
	Read(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error
	// Write lays a tar, compressed or not, over a folder. A tar that is not whole and sound changes nothing.
	Write(ctx context.Context, ref, path string, tar io.Reader, o WriteOptions) error
}

// WriteOptions say how a tar is laid over a folder.
type WriteOptions struct {
	KeepKinds bool // a folder is replaced by nothing but a folder, and the other way round
	ToUser    bool // everything belongs to the container's user, where it has one, instead of whom the tar names
}

// Session is an attached client. Run copies until the process ends its output, the client detaches or ctx ends. stdout and
// stderr get unframed bytes (with a TTY all output is stdout). A nil stdin attaches no input.
type Session interface {
	TTY() bool
	Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error
}

// LogStream is a container's log as asked for.
type LogStream interface {
	TTY() bool
	Copy(ctx context.Context, stdout, stderr io.Writer) error
}

// ListOptions choose containers.
type ListOptions struct {
	All     bool
	Limit   int
	Size    bool
	Filters Filters
}

// RemoveOptions say how far Remove goes.
type RemoveOptions struct{ Force, Volumes, Link bool }

// AttachOptions choose streams. DetachKeys is Docker's notation; empty means ctrl-p,ctrl-q.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs, Stream          bool
	DetachKeys            string
}

// LogOptions choose log lines. Tail < 0 means all.
type LogOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int
}

// Progress receives the lines of a long operation, in order, from one goroutine at a time.
type Progress func(jsonstream.Message)

// Images are the operations on local images.
type Images interface {
	Pull(ctx context.Context, ref string, o PullOptions, auth *registry.AuthConfig, p Progress) error
	// PullAll pulls every tag that the registry has of a repository.
	PullAll(ctx context.Context, repository string, o PullOptions, auth *registry.AuthConfig, p Progress) error
	// Distribution says what a reference is in its registry; nothing is pulled.
	Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error)
	// Manifest fetches a manifest or index from its registry; PushManifests puts an index of manifests of that registry there.
	Manifest(ctx context.Context, ref string, insecure bool, auth *registry.AuthConfig) (Manifest, error)
	PushManifests(ctx context.Context, target string, all []Manifest, insecure bool, auth *registry.AuthConfig) (digest string, err error)
	// Search asks Docker Hub, or the registry that term begins with. limit 0 is 25.
	Search(ctx context.Context, term string, limit int, f Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error)
	// Push uploads one tag, or with all every tag that the repository has here.
	Push(ctx context.Context, ref string, o PushOptions, auth *registry.AuthConfig, p Progress) error
	List(ctx context.Context, all bool, f Filters) ([]image.Summary, error)
	// Inspect and History take os/arch[/variant], "" for what the name means.
	Inspect(ctx context.Context, ref, platform string) (image.InspectResponse, error)
	History(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error)
	Tag(ctx context.Context, ref, target string) error
	// Remove takes a name, and with the last one the image; with platforms, these of an image for several.
	Remove(ctx context.Context, ref string, platforms []ocispec.Platform, force, noPrune bool) ([]image.DeleteResponse, error)
	Prune(ctx context.Context, f Filters) (image.PruneReport, error)
	Login(ctx context.Context, auth *registry.AuthConfig) (registry.AuthResponse, error)
}

// PullOptions say how to pull. Platform is os/arch[/variant], "all" for every platform, or "" for this host's. With Lazy a pull returns when
// its image can be used, while layers with tables of contents still arrive.
type PullOptions struct {
	Platform string
	Lazy     bool
}

// ActionArrive is the event that the rest of an image which was pulled lazily is here, or, with the attribute error, that it has not come.
const ActionArrive events.Action = "arrive"

// Manifest is a manifest or index of a registry. The descriptor of an image's has its platform.
type Manifest struct {
	Ref        string // canonical
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// Archives move images and containers in and out as tars, and make images here. What Save and Export return writes the tar; it must
// be called once, and an error it gives after the first byte means that the tar is worth nothing.
type Archives interface {
	Save(ctx context.Context, names []string, platforms []ocispec.Platform) (write func(io.Writer) error, err error)
	Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, quiet bool, p Progress) error
	// Import makes an image of a file system's tar: r, or with o.URL what lies there.
	Import(ctx context.Context, o ImportOptions, r io.Reader, p Progress) error
	Export(ctx context.Context, ref string) (write func(io.Writer) error, err error)
	Commit(ctx context.Context, o CommitOptions) (id string, err error)
}

// ImportOptions say what an imported image is called and what it says. Changes are instructions of a Dockerfile.
type ImportOptions struct {
	URL, Ref, Message, Platform string
	Changes                     []string
}

// CommitOptions say what is made of a container. Config is laid under the changes and over the container's own configuration.
type CommitOptions struct {
	Container, Ref, Author, Comment string
	Pause                           bool
	Changes                         []string
	Config                          *container.Config
}

// PushOptions say what is pushed and how.
type PushOptions struct {
	All         bool
	Platform    string // os/arch[/variant]; "" for what the tag names
	Compression string // of layers that must be compressed anew: gzip, zstd, "" for what they had
}

// Networks are the operations on networks.
type Networks interface {
	Create(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error)
	List(ctx context.Context, f Filters) ([]network.Summary, error)
	Inspect(ctx context.Context, ref string) (network.Inspect, error)
	Remove(ctx context.Context, ref string) error
	Connect(ctx context.Context, ref string, req network.ConnectRequest) error
	Disconnect(ctx context.Context, ref string, req network.DisconnectRequest) error
	Prune(ctx context.Context, f Filters) (network.PruneReport, error)
}

// Volumes are the operations on volumes.
type Volumes interface {
	Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	List(ctx context.Context, f Filters) ([]volume.Volume, []string, error)
	Inspect(ctx context.Context, name string) (volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f Filters) (volume.PruneReport, error)
}

// System is the engine itself.
type System interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	// Events replays from since (where set) and follows until until (where set) or ctx ends.
	Events(ctx context.Context, since, until time.Time, f Filters) (<-chan events.Message, error)
	DiskUsage(ctx context.Context) (system.DiskUsage, error)
}
