package docker

import (
	"encoding/json"
	"net"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// decodeCreate reads a create request so that nobody after it meets a nil: Config, HostConfig, NetworkingConfig and every
// endpoint exist, and no list holds null.
func decodeCreate(c *call) (container.CreateRequest, error) {
	var req container.CreateRequest
	if err := c.decode(&req, false); err != nil {
		return req, err
	}
	if req.Config == nil {
		return req, errdef.New(errdef.InvalidArgument, "create container: the configuration is empty; name at least an Image")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	if req.NetworkingConfig.EndpointsConfig == nil {
		req.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	eps := req.NetworkingConfig.EndpointsConfig
	for name, e := range eps {
		if e == nil {
			eps[name] = &network.EndpointSettings{}
		}
	}
	if c.minor < 44 && len(eps) > 1 {
		return req, errdef.New(errdef.InvalidArgument, "create container: API version %s takes one network; connect the others afterwards", apiVersion(c.minor))
	}
	if err := checkResources(&req.HostConfig.Resources); err != nil {
		return req, err
	}
	return req, c.oldMAC(&req)
}

// oldMAC moves Config.MacAddress, which API versions before 1.52 have, to the container's network.
func (c *call) oldMAC(req *container.CreateRequest) error {
	if c.minor >= 52 {
		return nil
	}
	var old struct{ MacAddress string }
	if err := json.Unmarshal(c.body, &old); err != nil || old.MacAddress == "" {
		return err
	}
	mac, err := net.ParseMAC(old.MacAddress)
	if err != nil {
		return errdef.New(errdef.InvalidArgument, "create container: MacAddress %q: %w", old.MacAddress, err)
	}
	name := string(req.HostConfig.NetworkMode)
	if name == "" {
		name = network.NetworkDefault
	}
	eps := req.NetworkingConfig.EndpointsConfig
	if eps[name] == nil {
		eps[name] = &network.EndpointSettings{}
	}
	if len(eps[name].MacAddress) == 0 {
		eps[name].MacAddress = network.HardwareAddr(mac)
	}
	return nil
}

// checkResources refuses null in the lists of pointers.
func checkResources(r *container.Resources) error {
	null := map[string]bool{
		"Ulimits":              slices.Contains(r.Ulimits, nil),
		"BlkioWeightDevice":    slices.Contains(r.BlkioWeightDevice, nil),
		"BlkioDeviceReadBps":   slices.Contains(r.BlkioDeviceReadBps, nil),
		"BlkioDeviceWriteBps":  slices.Contains(r.BlkioDeviceWriteBps, nil),
		"BlkioDeviceReadIOps":  slices.Contains(r.BlkioDeviceReadIOps, nil),
		"BlkioDeviceWriteIOps": slices.Contains(r.BlkioDeviceWriteIOps, nil),
	}
	for name, bad := range null {
		if bad {
			return errdef.New(errdef.InvalidArgument, "invalid %s: an element is null", name)
		}
	}
	return nil
}
