package spec

import (
	"slices"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// unsupported refuses, by name, what this engine does not do yet: an option is never accepted and ignored.
func (b *builder) unsupported() error {
	c, h := b.in.Container.Config, b.in.Container.HostConfig
	for _, f := range []struct {
		set  bool
		name string
	}{
		{h.VolumeDriver != "" && h.VolumeDriver != "local", "HostConfig.VolumeDriver " + h.VolumeDriver},
		{h.Cgroup != "", "HostConfig.Cgroup " + string(h.Cgroup)},
		{len(h.Links) > 0, "HostConfig.Links (--link)"},
		{h.UsernsMode != "" && !h.UsernsMode.IsHost(), "HostConfig.UsernsMode " + string(h.UsernsMode)},
		{len(h.StorageOpt) > 0, "HostConfig.StorageOpt (--storage-opt)"},
		{len(h.DeviceRequests) > 0, "HostConfig.DeviceRequests (--gpus)"},
		{h.Init != nil && *h.Init, "HostConfig.Init (--init)"},
		{!h.Isolation.IsDefault(), "HostConfig.Isolation " + string(h.Isolation)},
		{h.CPUCount != 0 || h.CPUPercent != 0 || h.IOMaximumIOps != 0 || h.IOMaximumBandwidth != 0, "HostConfig limits for Windows"},
		{c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE" && !slices.Contains(b.in.Container.FromImage, "Healthcheck"), "Config.Healthcheck (--health-cmd)"},
	} {
		if f.set {
			return errdef.New(errdef.NotImplemented, "%s is not implemented", f.name)
		}
	}
	if h.Runtime != "" && h.Runtime != "dhow" && h.Runtime != "runc" {
		return errdef.New(errdef.InvalidArgument, "unknown or invalid runtime name: %s: this engine has its own, named dhow", h.Runtime)
	}
	if slices.Contains(b.in.Container.FromImage, "Healthcheck") {
		b.warn = append(b.warn, "the image's HEALTHCHECK is not run: health checks are not implemented")
	}
	return nil
}
