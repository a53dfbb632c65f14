package container

import (
	"context"
	"os"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/container/spec"
)

func owner(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// Update implements api.Containers: limits and restart policy, of a running container at once.
func (s *Service) Update(ctx context.Context, ref string, uc container.UpdateConfig) (container.UpdateResponse, error) {
	u, err := s.table.find(ref)
	if err != nil {
		return container.UpdateResponse{}, err
	}
	if err := u.lock(ctx); err != nil {
		return container.UpdateResponse{}, err
	}
	defer u.unlock()
	rec := u.change()
	h := *rec.HostConfig
	rec.HostConfig = &h
	if uc.RestartPolicy.Name != "" {
		if err := container.ValidateRestartPolicy(uc.RestartPolicy); err != nil {
			return container.UpdateResponse{}, errdef.As(errdef.InvalidArgument, err)
		}
		if h.AutoRemove && !uc.RestartPolicy.IsNone() {
			return container.UpdateResponse{}, errdef.New(errdef.InvalidArgument, "restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		h.RestartPolicy = uc.RestartPolicy
	}
	if err := mergeResources(&h.Resources, &uc.Resources); err != nil {
		return container.UpdateResponse{}, err
	}
	if _, err := s.rehearse(rec); err != nil {
		return container.UpdateResponse{}, err
	}
	if r, err := u.current(); err == nil {
		var change specs.LinuxResources
		if err := spec.Resources(&h.Resources, s.Host, &change); err != nil {
			return container.UpdateResponse{}, err
		}
		if err := r.shim.Update(ctx, &change); err != nil {
			return container.UpdateResponse{}, err
		}
	}
	if err := s.save(u, rec); err != nil {
		return container.UpdateResponse{}, err
	}
	s.event(rec, events.ActionUpdate, nil)
	return container.UpdateResponse{Warnings: []string{}}, nil
}

// mergeResources lays the limits that are given over those there are.
func mergeResources(to, from *container.Resources) error {
	if from.CgroupParent != "" || len(from.Devices) > 0 || len(from.DeviceCgroupRules) > 0 || len(from.DeviceRequests) > 0 || len(from.Ulimits) > 0 {
		return errdef.New(errdef.NotImplemented, "update: CgroupParent, Devices and Ulimits cannot change while a container exists")
	}
	if from.BlkioWeight != 0 || len(from.BlkioWeightDevice)+len(from.BlkioDeviceReadBps)+len(from.BlkioDeviceWriteBps)+len(from.BlkioDeviceReadIOps)+len(from.BlkioDeviceWriteIOps) > 0 {
		return errdef.New(errdef.NotImplemented, "update: block I/O limits are not implemented")
	}
	if from.NanoCPUs > 0 && to.CPUQuota > 0 || from.CPUQuota > 0 && to.NanoCPUs > 0 {
		return errdef.New(errdef.Conflict, "conflicting options: the container was limited by the other of --cpus and --cpu-quota")
	}
	number := func(t *int64, f int64) {
		if f != 0 {
			*t = f
		}
	}
	number(&to.Memory, from.Memory)
	number(&to.MemorySwap, from.MemorySwap)
	number(&to.MemoryReservation, from.MemoryReservation)
	number(&to.CPUShares, from.CPUShares)
	number(&to.NanoCPUs, from.NanoCPUs)
	number(&to.CPUPeriod, from.CPUPeriod)
	number(&to.CPUQuota, from.CPUQuota)
	number(&to.CPURealtimePeriod, from.CPURealtimePeriod)
	number(&to.CPURealtimeRuntime, from.CPURealtimeRuntime)
	if from.CpusetCpus != "" {
		to.CpusetCpus = from.CpusetCpus
	}
	if from.CpusetMems != "" {
		to.CpusetMems = from.CpusetMems
	}
	if from.PidsLimit != nil {
		to.PidsLimit = from.PidsLimit
	}
	if from.MemorySwappiness != nil {
		to.MemorySwappiness = from.MemorySwappiness
	}
	if from.OomKillDisable != nil {
		to.OomKillDisable = from.OomKillDisable
	}
	return nil
}
