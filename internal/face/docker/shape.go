package docker

import (
	"net/http"
	"net/netip"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// The engine speaks the shapes of the newest version; here they become those of older ones.

// oldNetworkSettings has the fields of the default network that API 1.52 dropped.
type oldNetworkSettings struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             network.HardwareAddr
}

// oldConfig has Config.MacAddress, which only API versions before 1.44 fill.
type oldConfig struct {
	*container.Config
	MacAddress string `json:",omitempty"`
}

type oldContainer struct {
	container.InspectResponse
	Config          *oldConfig
	NetworkSettings *oldNetworkSettings
}

func shapeContainer(v container.InspectResponse, minor int) any {
	if minor >= 52 {
		return v
	}
	o := oldContainer{InspectResponse: v}
	if v.Config != nil {
		o.Config = &oldConfig{Config: v.Config}
	}
	if ns := v.NetworkSettings; ns != nil {
		o.NetworkSettings = &oldNetworkSettings{NetworkSettings: ns}
		e := ns.Networks["bridge"]
		if e != nil {
			o.NetworkSettings.fill(e)
		}
		if e != nil && minor < 44 && o.Config != nil && len(e.MacAddress) > 0 {
			o.Config.MacAddress = e.MacAddress.String()
		}
	}
	return o
}

func (o *oldNetworkSettings) fill(e *network.EndpointSettings) {
	o.EndpointID, o.MacAddress = e.EndpointID, e.MacAddress
	o.Gateway, o.IPAddress, o.IPPrefixLen = e.Gateway, e.IPAddress, e.IPPrefixLen
	o.IPv6Gateway, o.GlobalIPv6Address, o.GlobalIPv6PrefixLen = e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen
}

// oldSummary has the size that API 1.44 dropped.
type oldSummary struct {
	image.Summary
	VirtualSize int64
}

func shapeImages(l []image.Summary, minor int) any {
	l = slices.Clone(list(l))
	for i := range l {
		s := &l[i]
		s.RepoTags, s.RepoDigests = list(s.RepoTags), list(s.RepoDigests)
		if minor < 43 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
			s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		if minor < 48 {
			s.Descriptor = nil
		}
	}
	if minor >= 44 {
		return l
	}
	old := make([]oldSummary, len(l))
	for i, s := range l {
		old[i] = oldSummary{Summary: s, VirtualSize: s.Size}
	}
	return old
}

// oldImageConfig has the fields of a container that API 1.50 dropped from an image's configuration.
type oldImageConfig struct {
	Hostname, Domainname                                               string
	AttachStdin, AttachStdout, AttachStderr, Tty, OpenStdin, StdinOnce bool
	Image                                                              string
	*dockerspec.DockerOCIImageConfig
}

type oldImage struct {
	image.InspectResponse
	Config      *oldImageConfig
	VirtualSize int64 `json:",omitempty"`
}

func shapeImage(v image.InspectResponse, minor int) any {
	v.RepoTags, v.RepoDigests = list(v.RepoTags), list(v.RepoDigests)
	if minor < 48 {
		v.Descriptor = nil
	}
	if minor >= 50 {
		return v
	}
	o := oldImage{InspectResponse: v}
	if v.Config != nil {
		o.Config = &oldImageConfig{DockerOCIImageConfig: v.Config}
	}
	if minor < 44 {
		o.VirtualSize = v.Size
	}
	return o
}

// oldUsage is /system/df up to API 1.52; that version has both forms.
type oldUsage struct {
	LayersSize  int64
	Images      []image.Summary
	Containers  []container.Summary
	Volumes     []volume.Volume
	BuildCache  []build.CacheRecord
	BuilderSize int64
}

func shapeUsage(c *call, v system.DiskUsage) error {
	if err := pickUsage(&v, c.r.URL.Query()["type"]); err != nil {
		return err
	}
	var old oldUsage
	if v.ImageUsage != nil {
		old.LayersSize, old.Images = v.ImageUsage.TotalSize, list(v.ImageUsage.Items)
	}
	if v.ContainerUsage != nil {
		old.Containers = list(v.ContainerUsage.Items)
	}
	if v.VolumeUsage != nil {
		old.Volumes = list(v.VolumeUsage.Items)
	}
	if v.BuildCacheUsage != nil {
		old.BuilderSize, old.BuildCache = v.BuildCacheUsage.TotalSize, list(v.BuildCacheUsage.Items)
	}
	if c.minor < 52 {
		return c.json(http.StatusOK, old)
	}
	return c.json(http.StatusOK, struct {
		oldUsage
		system.DiskUsage
	}{old, v})
}

// pickUsage keeps the kinds of object asked for; none asked means all.
func pickUsage(v *system.DiskUsage, types []string) error {
	if len(types) == 0 {
		return nil
	}
	for _, t := range types {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
		default:
			return errdef.New(errdef.InvalidArgument, "unknown object type: %s", t)
		}
	}
	keep := func(o system.DiskUsageObject) bool { return slices.Contains(types, string(o)) }
	if !keep(system.ContainerObject) {
		v.ContainerUsage = nil
	}
	if !keep(system.ImageObject) {
		v.ImageUsage = nil
	}
	if !keep(system.VolumeObject) {
		v.VolumeUsage = nil
	}
	if !keep(system.BuildCacheObject) {
		v.BuildCacheUsage = nil
	}
	return nil
}
