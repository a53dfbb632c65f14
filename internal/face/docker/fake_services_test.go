package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

type fakeExecs struct{ f *fake }

func (s fakeExecs) Create(ctx context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	c, err := s.f.find(ref)
	if err != nil {
		return "", err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.next++
	e := &fakeExec{id: fmt.Sprintf("%064x", 0xeec000+s.f.next), container: c.id, req: req}
	s.f.execs[e.id] = e
	return e.id, nil
}

func (s fakeExecs) get(id string) (*fakeExec, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if e := s.f.execs[id]; e != nil {
		return e, nil
	}
	return nil, errdef.New(errdef.NotFound, "No such exec instance: %s", id)
}

func (s fakeExecs) Start(ctx context.Context, id string, detach, tty bool, size [2]uint) (api.Session, error) {
	s.f.called("exec detach=%t tty=%t", detach, tty)
	e, err := s.get(id)
	if err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	ran := e.ran
	e.ran = true
	s.f.mu.Unlock()
	if ran {
		return nil, errdef.New(errdef.Conflict, "exec %s has already run", id)
	}
	if detach {
		return nil, nil
	}
	ready := make(chan struct{})
	close(ready)
	return &fakeSession{f: s.f, tty: tty, ready: ready, done: make(chan struct{}), do: func(ctx context.Context, in io.Reader, out, errw io.Writer) int {
		code := run(ctx, e.req.Cmd, in, out, errw)
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		e.code = code
		return code
	}}, nil
}

func (s fakeExecs) Inspect(ctx context.Context, id string) (container.ExecInspectResponse, error) {
	e, err := s.get(id)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	code := e.code
	return container.ExecInspectResponse{ID: e.id, ContainerID: e.container, ExitCode: &code}, nil
}

func (s fakeExecs) Resize(ctx context.Context, id string, h, w uint) error {
	_, err := s.get(id)
	return err
}

type fakeImages struct{ f *fake }

// familiar undoes what the CLI does to names.
func familiar(ref string) string { return strings.TrimPrefix(ref, "docker.io/library/") }

func (s fakeImages) Pull(ctx context.Context, ref string, o api.PullOptions, auth *registry.AuthConfig, p api.Progress) error {
	ref = familiar(ref)
	if s.f.called("pull %s", ref); o.Lazy {
		s.f.called("lazily")
	}
	s.f.mu.Lock()
	s.f.lastAuth = auth
	s.f.mu.Unlock()
	if strings.Contains(ref, "missing") {
		return errdef.New(errdef.NotFound, "manifest for %s not found", ref)
	}
	p(jsonstream.Message{Status: "Pulling from " + ref, ID: "latest"})
	p(jsonstream.Message{Status: "Downloading", ID: "0123456789ab", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
	if strings.Contains(ref, "broken") {
		return errdef.New(errdef.DataLoss, "layer 0123456789ab: digest mismatch")
	}
	p(jsonstream.Message{Status: "Status: Downloaded newer image for " + ref})
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.images[ref] = true
	return nil
}

func (s fakeImages) PullAll(ctx context.Context, ref string, o api.PullOptions, auth *registry.AuthConfig, p api.Progress) error {
	s.f.called("pull all %s", familiar(ref))
	for _, t := range []string{":1", ":2"} {
		if err := s.Pull(ctx, ref+t, o, auth, p); err != nil {
			return err
		}
	}
	return nil
}

func (s fakeImages) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	s.f.called("distribution %s", ref)
	return registry.DistributionInspect{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}}, nil
}

func (s fakeImages) Search(ctx context.Context, term string, limit int, f api.Filters, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	s.f.called("search %s %d %v", term, limit, f)
	return []registry.SearchResult{{Name: term, Description: "a boat", StarCount: 7, IsOfficial: true}}, nil
}

func (s fakeImages) Push(ctx context.Context, ref string, o api.PushOptions, auth *registry.AuthConfig, p api.Progress) error {
	ref = familiar(ref)
	s.f.called("push %s %+v", ref, o)
	s.f.mu.Lock()
	s.f.lastAuth = auth
	s.f.mu.Unlock()
	if strings.Contains(ref, "missing") {
		return errdef.New(errdef.NotFound, "An image does not exist locally with the tag: %s", ref)
	}
	p(jsonstream.Message{Status: "The push refers to repository [docker.io/library/" + ref + "]"})
	p(jsonstream.Message{Status: "Pushing", ID: "0123456789ab", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
	if strings.Contains(ref, "denied") {
		return errdef.New(errdef.Forbidden, "denied: requested access to the resource is denied")
	}
	aux := json.RawMessage(`{"Tag":"latest","Digest":"sha256:` + strings.Repeat("ab", 32) + `","Size":7}`)
	p(jsonstream.Message{Aux: &aux})
	return nil
}

func (s fakeImages) List(ctx context.Context, all bool, fl api.Filters) ([]image.Summary, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	var l []image.Summary
	for name := range s.f.images {
		l = append(l, image.Summary{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{name}, Size: 4096, Containers: -1, SharedSize: -1, Created: 1700000000})
	}
	l = append(l, image.Summary{ID: "sha256:" + strings.Repeat("cd", 32), Size: 7, Containers: -1, SharedSize: -1, Created: 1700000000})
	slices.SortFunc(l, func(a, b image.Summary) int { return strings.Compare(fmt.Sprint(a.RepoTags), fmt.Sprint(b.RepoTags)) })
	return l, nil
}

func (s fakeImages) Manifest(context.Context, string, bool, *registry.AuthConfig) (api.Manifest, error) {
	return api.Manifest{}, errdef.New(errdef.NotFound, "no such manifest")
}

func (s fakeImages) PushManifests(_ context.Context, target string, all []api.Manifest, insecure bool, _ *registry.AuthConfig) (string, error) {
	s.f.called("push %d manifests to %s, insecure %t", len(all), target, insecure)
	return "sha256:" + strings.Repeat("0", 64), nil
}

func (s fakeImages) Inspect(ctx context.Context, ref, platform string) (image.InspectResponse, error) {
	s.f.called("image %s", ref)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if !s.f.images[ref] && !s.f.images[ref+":latest"] {
		return image.InspectResponse{}, errdef.New(errdef.NotFound, "No such image: %s", ref)
	}
	return image.InspectResponse{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{ref}, Size: 4096, Architecture: "amd64", Os: "linux",
		Config: &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"echo", "hello"}}}}, nil
}

func (s fakeImages) History(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error) {
	return []image.HistoryResponseItem{{ID: "<missing>", CreatedBy: "COPY . /", Size: 1}}, nil
}
func (s fakeImages) Tag(ctx context.Context, ref, target string) error {
	s.f.called("tag %s %s", ref, target)
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.images[familiar(target)] = true
	return nil
}
func (s fakeImages) Remove(ctx context.Context, ref string, _ []ocispec.Platform, force, noPrune bool) ([]image.DeleteResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if !s.f.images[ref] {
		return nil, errdef.New(errdef.NotFound, "No such image: %s", ref)
	}
	delete(s.f.images, ref)
	return []image.DeleteResponse{{Untagged: ref}}, nil
}
func (s fakeImages) Prune(ctx context.Context, fl api.Filters) (image.PruneReport, error) {
	return image.PruneReport{}, nil
}
func (s fakeImages) Login(ctx context.Context, a *registry.AuthConfig) (registry.AuthResponse, error) {
	if a.Password != "right" {
		return registry.AuthResponse{}, errdef.New(errdef.Unauthorized, "incorrect username or password")
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}

type fakeNetworks struct{ f *fake }

func (s fakeNetworks) Create(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	if req.Name == "taken" {
		return network.CreateResponse{}, errdef.New(errdef.Conflict, "network with name taken already exists")
	}
	return network.CreateResponse{ID: "n1"}, nil
}
func (s fakeNetworks) List(ctx context.Context, fl api.Filters) ([]network.Summary, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.lastFilter = fl
	return []network.Summary{{Network: network.Network{Name: "bridge", ID: "n0", Driver: "bridge", Scope: "local"}}}, nil
}
func (s fakeNetworks) Inspect(ctx context.Context, ref string) (network.Inspect, error) {
	if ref != "bridge" {
		return network.Inspect{}, errdef.New(errdef.NotFound, "network %s not found", ref)
	}
	return network.Inspect{Network: network.Network{Name: "bridge", ID: "n0", Driver: "bridge", Scope: "local"}}, nil
}
func (s fakeNetworks) Remove(ctx context.Context, ref string) error {
	return errdef.New(errdef.Forbidden, "%s is a pre-defined network and cannot be removed", ref)
}
func (s fakeNetworks) Connect(ctx context.Context, ref string, req network.ConnectRequest) error {
	_ = req.EndpointConfig.Aliases // must not panic
	return nil
}
func (s fakeNetworks) Disconnect(ctx context.Context, ref string, req network.DisconnectRequest) error {
	return nil
}
func (s fakeNetworks) Prune(ctx context.Context, fl api.Filters) (network.PruneReport, error) {
	return network.PruneReport{}, nil
}

type fakeVolumes struct{ f *fake }

func (s fakeVolumes) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Name: req.Name, Driver: "local", Scope: "local"}, nil
}
func (s fakeVolumes) List(ctx context.Context, fl api.Filters) ([]volume.Volume, []string, error) {
	return nil, nil, nil
}
func (s fakeVolumes) Inspect(ctx context.Context, name string) (volume.Volume, error) {
	return volume.Volume{}, errdef.New(errdef.NotFound, "get %s: no such volume", name)
}
func (s fakeVolumes) Remove(ctx context.Context, name string, force bool) error { return nil }
func (s fakeVolumes) Prune(ctx context.Context, fl api.Filters) (volume.PruneReport, error) {
	s.f.called("volume prune %v", fl)
	return volume.PruneReport{}, nil
}

type fakeSystem struct{ f *fake }

func (s fakeSystem) Info(ctx context.Context) (system.Info, error) {
	return system.Info{ID: "fake-id", Name: "fakehost", OSType: "linux", Driver: "dhow", NCPU: 2}, nil
}
func (s fakeSystem) Version(ctx context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{Version: "0.1.0", Os: "linux", Arch: "amd64", KernelVersion: "6.18"}, nil
}
func (s fakeSystem) Events(ctx context.Context, since, until time.Time, fl api.Filters) (<-chan events.Message, error) {
	s.f.mu.Lock()
	s.f.lastFilter = fl
	s.f.mu.Unlock()
	ch := make(chan events.Message, 2)
	ch <- events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "c1", Attributes: map[string]string{"image": "here"}}, Time: 1}
	ch <- events.Message{Type: "network", Action: "connect", Actor: events.Actor{ID: "n0"}, Time: 2}
	if !until.IsZero() {
		close(ch)
	}
	return ch, nil
}
func (s fakeSystem) DiskUsage(ctx context.Context) (system.DiskUsage, error) {
	return system.DiskUsage{ImageUsage: &image.DiskUsage{TotalSize: 4096, TotalCount: 1, Items: []image.Summary{{ID: "sha256:ab", Size: 4096}}},
		ContainerUsage: &container.DiskUsage{}, VolumeUsage: &volume.DiskUsage{}, BuildCacheUsage: &build.DiskUsage{}}, nil
}
