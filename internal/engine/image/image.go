// Package image owns the engine's view of the image store: the Docker API's words for it, its events, and the embedded image.
//
// It promises that an image which a container uses is not removed. It must never read a layer.
package image

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	dimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/base/id"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/container"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/spec/manifest"
	"github.com/dhow-containers/dhow/internal/spec/ref"
	store "github.com/dhow-containers/dhow/internal/store/image"
	reg "github.com/dhow-containers/dhow/internal/store/registry"
)

// Embedded is an image that comes with the program; Tar makes its one layer.
type Embedded struct {
	Name   string
	Config dockerspec.DockerOCIImage
	Tar    func() (io.Reader, error)
}

// Service implements api.Images.
type Service struct {
	Store    *store.Store
	Registry *reg.Client
	Events   *event.Bus
	Storage  string
	Log      *slog.Logger
	Lazy     bool // every pull is a lazy one
	// Users names the containers that use an image.
	Users func(imageID string) []string
	// Running names those of them that run.
	Running func(imageID string) []string
	// Embedded may be nil.
	Embedded *Embedded
}

// Local finds an image of this host; the embedded one is made when it is asked for. It implements container.Images.
func (s *Service) Local(ctx context.Context, ref, platform string) (container.Image, error) {
	img, err := usable(ctx, s, ref, platform)
	if err != nil {
		return container.Image{}, err
	}
	have := manifest.PlatformString(img.Platform)
	return container.Image{ID: img.ID.String(), Platform: have, Layers: img.DiffIDs, Config: img.Config.Config}, nil
}

// Stands implements container.Images.
func (s *Service) Stands(id string) error { return s.Store.Stands(digest.Digest(id)) }

// usable is platform, for images, too, that are still arriving.
func usable(ctx context.Context, s *Service, ref, platform string) (store.Image, error) {
	if img, err := store.Find(s.Store, ref, platform); err == nil {
		return img, nil
	}
	return s.platform(ctx, ref, platform)
}

// platform is resolve for one platform of an image, "" for the one that its name means.
func (s *Service) platform(ctx context.Context, ref, platform string) (store.Image, error) {
	img, err := s.resolve(ctx, ref)
	if err != nil || platform == "" {
		return img, err
	}
	return store.ResolvePlatform(s.Store, ref, platform)
}

func (s *Service) resolve(ctx context.Context, ref string) (store.Image, error) {
	if ref == "" {
		return store.Image{}, errdef.New(errdef.InvalidArgument, "no image given")
	}
	img, err := s.Store.Resolve(ref)
	if e := s.Embedded; e != nil && errdef.Is(err, errdef.NotFound) && (ref == e.Name || ref == e.Name+":latest") {
		tar, err := e.Tar()
		if err != nil {
			return img, err
		}
		return s.Store.AddLocal(ctx, e.Name+":latest", e.Config, tar)
	}
	if errdef.Is(err, errdef.NotFound) {
		// Docker's clients look for these words to decide whether to pull.
		return img, errdef.New(errdef.NotFound, "No such image: %s", ref)
	}
	return img, err
}

// Pull implements api.Images.
func (s *Service) Pull(ctx context.Context, ref string, o api.PullOptions, auth *registry.AuthConfig, p api.Progress) error {
	if p == nil {
		p = func(jsonstream.Message) {}
	}
	if e := s.Embedded; e != nil && (ref == e.Name || ref == e.Name+":latest") {
		if _, err := s.resolve(ctx, ref); err != nil {
			return err
		}
		p(jsonstream.Message{Status: "Status: Image " + e.Name + " comes with this engine"})
		return nil
	}
	if err := notReserved(ref); err != nil {
		return err
	}
	defer s.Registry.Rest()
	so := store.PullOptions{Platform: o.Platform, Auth: credentials(auth, ref), Progress: forward(p)}
	if o.Lazy || s.Lazy && o.Platform != store.AllPlatforms {
		so.Lazy = &store.Lazy{
			Arrived: func(img store.Image, err error) { s.arrived(ref, img, err) },
			Trouble: func(err error) {
				s.Log.Error("a container was given an input/output error", "err", err)
			},
		}
	}
	img, err := s.Store.Pull(ctx, ref, so)
	if err != nil {
		return err
	}
	s.event(events.ActionPull, ref, img.Config.Config.Labels, ref)
	return nil
}

// arrived tells the end of a lazy pull.
func (s *Service) arrived(ref string, img store.Image, err error) {
	attr := map[string]string{"name": ref}
	if err != nil {
		attr["error"] = err.Error()
		s.Log.Error("image has not arrived", "image", ref, "err", err)
	} else {
		s.Log.Info("image has arrived", "image", ref, "id", img.ID)
	}
	s.Events.Publish(events.ImageEventType, api.ActionArrive, img.ID.String(), attr)
	s.Registry.Rest()
}

// notReserved refuses the name that stands for no image in a Dockerfile.
func notReserved(name string) error {
	if r, err := ref.Parse(name); err == nil && r.Name() == "docker.io/library/scratch" {
		return errdef.New(errdef.InvalidArgument, "'scratch' is a reserved name")
	}
	return nil
}

// credentials are what the client gave for the registry of name, none when it says that they belong to another.
func credentials(a *registry.AuthConfig, name string) *reg.Auth {
	if a == nil {
		return nil
	}
	domain := name
	if r, err := ref.Parse(name); err == nil {
		domain = r.Domain
	}
	c := &reg.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	return c.For(domain, a.ServerAddress)
}

func (s *Service) event(a events.Action, id string, labels map[string]string, name string) {
	attr := map[string]string{}
	for k, v := range labels {
		attr[k] = v
	}
	attr["name"] = name
	s.Events.Publish(events.ImageEventType, a, id, attr)
}

// Inspect implements api.Images.
func (s *Service) Inspect(ctx context.Context, ref, platform string) (dimage.InspectResponse, error) {
	img, err := usable(ctx, s, ref, platform)
	if err != nil {
		return dimage.InspectResponse{}, err
	}
	config := img.Config.Config
	out := dimage.InspectResponse{
		ID: img.ID.String(), RepoTags: list(img.RepoTags), RepoDigests: list(img.RepoDigests), Author: img.Config.Author, Config: &config,
		Architecture: img.Platform.Architecture, Variant: img.Platform.Variant, Os: img.Platform.OS, OsVersion: img.Platform.OSVersion, Size: img.Size,
		GraphDriver: &storage.DriverData{Name: s.Storage, Data: map[string]string{}},
		RootFS:      dimage.RootFS{Type: "layers"}, Metadata: dimage.Metadata{LastTagTime: img.Tagged}, Descriptor: &img.Manifest,
	}
	if img.Arriving > 0 {
		out.GraphDriver.Data["Arriving"] = fmt.Sprintf("%d of %d layers", img.Arriving, len(img.DiffIDs))
	} else if img.Parts, err = store.Parts(s.Store, ref); err != nil {
		return out, err
	}
	out.Manifests = s.manifests(img)
	if n := len(img.Config.History); n > 0 {
		out.Comment = img.Config.History[n-1].Comment
	}
	if !img.Created.IsZero() {
		out.Created = img.Created.Format(time.RFC3339Nano)
	}
	for _, d := range img.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	return out, nil
}

func list(in []string) []string {
	if in == nil {
		return []string{}
	}
	return in
}

// History implements api.Images.
func (s *Service) History(ctx context.Context, ref, platform string) ([]dimage.HistoryResponseItem, error) {
	img, err := s.platform(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	steps, err := s.Store.History(img.ID.String())
	if err != nil {
		return nil, err
	}
	out := []dimage.HistoryResponseItem{}
	for _, st := range steps {
		out = append(out, dimage.HistoryResponseItem{ID: st.ID, Created: st.Created.Unix(), CreatedBy: st.CreatedBy, Comment: st.Comment, Tags: st.Tags, Size: st.Size})
	}
	return out, nil
}

// Tag implements api.Images.
func (s *Service) Tag(ctx context.Context, ref, target string) error {
	img, err := s.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.Store.Tag(ref, target); err != nil { // not the ID: the name may stand for an index
		return err
	}
	s.event(events.ActionTag, img.ID.String(), img.Config.Config.Labels, target)
	return nil
}

// Remove implements api.Images. Parents are not kept as images of their own, so noPrune has nothing to keep.
func (s *Service) Remove(ctx context.Context, name string, platforms []ocispec.Platform, force, _ bool) ([]dimage.DeleteResponse, error) {
	var labels map[string]string
	gone := ""
	if img, err := s.Store.Resolve(name); err == nil { // an image whose files are damaged may go as well
		labels, gone = img.Config.Config.Labels, img.ID.String()
		if err := forcible(s, img, name, force); err != nil {
			return nil, err
		}
	}
	remove := func() ([]string, []string, error) { return s.Store.Remove(name, force, s.inUse) }
	if len(platforms) > 0 {
		remove = func() ([]string, []string, error) {
			return store.RemovePlatforms(s.Store, name, platforms, force, s.inUse)
		}
	}
	untagged, deleted, err := remove()
	if errdef.Is(err, errdef.NotFound) && gone == "" {
		return nil, errdef.New(errdef.NotFound, "No such image: %s", name)
	}
	if err != nil {
		return nil, err
	}
	if gone == "" {
		gone = append(deleted, name)[0]
	}
	out := []dimage.DeleteResponse{}
	for _, t := range untagged {
		out = append(out, dimage.DeleteResponse{Untagged: t})
		s.event(events.ActionUnTag, gone, labels, t)
	}
	for _, d := range deleted {
		out = append(out, dimage.DeleteResponse{Deleted: d})
	}
	if slices.Contains(deleted, gone) {
		s.event(events.ActionDelete, gone, labels, gone)
	}
	return out, nil
}

// forcible refuses to take all names from the image of a container that runs: who gives an ID wants the image gone, which it cannot be. A
// single name of it may be taken by force.
func forcible(s *Service, img store.Image, name string, force bool) error {
	if r, err := ref.Parse(name); !force || err == nil && slices.Contains(slices.Concat(img.RepoTags, img.RepoDigests), r.Familiar()) {
		return nil
	}
	if running := s.Running(img.ID.String()); len(running) > 0 {
		return errdef.New(errdef.Conflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", id.Short(img.ID.String()), id.Short(running[0]))
	}
	return nil
}

func (s *Service) inUse(id digest.Digest) []string { return s.Users(id.String()) }

// Prune implements api.Images: nameless images, with dangling=false all that no container uses.
func (s *Service) Prune(_ context.Context, f api.Filters) (dimage.PruneReport, error) {
	for k := range f {
		if !slices.Contains([]string{"dangling", "label", "label!", "until"}, k) {
			return dimage.PruneReport{}, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	dangling, err := f.Bool("dangling", true)
	if err != nil {
		return dimage.PruneReport{}, err
	}
	o := store.PruneOptions{InUse: s.inUse, All: !dangling}
	if len(f["label"])+len(f["label!"]) > 0 {
		o.Labels = f.Labelled
	}
	if o.Until, err = f.Until(time.Now()); err != nil {
		return dimage.PruneReport{}, err
	}
	untagged, deleted, freed, err := s.Store.Prune(o)
	out := dimage.PruneReport{ImagesDeleted: []dimage.DeleteResponse{}, SpaceReclaimed: uint64(max(freed, 0))}
	for _, t := range untagged {
		out.ImagesDeleted = append(out.ImagesDeleted, dimage.DeleteResponse{Untagged: t})
	}
	for _, d := range deleted {
		out.ImagesDeleted = append(out.ImagesDeleted, dimage.DeleteResponse{Deleted: d})
	}
	s.Events.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(out.SpaceReclaimed)})
	return out, err
}

// Login implements api.Images.
func (s *Service) Login(ctx context.Context, auth *registry.AuthConfig) (registry.AuthResponse, error) {
	if auth == nil {
		return registry.AuthResponse{}, errdef.New(errdef.InvalidArgument, "login: no credentials given")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(auth.ServerAddress, "https://"), "http://"), "/")
	if host == "" || host == "index.docker.io/v1" {
		host = "docker.io"
	}
	if err := s.Registry.Login(ctx, host, credentials(auth, host+"/any")); err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}
