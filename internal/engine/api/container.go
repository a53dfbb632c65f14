package api

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Container is the durable record of one container: what was asked of the engine, and how it last was. Records are immutable
// once published; a change makes a new one.
type Container struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"` // without Docker's leading slash
	Created  time.Time `json:"created"`
	ImageID  string    `json:"image_id"`
	Platform string    `json:"platform,omitempty"`

	// Path and Args are the command line that entrypoint and cmd add up to.
	Path string   `json:"path"`
	Args []string `json:"args"`
	// Config is what was asked merged with the image's configuration; FromImage names the parts that the image gave, such as
	// "Cmd", "Env PATH" or "Volumes /data".
	Config     *container.Config     `json:"config"`
	HostConfig *container.HostConfig `json:"host_config"`
	FromImage  []string              `json:"from_image,omitempty"`
	// Networks holds what was asked of each network, by the name it was asked under.
	Networks map[string]*network.EndpointSettings `json:"networks,omitempty"`
	// NetworksSettled says that Networks, by the networks' own names, is all: HostConfig.NetworkMode adds none. It is set by the
	// first connect or disconnect.
	NetworksSettled bool    `json:"networks_settled,omitempty"`
	Mounts          []Mount `json:"mounts,omitempty"`

	State        State `json:"state"`
	RestartCount int   `json:"restart_count,omitempty"`
	// WantStopped is set when a user stopped it: the restart policy unless-stopped then leaves it alone.
	WantStopped bool `json:"want_stopped,omitempty"`
}

// Mount is one resolved mount point: binds, volumes and tmpfs, wherever they were asked for.
type Mount struct {
	Type        mount.Type        `json:"type"`
	Name        string            `json:"name,omitempty"` // of the volume
	Source      string            `json:"source,omitempty"`
	Destination string            `json:"destination"`
	Driver      string            `json:"driver,omitempty"`
	Mode        string            `json:"mode,omitempty"` // options as the user wrote them
	ReadOnly    bool              `json:"read_only,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	// NonRecursive binds without the mounts below the source.
	NonRecursive bool `json:"non_recursive,omitempty"`
	// ReadOnlyHere makes only the mount itself read-only, not those below it.
	ReadOnlyHere bool `json:"read_only_here,omitempty"`
	// Data are a tmpfs' options.
	Data []string `json:"data,omitempty"`
	// NoCopy leaves a new volume empty; Anonymous volumes go with the container.
	NoCopy    bool   `json:"no_copy,omitempty"`
	Anonymous bool   `json:"anonymous,omitempty"`
	Subpath   string `json:"subpath,omitempty"`
	// Why names the flag or image field that asked for it.
	Why string `json:"why"`
}

// State is how a container last was.
type State struct {
	// Running is true from the moment the command runs until its end has been recorded.
	Running bool `json:"running,omitempty"`
	Paused  bool `json:"paused,omitempty"`
	// Held is a freeze of the engine's own, for a commit; whoever finds it after a crash thaws.
	Held       bool      `json:"held,omitempty"`
	Restarting bool      `json:"restarting,omitempty"`
	Dead       bool      `json:"dead,omitempty"`
	OOMKilled  bool      `json:"oom_killed,omitempty"`
	Pid        int       `json:"pid,omitempty"`
	ExitCode   int       `json:"exit_code,omitempty"`
	Error      string    `json:"error,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// Ports and Endpoints are what the network gave for this run.
	Ports     network.PortMap                      `json:"ports,omitempty"`
	Endpoints map[string]*network.EndpointSettings `json:"endpoints,omitempty"`
}

// Status is Docker's word for the state.
func (c *Container) Status() container.ContainerState {
	s := &c.State
	switch {
	case s.Dead:
		return container.StateDead
	case s.Restarting:
		return container.StateRestarting
	case s.Paused:
		return container.StatePaused
	case s.Running:
		return container.StateRunning
	case s.StartedAt.IsZero() && s.FinishedAt.IsZero():
		return container.StateCreated
	}
	return container.StateExited
}

// StopSignal is the signal that asks the command to end.
func (c *Container) StopSignal() string {
	if c.Config.StopSignal != "" {
		return c.Config.StopSignal
	}
	return "SIGTERM"
}

// StopTimeout is how long to wait for it, in seconds; negative means for ever.
func (c *Container) StopTimeout() int {
	if c.Config.StopTimeout != nil {
		return *c.Config.StopTimeout
	}
	return 10
}
