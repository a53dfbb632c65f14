// Package system owns what the engine says about itself and the machine.
//
// It promises to answer without waiting for any container. It must never change anything.
package system

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	dcontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	dimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/event"
)

// Service implements api.System. All fields are required.
type Service struct {
	ID, Release, Commit string
	DataRoot            string
	Storage             string
	StorageStatus       [][2]string
	CgroupVersion       string
	SwapLimit           bool
	AppArmor            bool   // the machine has it
	AppArmorLacks       string // why containers get no default profile of it
	Insecure, Mirrors   []string
	Bus                 *event.Bus
	Containers          api.Containers
	Images              api.Images
	Volumes             func() []volume.Volume
	// Degraded says why the engine runs on saved records, "" when it does not.
	Degraded func() string
	// ImageUse is what images take on disk, and how much of that those do which no container uses.
	ImageUse func() (total, reclaimable int64, err error)
}

// The versions of the Docker Engine API whose words the types have.
const (
	APIVersion    = "1.51"
	MinAPIVersion = "1.24"
)

// Version implements api.System.
func (s *Service) Version(context.Context) (system.VersionResponse, error) {
	k := kernel()
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "dhow"}, Version: s.Release, APIVersion: APIVersion, MinAPIVersion: MinAPIVersion,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GitCommit: s.Commit, GoVersion: runtime.Version(), KernelVersion: k,
		Components: []system.ComponentVersion{{Name: "Engine", Version: s.Release, Details: map[string]string{
			"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion, "Arch": runtime.GOARCH, "Os": runtime.GOOS,
			"GoVersion": runtime.Version(), "KernelVersion": k, "GitCommit": s.Commit, "Experimental": "false",
		}}},
	}, nil
}

// Info implements api.System.
func (s *Service) Info(ctx context.Context) (system.Info, error) {
	list, err := s.Containers.List(ctx, api.ListOptions{All: true})
	if err != nil {
		return system.Info{}, err
	}
	images, err := s.Images.List(ctx, false, nil)
	if err != nil {
		return system.Info{}, err
	}
	name, _ := os.Hostname()
	out := system.Info{
		ID: s.ID, Containers: len(list), Images: len(images), Driver: s.Storage, DriverStatus: s.StorageStatus,
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{"json-file", "none"}},
		MemoryLimit: true, SwapLimit: s.SwapLimit, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		IPv4Forwarding: true, OomKillDisable: s.CgroupVersion == "1", NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: s.CgroupVersion,
		NEventsListener: s.Bus.Listeners(), KernelVersion: kernel(), OperatingSystem: osRelease("PRETTY_NAME"), OSVersion: osRelease("VERSION_ID"),
		OSType: "linux", Architecture: machine(), IndexServerAddress: "https://index.docker.io/v1/", NCPU: runtime.NumCPU(), MemTotal: memory(),
		DockerRootDir: s.DataRoot, Name: name, Labels: []string{}, ServerVersion: s.Release,
		Runtimes: map[string]system.RuntimeWithStatus{"dhow": {}}, DefaultRuntime: "dhow",
		Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, LiveRestoreEnabled: true, Isolation: "",
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs: []string{}, Warnings: []string{}, RegistryConfig: s.registries(),
	}
	for _, c := range list {
		switch c.State {
		case dcontainer.StateRunning:
			out.ContainersRunning++
		case dcontainer.StatePaused:
			out.ContainersPaused++
		default:
			out.ContainersStopped++
		}
	}
	if s.AppArmor {
		out.SecurityOptions = append([]string{"name=apparmor"}, out.SecurityOptions...)
		if s.AppArmorLacks != "" {
			out.Warnings = append(out.Warnings, "WARNING: containers run without an AppArmor profile: "+s.AppArmorLacks)
		}
	}
	if why := s.Degraded(); why != "" {
		out.Warnings = append(out.Warnings, "WARNING: degraded: "+why+": run dhow system check --repair")
	}
	if !s.SwapLimit {
		out.Warnings = append(out.Warnings, "WARNING: No swap limit support")
	}
	return out, nil
}

func (s *Service) registries() *registry.ServiceConfig {
	mirrors := append([]string{}, s.Mirrors...)
	out := &registry.ServiceConfig{
		IndexConfigs: map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true}}, Mirrors: mirrors,
		InsecureRegistryCIDRs: []netip.Prefix{},
	}
	for _, r := range s.Insecure {
		if p, err := netip.ParsePrefix(r); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, p)
			continue
		}
		out.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
	}
	return out
}

// Events implements api.System.
func (s *Service) Events(ctx context.Context, since, until time.Time, f api.Filters) (<-chan events.Message, error) {
	for k := range f {
		if !slices.Contains(event.Keys(), k) {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter '%s'", k)
		}
	}
	return s.Bus.Subscribe(ctx, since, until, f), nil
}

// DiskUsage implements api.System. Sizes are what du counts: of images their two folders, of containers their writable layers, of volumes
// their data. A single image's size is that of its layers as tars.
func (s *Service) DiskUsage(ctx context.Context) (system.DiskUsage, error) {
	list, err := s.Containers.List(ctx, api.ListOptions{All: true, Size: true})
	if err != nil {
		return system.DiskUsage{}, err
	}
	images, err := s.Images.List(ctx, true, nil)
	if err != nil {
		return system.DiskUsage{}, err
	}
	out := system.DiskUsage{
		ContainerUsage: &dcontainer.DiskUsage{Items: list, TotalCount: int64(len(list))}, ImageUsage: &dimage.DiskUsage{Items: images, TotalCount: int64(len(images))},
		VolumeUsage: &volume.DiskUsage{Items: s.Volumes()}, BuildCacheUsage: &build.DiskUsage{},
	}
	for _, c := range list {
		out.ContainerUsage.TotalSize += c.SizeRw
		if c.State == dcontainer.StateRunning || c.State == dcontainer.StatePaused {
			out.ContainerUsage.ActiveCount++
		} else {
			out.ContainerUsage.Reclaimable += c.SizeRw
		}
	}
	for _, i := range images {
		if i.Containers > 0 {
			out.ImageUsage.ActiveCount++
		}
	}
	if out.ImageUsage.TotalSize, out.ImageUsage.Reclaimable, err = s.ImageUse(); err != nil {
		return system.DiskUsage{}, err
	}
	v := out.VolumeUsage
	v.TotalCount = int64(len(v.Items))
	for _, x := range v.Items {
		v.TotalSize += x.UsageData.Size
		if x.UsageData.RefCount > 0 {
			v.ActiveCount++
		} else {
			v.Reclaimable += x.UsageData.Size
		}
	}
	return out, nil
}

func utsname() unix.Utsname {
	var u unix.Utsname
	unix.Uname(&u) // fails only for a bad address
	return u
}

func kernel() string  { u := utsname(); return unix.ByteSliceToString(u.Release[:]) }
func machine() string { u := utsname(); return unix.ByteSliceToString(u.Machine[:]) }

func memory() int64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return int64(i.Totalram) * int64(i.Unit)
}

func openFiles() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

func osRelease(key string) string {
	b, _ := os.ReadFile("/etc/os-release")
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

var _ api.System = (*Service)(nil)
